//! Batch of row versions: some of a table's columns, addressed by id, and the stamps of each row.
//!
//! The common in-memory form of rows in the engine: a run of the memtable, a chunk read from an SST and
//! the output of a merge are all [`RowVersions`].

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, UInt8Array, UInt64Array};
use arrow::compute::kernels::cmp;
use arrow::compute::{FilterBuilder, not};
use arrow::error::ArrowError;
use tidewater_common::ids::ColumnId;

/// Operation of a row version on its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowOp {
    /// Inserts or replaces the row.
    Put,
    /// Deletes the row; only the key columns are meaningful.
    Delete,
}

impl RowOp {
    /// Value stored in the column `_tw_op`.
    pub const fn code(self) -> u8 {
        match self {
            Self::Put => 0,
            Self::Delete => 1,
        }
    }

    /// Returns the operation of a stored value; `None` for a value that no release has written.
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Put),
            1 => Some(Self::Delete),
            _ => None,
        }
    }
}

/// One number shared by all rows, or one for each row.
#[derive(Debug, Clone)]
pub(crate) enum Numbers {
    All(u64),
    Each(UInt64Array),
}

impl Numbers {
    pub(crate) fn at(&self, row: usize) -> u64 {
        match self {
            Self::All(number) => *number,
            Self::Each(numbers) => numbers.value(row),
        }
    }

    pub(crate) fn slice(&self, offset: usize, rows: usize) -> Self {
        match self {
            Self::All(number) => Self::All(*number),
            Self::Each(numbers) => Self::Each(numbers.slice(offset, rows)),
        }
    }

    pub(crate) fn to_array(&self, rows: usize) -> UInt64Array {
        match self {
            Self::All(number) => UInt64Array::from_value(*number, rows),
            Self::Each(numbers) => numbers.clone(),
        }
    }

    /// Returns the smallest and the greatest number; `None` without rows.
    pub(crate) fn bounds(&self, rows: usize) -> Option<(u64, u64)> {
        match self {
            _ if rows == 0 => None,
            Self::All(number) => Some((*number, *number)),
            Self::Each(numbers) => {
                let values = numbers.values();
                Some((values.iter().copied().min()?, values.iter().copied().max()?))
            }
        }
    }
}

/// One operation shared by all rows, or one for each row as [`RowOp::code`].
#[derive(Debug, Clone)]
pub(crate) enum Ops {
    All(RowOp),
    Each(UInt8Array),
}

impl Ops {
    /// Returns true if the row version at `row` deletes its key.
    pub(crate) fn deletes_at(&self, row: usize) -> bool {
        match self {
            Self::All(op) => *op == RowOp::Delete,
            Self::Each(codes) => codes.value(row) == RowOp::Delete.code(),
        }
    }

    pub(crate) fn slice(&self, offset: usize, rows: usize) -> Self {
        match self {
            Self::All(op) => Self::All(*op),
            Self::Each(codes) => Self::Each(codes.slice(offset, rows)),
        }
    }

    pub(crate) fn to_array(&self, rows: usize) -> UInt8Array {
        match self {
            Self::All(op) => UInt8Array::from_value(op.code(), rows),
            Self::Each(codes) => codes.clone(),
        }
    }

    /// Number of rows that delete their key.
    pub(crate) fn deletes(&self, rows: usize) -> usize {
        match self {
            Self::All(RowOp::Put) => 0,
            Self::All(RowOp::Delete) => rows,
            Self::Each(codes) => {
                codes.values().iter().filter(|code| **code == RowOp::Delete.code()).count()
            }
        }
    }
}

/// Sequence, epoch and operation of each row version.
#[derive(Debug, Clone)]
pub(crate) struct Stamps {
    pub(crate) sequences: Numbers,
    pub(crate) epochs: Numbers,
    pub(crate) ops: Ops,
}

impl Stamps {
    pub(crate) fn slice(&self, offset: usize, rows: usize) -> Self {
        Self {
            sequences: self.sequences.slice(offset, rows),
            epochs: self.epochs.slice(offset, rows),
            ops: self.ops.slice(offset, rows),
        }
    }
}

