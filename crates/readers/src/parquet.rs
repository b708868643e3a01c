//! Reader of Parquet files. Columns are matched by name and converted without loss.

mod batch_rows;
mod batches;
mod page_header;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{ArrayRef, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Field, Schema};

pub use self::batches::ParquetBatches;
use super::bad_rows::BadRows;
use super::convert::{convert, field_names, is_convertible, nulls};
use super::error::{LoadError, RowError, RowFault, RowPosition};
use super::header::{Positions, match_columns};
use super::input::Input;
use super::row_numbers::RowNumbers;
use super::{ReadOptions, RowSource};
use crate::value::cell_error::CellError;
use crate::value::rows::CellProblem;

/// A Parquet file whose columns match the table.
pub struct ParquetSource {
    input: Input,
    batches: ParquetBatches,
    positions: Positions,
    options: ReadOptions,
    rows_read: u64,
    rows_total: u64,
    read: Arc<AtomicU64>,
    counted: u64,
    /// Numbers of the good rows of the last batch, from 1.
    good_rows: RowNumbers,
}

impl ParquetSource {
    /// Opens `input` and matches its columns with the table.
    pub fn open(
        input: Input,
        options: ReadOptions,
        read: &Arc<AtomicU64>,
    ) -> Result<Self, LoadError> {
        let name = &input.name;
        let batches = ParquetBatches::open(&input, options.batch_rows)?;
        let schema = Arc::clone(batches.schema());
        let positions = match_columns(name, &field_names(schema.fields()), &options.table)?;
        check_types(name, &schema, &positions, &options)?;
        let rows_total = batches.rows();
        if rows_total == 0 {
            return Err(LoadError::Empty { file: name.clone() });
        }
        let read = Arc::clone(read);
        Ok(Self {
            input,
            batches,
            positions,
            options,
            rows_read: 0,
            rows_total,
            read,
            counted: 0,
            good_rows: RowNumbers::default(),
        })
    }

    /// Advances the progress in proportion to the rows, because the file is not read in byte order.
    fn count(&mut self, rows: u64) {
        self.rows_read += rows;
        let share = u128::from(self.input.size) * u128::from(self.rows_read);
        let now = u64::try_from(share / u128::from(self.rows_total.max(1))).unwrap_or(self.counted);
        self.read.fetch_add(now.saturating_sub(self.counted), Ordering::Relaxed);
        self.counted = now.max(self.counted);
    }

    fn take_batch(
        &mut self,
        batch: &RecordBatch,
        bad: &mut BadRows,
    ) -> Result<Option<RecordBatch>, LoadError> {
        let file = self.input.name.clone();
        let failed = |source| LoadError::Batch { file: file.clone(), source };
        let table = Arc::clone(&self.options.table);
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.positions.len());
        let mut first_problems: Vec<Option<CellProblem>> = Vec::new();
        for (column, position) in table.columns().iter().zip(&self.positions) {
            let Some(position) = position else {
                columns.push(nulls(batch, &column.data_type));
                continue;
            };
            let source = batch.column(*position);
            let converted = convert(source, &column.data_type).map_err(failed)?;
            let mut rejected = converted.rejected;
            if !column.nullable && source.null_count() > 0 {
                let in_key = table.primary_key().contains(&column.id);
                let problem = if in_key { CellError::MissingKey } else { CellError::Missing };
                let missing = (0..source.len()).filter(|row| source.is_null(*row));
                rejected.extend(missing.map(|row| (row, problem.clone())));
            }
            for (row, problem) in rejected {
                first_problems.resize(batch.num_rows(), None);
                first_problems[row]
                    .get_or_insert_with(|| CellProblem { column: column.name.clone(), problem });
            }
            columns.push(converted.array);
        }
        let first_row = self.rows_read + 1;
        self.good_rows.clear();
        if first_problems.is_empty() {
            self.good_rows.push_run(first_row, batch.num_rows());
            return RecordBatch::try_new(table.arrow(), columns).map(Some).map_err(failed);
        }
        let good: BooleanArray =
            first_problems.iter().map(|problem| Some(problem.is_none())).collect();
        for (row, problem) in first_problems.into_iter().enumerate() {
            let number = first_row + row as u64;
            let Some(problem) = problem else {
                self.good_rows.push(number);
                continue;
            };
            bad.report(RowError {
                file: self.input.name.clone(),
                position: RowPosition::Row(number),
                fault: RowFault::Cell(problem),
            })?;
        }
        let good_rows = filter_rows(table.arrow(), columns, &good).map_err(failed)?;
        Ok((good_rows.num_rows() > 0).then_some(good_rows))
    }
}

/// Filters the rows under a nullable schema, because bad rows may have nulls in columns that are not
/// null.
fn filter_rows(
    schema: Arc<Schema>,
    columns: Vec<ArrayRef>,
    good: &BooleanArray,
) -> Result<RecordBatch, arrow::error::ArrowError> {
    let fields: Vec<Field> =
        schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
    let nullable = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?;
    RecordBatch::try_new(schema, filter_record_batch(&nullable, good)?.columns().to_vec())
}

fn check_types(
    file: &str,
    schema: &Schema,
    positions: &Positions,
    options: &ReadOptions,
) -> Result<(), LoadError> {
    for (column, position) in options.table.columns().iter().zip(positions) {
        let Some(field) = position.and_then(|position| schema.fields().get(position)) else {
            continue;
        };
        if !is_convertible(field.data_type(), &column.data_type) {
            return Err(LoadError::ColumnType {
                file: file.to_owned(),
                column: column.name.clone(),
                found: field.data_type().to_string(),
                expected: column.data_type.to_string(),
            });
        }
    }
    Ok(())
}

impl RowSource for ParquetSource {
    fn next_batch(&mut self, bad: &mut BadRows) -> Result<Option<RecordBatch>, LoadError> {
        loop {
            let Some(batch) = self.batches.next_batch()? else { return Ok(None) };
            let taken = self.take_batch(&batch, bad)?;
            self.count(batch.num_rows() as u64);
            if taken.is_some() {
                return Ok(taken);
            }
        }
    }

    fn position(&self, row: usize) -> RowPosition {
        RowPosition::Row(self.good_rows.get(row).unwrap_or(0))
    }
}
