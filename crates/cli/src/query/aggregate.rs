//! Aggregates of all rows of a scan, in constant memory: `count`, `sum(distance)`, `max(dep_time)`.
//!
//! NULLs are ignored. An aggregate without values is NULL, a count of them is 0.

mod extreme;
mod sum;

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, UInt64Array};
use arrow::datatypes::{Field, Schema};
use arrow::error::ArrowError;
use tidewater_client::{ClientError, TableInfo};

use self::extreme::Extreme;
use self::sum::{Sum, SumError, SumOverflow};

/// Function of the values of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ColumnFunction {
    /// Number of values that are not NULL.
    Count,
    Sum,
    Min,
    Max,
    Avg,
}

impl fmt::Display for ColumnFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Count => "count",
            Self::Sum => "sum",
            Self::Min => "min",
            Self::Max => "max",
            Self::Avg => "avg",
        })
    }
}

/// One value of the result. Its text is the name of its column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Aggregate {
    /// Number of rows.
    Rows,
    Column {
        function: ColumnFunction,
        column: String,
    },
}

impl fmt::Display for Aggregate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rows => f.write_str("count"),
            Self::Column { function, column } => write!(f, "{function}({column})"),
        }
    }
}

/// Aggregates that cannot be computed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AggregateError {
    #[error(transparent)]
    Column(ClientError),
    #[error(
        "{aggregate}: column `{column}` has the type {data_type}, which has no sum: --sum and --avg \
         take integers, floats and decimals; --min, --max and --count take every type"
    )]
    NotANumber { aggregate: String, column: String, data_type: String },
    #[error("{0}: the sum has more than 38 digits: sum fewer rows, with --where")]
    Overflow(String),
    #[error("cannot compute {aggregate}: {source}")]
    Arrow { aggregate: String, source: ArrowError },
}

/// State of one aggregate.
#[derive(Debug)]
enum Accumulator {
    Rows(u64),
    Count { column: usize, values: u64 },
    Sum { column: usize, sum: Sum },
    Avg { column: usize, sum: Sum },
    Extreme { column: usize, extreme: Extreme },
}

/// Computes aggregates of the rows of a table.
#[derive(Debug)]
pub(crate) struct Aggregation {
    /// Columns that the batches have, in this order.
    columns: Vec<String>,
    accumulators: Vec<(Aggregate, Accumulator)>,
}

impl Aggregation {
    /// Creates the computation for a table.
    ///
    /// # Errors
    /// A column does not exist, or its type has no such aggregate.
    pub(crate) fn new(table: &TableInfo, aggregates: &[Aggregate]) -> Result<Self, AggregateError> {
        let mut columns: Vec<String> = Vec::new();
        let mut accumulators = Vec::new();
        for aggregate in aggregates {
            let accumulator = match aggregate {
                Aggregate::Rows => Accumulator::Rows(0),
                Aggregate::Column { function, column } => {
                    let found =
                        tidewater_client::column(table, column).map_err(AggregateError::Column)?;
                    let position = columns.iter().position(|known| known == column);
                    let position = position.unwrap_or_else(|| {
                        columns.push(column.clone());
                        columns.len() - 1
                    });
                    let data_type = found.data_type.arrow();
                    let sum = || {
                        Sum::of(&data_type).ok_or_else(|| AggregateError::NotANumber {
                            aggregate: aggregate.to_string(),
                            column: column.clone(),
                            data_type: found.data_type.to_string(),
                        })
                    };
                    let extreme = |extreme| Accumulator::Extreme { column: position, extreme };
                    match function {
                        ColumnFunction::Count => Accumulator::Count { column: position, values: 0 },
                        ColumnFunction::Sum => Accumulator::Sum { column: position, sum: sum()? },
                        ColumnFunction::Avg => Accumulator::Avg { column: position, sum: sum()? },
                        ColumnFunction::Min => extreme(Extreme::least(&data_type)),
                        ColumnFunction::Max => extreme(Extreme::greatest(&data_type)),
                    }
                }
            };
            accumulators.push((aggregate.clone(), accumulator));
        }
        Ok(Self { columns, accumulators })
    }

    /// Columns to read, in the order in which [`push`](Self::push) expects them. Empty if only rows are
    /// counted.
    pub(crate) fn columns(&self) -> &[String] {
        &self.columns
    }

    /// Adds rows that have no columns, as a count returns them.
    pub(crate) fn add_row_count(&mut self, counted: u64) {
        for (_, accumulator) in &mut self.accumulators {
            if let Accumulator::Rows(rows) = accumulator {
                *rows += counted;
            }
        }
    }

    /// Adds the rows of a batch.
    pub(crate) fn push(&mut self, batch: &RecordBatch) -> Result<(), AggregateError> {
        self.add_row_count(batch.num_rows() as u64);
        for (aggregate, accumulator) in &mut self.accumulators {
            match accumulator {
                Accumulator::Rows(_) => {}
                Accumulator::Count { column, values } => {
                    let array = batch.column(*column);
                    *values += (array.len() - array.null_count()) as u64;
                }
                Accumulator::Sum { column, sum } | Accumulator::Avg { column, sum } => {
                    sum.add(batch.column(*column))
                        .map_err(|SumOverflow| AggregateError::Overflow(aggregate.to_string()))?;
                }
                Accumulator::Extreme { column, extreme } => {
                    extreme.add(batch.column(*column)).map_err(|source| AggregateError::Arrow {
                        aggregate: aggregate.to_string(),
                        source,
                    })?;
                }
            }
        }
        Ok(())
    }

    /// Returns the result: one row with a column for each aggregate.
    pub(crate) fn result(&self) -> Result<RecordBatch, AggregateError> {
        let mut fields = Vec::new();
        let mut values: Vec<ArrayRef> = Vec::new();
        for (aggregate, accumulator) in &self.accumulators {
            let value: ArrayRef = match accumulator {
                Accumulator::Rows(count) | Accumulator::Count { values: count, .. } => {
                    Arc::new(UInt64Array::from(vec![*count]))
                }
                Accumulator::Sum { sum, .. } => sum.total().map_err(|error| match error {
                    SumError::Overflow => AggregateError::Overflow(aggregate.to_string()),
                    SumError::Arrow(source) => {
                        AggregateError::Arrow { aggregate: aggregate.to_string(), source }
                    }
                })?,
                Accumulator::Avg { sum, .. } => sum.average(),
                Accumulator::Extreme { extreme, .. } => extreme.value(),
            };
            fields.push(Field::new(aggregate.to_string(), value.data_type().clone(), true));
            values.push(value);
        }
        let schema = Arc::new(Schema::new(fields));
        RecordBatch::try_new(schema, values)
            .map_err(|source| AggregateError::Arrow { aggregate: "the result".to_owned(), source })
    }
}

#[cfg(test)]
#[path = "aggregate_tests.rs"]
mod tests;
