//! Rows in columns of text, as a stream: the first batch determines the column widths.

use std::io::{self, Write};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};

/// Widest column in characters. Only this format truncates values; CSV, JSON and Parquet do not.
const WIDEST: usize = 60;

/// Writer of rows under their column names.
pub(crate) struct Grid<W> {
    out: W,
    schema: SchemaRef,
    widths: Vec<usize>,
    right: Vec<bool>,
    rows: u64,
}

impl<W: Write> Grid<W> {
    pub(crate) fn new(out: W, schema: SchemaRef) -> Self {
        let right = schema.fields().iter().map(|field| field.data_type().is_numeric()).collect();
        Self { out, schema, widths: Vec::new(), right, rows: 0 }
    }

    pub(crate) fn write(&mut self, batch: &RecordBatch) -> Result<(), ArrowError> {
        let cells = cells(batch)?;
        if self.widths.is_empty() {
            self.begin(&cells)?;
        }
        for row in &cells {
            self.line(row)?;
        }
        self.rows += cells.len() as u64;
        Ok(())
    }

    pub(crate) fn finish(mut self) -> Result<(), ArrowError> {
        if self.widths.is_empty() {
            self.begin(&[])?;
        }
        let rows = self.rows;
        writeln!(self.out, "({rows} {})", if rows == 1 { "row" } else { "rows" })?;
        Ok(self.out.flush()?)
    }

    fn begin(&mut self, cells: &[Vec<String>]) -> io::Result<()> {
        let names: Vec<String> =
            self.schema.fields().iter().map(|field| field.name().clone()).collect();
        self.widths = (0..names.len())
            .map(|column| {
                let values = cells.iter().map(|row| row[column].chars().count());
                values.chain([names[column].chars().count()]).max().unwrap_or(0).min(WIDEST)
            })
            .collect();
        self.line(&names)?;
        let rules: Vec<String> = self.widths.iter().map(|width| "-".repeat(*width)).collect();
        self.line(&rules)
    }

    fn line(&mut self, cells: &[String]) -> io::Result<()> {
        let mut line = String::new();
        for ((cell, width), right) in cells.iter().zip(&self.widths).zip(&self.right) {
            if !line.is_empty() {
                line.push_str("  ");
            }
            let shown = truncated(cell);
            if *right {
                line.push_str(&format!("{shown:>width$}"));
            } else {
                line.push_str(&format!("{shown:<width$}"));
            }
        }
        writeln!(self.out, "{}", line.trim_end())
    }
}

fn truncated(cell: &str) -> String {
    if cell.chars().count() <= WIDEST {
        return cell.replace(['\n', '\r'], " ");
    }
    let kept: String = cell.chars().take(WIDEST - 3).collect();
    format!("{}...", kept.replace(['\n', '\r'], " "))
}

fn cells(batch: &RecordBatch) -> Result<Vec<Vec<String>>, ArrowError> {
    let options = FormatOptions::default().with_display_error(true);
    let columns = batch
        .columns()
        .iter()
        .map(|column| ArrayFormatter::try_new(column.as_ref(), &options))
        .collect::<Result<Vec<_>, _>>()?;
    Ok((0..batch.num_rows())
        .map(|row| columns.iter().map(|column| column.value(row).to_string()).collect())
        .collect())
}
