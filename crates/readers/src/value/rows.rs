//! Builder of batches of rows, which removes bad rows.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch};
use arrow::compute::filter;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use tidewater_common::schema::TableSchema;

use super::builder::ColumnBuilder;
use super::cell_error::CellError;

/// A column of the table with its builder.
#[derive(Debug)]
struct TargetColumn {
    name: String,
    nullable: bool,
    in_key: bool,
    builder: ColumnBuilder,
}

/// A rejected cell: its column and the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CellProblem {
    /// Name of the column.
    pub column: String,
    /// Reason.
    pub problem: CellError,
}

/// Builder of rows of a table.
///
/// A row begins implicitly and ends with [`end_row`](Self::end_row) or
/// [`abandon_row`](Self::abandon_row). Before that, each column receives one value, in schema order.
#[derive(Debug)]
pub struct RowsBuilder {
    schema: SchemaRef,
    targets: Vec<TargetColumn>,
    /// Number of columns of the current row that have a value.
    filled: usize,
    /// One entry per row, false for bad rows; empty while all rows are good.
    good: Vec<bool>,
    rows: usize,
}

impl RowsBuilder {
    /// Creates a builder for all columns of `table`, with capacity for `rows`.
    pub fn new(table: &TableSchema, rows: usize) -> Self {
        let targets = table
            .columns()
            .iter()
            .map(|column| TargetColumn {
                name: column.name.clone(),
                nullable: column.nullable,
                in_key: table.primary_key().contains(&column.id),
                builder: ColumnBuilder::new(&column.data_type, rows),
            })
            .collect();
        Self { schema: table.arrow(), targets, filled: 0, good: Vec::new(), rows: 0 }
    }

    /// Creates a builder for the key columns of `table`, in key order.
    pub fn for_keys(table: &TableSchema) -> Self {
        let targets = table
            .key_indices()
            .iter()
            .filter_map(|index| table.columns().get(*index))
            .map(|column| TargetColumn {
                name: column.name.clone(),
                nullable: false,
                in_key: true,
                builder: ColumnBuilder::new(&column.data_type, 1),
            })
            .collect();
        Self { schema: table.key_arrow(), targets, filled: 0, good: Vec::new(), rows: 0 }
    }

    /// Number of rows since the last batch, including bad rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Returns the builder of the next column of the current row.
    fn next_column(&mut self) -> Option<&mut ColumnBuilder> {
        self.targets.get_mut(self.filled).map(|target| &mut target.builder)
    }

    /// Returns a problem with the next column of the current row.
    pub fn cell_problem(&self, problem: CellError) -> CellProblem {
        let column = self.targets.get(self.filled).map_or("", |target| target.name.as_str());
        CellProblem { column: column.to_owned(), problem }
    }

    /// Appends a text to the next column.
    pub fn text(&mut self, text: &str) -> Result<(), CellProblem> {
        let appended = match self.next_column() {
            Some(builder) => builder.append_text(text),
            None => return Ok(()),
        };
        appended.map_err(|problem| self.cell_problem(problem))?;
        self.filled += 1;
        Ok(())
    }

    /// Appends an empty CSV cell to the next column. An empty cell is a null; in a text column that is
    /// not null and not in the key, it is the empty text.
    pub fn empty(&mut self) -> Result<(), CellProblem> {
        match self.targets.get(self.filled) {
            Some(target) if !target.nullable && !target.in_key && target.builder.keeps_text() => {
                self.text("")
            }
            _ => self.null(),
        }
    }

    /// Appends a null to the next column.
    pub fn null(&mut self) -> Result<(), CellProblem> {
        let Some(target) = self.targets.get_mut(self.filled) else { return Ok(()) };
        if target.in_key {
            return Err(self.cell_problem(CellError::MissingKey));
        }
        if !target.nullable {
            return Err(self.cell_problem(CellError::Missing));
        }
        target.builder.append_null();
        self.filled += 1;
        Ok(())
    }

    /// Ends the current row, in which every column has a value.
    pub fn end_row(&mut self) {
        self.filled = 0;
        self.rows += 1;
        if !self.good.is_empty() {
            self.good.push(true);
        }
    }

    /// Ends the current row as a bad row, which the next batch leaves out.
    pub fn abandon_row(&mut self) {
        for target in self.targets.iter_mut().skip(self.filled) {
            target.builder.append_null();
        }
        if self.good.is_empty() {
            self.good.resize(self.rows, true);
        }
        self.good.push(false);
        self.filled = 0;
        self.rows += 1;
    }

    /// Returns the good rows since the last batch; `None` if there are none.
    pub fn finish(&mut self) -> Result<Option<RecordBatch>, ArrowError> {
        let mut columns: Vec<ArrayRef> =
            self.targets.iter_mut().map(|target| target.builder.finish()).collect();
        let good = std::mem::take(&mut self.good);
        let rows = std::mem::take(&mut self.rows);
        if !good.is_empty() {
            let good = BooleanArray::from(good);
            for column in &mut columns {
                *column = filter(column, &good)?;
            }
        }
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), columns)?;
        Ok((rows > 0 && batch.num_rows() > 0).then_some(batch))
    }
}

#[cfg(test)]
#[path = "rows_tests.rs"]
mod tests;
