//! Columns of a decoded batch: keys, versions, and what a read needs of them.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, UInt8Type, UInt64Type};
use tidewater_common::ids::ColumnId;

use super::FileSource;
use super::open::OpenFile;
use crate::EngineError;
use crate::row_versions::{Numbers, Ops, RowOp, RowVersions, Stamps};
use crate::sst::convert::from_stored;
use crate::sst::footer::damaged;
use crate::sst::format::{EPOCH_ID, OP_ID, SEQUENCE_ID};

impl FileSource {
    /// Returns the rows whose epoch is within the bounds of the read.
    pub(super) fn visible(
        &self,
        open_file: &OpenFile,
        batch: &RecordBatch,
    ) -> Result<RecordBatch, EngineError> {
        if !self.is_bounded() {
            return Ok(batch.clone());
        }
        let epochs = self.column(open_file, batch, EPOCH_ID, &DataType::UInt64)?;
        let epochs = epochs.ok_or_else(|| self.damage("it has no epochs".to_owned()))?;
        match self.context.epochs.mask(epochs.as_primitive::<UInt64Type>())? {
            Some(visible) => Ok(filter_record_batch(batch, &visible)?),
            None => Ok(batch.clone()),
        }
    }

    pub(super) fn keys(
        &self,
        open_file: &OpenFile,
        batch: &RecordBatch,
    ) -> Result<Vec<ArrayRef>, EngineError> {
        let schema = &self.shape.schema;
        schema
            .primary_key()
            .iter()
            .filter_map(|id| schema.column(*id))
            .map(|column| {
                let data_type = column.data_type.arrow();
                match self.column(open_file, batch, column.id, &data_type)? {
                    Some(array) if array.null_count() == 0 => Ok(array),
                    _ => Err(self.damage(format!("key column {:?} is missing", column.name))),
                }
            })
            .collect()
    }

    pub(super) fn versions(
        &self,
        open_file: &OpenFile,
        batch: &RecordBatch,
    ) -> Result<RowVersions, EngineError> {
        let rows = batch.num_rows();
        let arrays = self
            .carried
            .ids
            .iter()
            .zip(self.carried.types.iter())
            .enumerate()
            .map(|(index, (id, data_type))| {
                match self.column(open_file, batch, *id, data_type)? {
                    Some(array) => Ok(array),
                    None => self.carried.missing(index, rows),
                }
            })
            .collect::<Result<Vec<_>, EngineError>>()?;
        let sequences = match (self.file.stamp, self.reads_sequences()) {
            (Some(stamp), _) => Numbers::All(stamp.sequence.get()),
            // No mark of expiry distinguishes the rows of the file, so that all have one sequence.
            (None, false) => Numbers::All(self.file.min_sequence().get()),
            (None, true) => {
                let array = self.column(open_file, batch, SEQUENCE_ID, &DataType::UInt64)?;
                let array = array.ok_or_else(|| self.damage("it has no sequences".to_owned()))?;
                Numbers::Each(array.as_primitive::<UInt64Type>().clone())
            }
        };
        let ops = match self.file.deletes {
            0 => Ops::All(RowOp::Put),
            _ => {
                let array = self.column(open_file, batch, OP_ID, &DataType::UInt8)?;
                let array = array.ok_or_else(|| self.damage("it has no operations".to_owned()))?;
                Ops::Each(array.as_primitive::<UInt8Type>().clone())
            }
        };
        let epochs = if self.reads_epochs() {
            let array = self.column(open_file, batch, EPOCH_ID, &DataType::UInt64)?;
            let array = array.ok_or_else(|| self.damage("it has no epochs".to_owned()))?;
            Numbers::Each(array.as_primitive::<UInt64Type>().clone())
        } else if self.epochs {
            Numbers::All(self.file.min_epoch().get())
        } else {
            Numbers::All(0)
        };
        let stamps = Stamps { sequences, epochs, ops };
        Ok(RowVersions::new(self.carried.ids.clone(), arrays, rows, stamps))
    }

    /// Returns the column with this field id; `None` if the file was written without it.
    fn column(
        &self,
        open_file: &OpenFile,
        batch: &RecordBatch,
        id: ColumnId,
        data_type: &DataType,
    ) -> Result<Option<ArrayRef>, EngineError> {
        let Some(index) = open_file.ids.iter().position(|own| *own == id) else { return Ok(None) };
        let array = batch.column(index);
        from_stored(array, data_type).map(Some).map_err(|error| {
            self.damage(format!("column {id} has type {}: {error}", array.data_type()))
        })
    }

    pub(super) fn damage(&self, detail: String) -> EngineError {
        damaged(&self.access.storage, &self.file, detail)
    }
}