/// Batch of row versions.
#[derive(Debug, Clone)]
pub(crate) struct RowVersions {
    ids: Arc<[ColumnId]>,
    arrays: Vec<ArrayRef>,
    rows: usize,
    stamps: Stamps,
}

impl RowVersions {
    /// Creates a batch. `arrays` correspond to `ids`; each has `rows` rows.
    pub(crate) fn new(
        ids: Arc<[ColumnId]>,
        arrays: Vec<ArrayRef>,
        rows: usize,
        stamps: Stamps,
    ) -> Self {
        Self { ids, arrays, rows, stamps }
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn ids(&self) -> &Arc<[ColumnId]> {
        &self.ids
    }

    pub(crate) fn arrays(&self) -> &[ArrayRef] {
        &self.arrays
    }

    pub(crate) fn stamps(&self) -> &Stamps {
        &self.stamps
    }

    /// Returns the column with this id; `None` if these rows were written without it.
    pub(crate) fn column(&self, id: ColumnId) -> Option<&ArrayRef> {
        let index = self.ids.iter().position(|column| *column == id)?;
        self.arrays.get(index)
    }

    /// Returns the rows `offset .. offset + rows`, without copying them.
    pub(crate) fn slice(&self, offset: usize, rows: usize) -> Self {
        if offset == 0 && rows == self.rows {
            return self.clone();
        }
        Self {
            ids: self.ids.clone(),
            arrays: self.arrays.iter().map(|array| array.slice(offset, rows)).collect(),
            rows,
            stamps: self.stamps.slice(offset, rows),
        }
    }

    /// Returns the rows for which the mask is true.
    pub(crate) fn filter(&self, mask: &BooleanArray) -> Result<Self, ArrowError> {
        let filter = FilterBuilder::new(mask).optimize().build();
        if filter.count() == self.rows {
            return Ok(self.clone());
        }
        let arrays = self
            .arrays
            .iter()
            .map(|array| filter.filter(array))
            .collect::<Result<Vec<_>, ArrowError>>()?;
        let numbers = |numbers: &Numbers| {
            Ok::<_, ArrowError>(match numbers {
                Numbers::All(number) => Numbers::All(*number),
                Numbers::Each(each) => Numbers::Each(filter.filter(each)?.as_primitive().clone()),
            })
        };
        let stamps = Stamps {
            sequences: numbers(&self.stamps.sequences)?,
            epochs: numbers(&self.stamps.epochs)?,
            ops: match &self.stamps.ops {
                Ops::All(op) => Ops::All(*op),
                Ops::Each(codes) => Ops::Each(filter.filter(codes)?.as_primitive().clone()),
            },
        };
        Ok(Self { ids: self.ids.clone(), arrays, rows: filter.count(), stamps })
    }

    /// Returns the rows that are not deletes.
    pub(crate) fn without_deletes(self) -> Result<Self, ArrowError> {
        match &self.stamps.ops {
            Ops::All(RowOp::Put) => Ok(self),
            Ops::All(RowOp::Delete) => Ok(self.slice(0, 0)),
            Ops::Each(codes) => {
                let deletes = cmp::eq(codes, &UInt8Array::new_scalar(RowOp::Delete.code()))?;
                self.filter(&not(&deletes)?)
            }
        }
    }

    /// Size of the rows in bytes, without the parts of shared buffers that belong to other batches.
    pub(crate) fn bytes(&self) -> usize {
        let stamps = match &self.stamps.sequences {
            Numbers::All(_) => 0,
            Numbers::Each(_) => self.rows * 8,
        };
        let columns: usize = self
            .arrays
            .iter()
            .map(|array| array.to_data().get_slice_memory_size().unwrap_or(0))
            .sum();
        // Fixed overhead of a batch: dominates in a run of a single row.
        columns + stamps + 128 * self.arrays.len()
    }
}
