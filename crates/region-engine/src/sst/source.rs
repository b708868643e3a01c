//! A file as a source of a read.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, UInt8Type, UInt64Type};
use futures::StreamExt;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{RowSelection, RowSelector};
use parquet::arrow::async_reader::{ParquetRecordBatchStream, ParquetRecordBatchStreamBuilder};
use tidewater_common::ids::ColumnId;

use super::footer::{FooterCache, damaged, footer};
use super::format::{OP_ID, PAGE_ROWS, SEQUENCE_ID};
use super::reader::{CheckedReader, unwrap_error};
use crate::EngineError;
use crate::file_meta::FileMeta;
use crate::read::ranges::Ranges;
use crate::read::run_source::PIECE_ROWS;
use crate::read::shape::{Carried, Piece, TableShape};
use crate::row_versions::{Numbers, Ops, RowOp, RowVersions, Stamps};
use crate::storage::Storage;

/// What reading a file takes beside the file itself.
#[derive(Debug, Clone)]
pub(crate) struct FileAccess {
    pub(crate) storage: Storage,
    pub(crate) footers: Arc<FooterCache>,
}

/// See the module's head. Opened at the first call of [`FileSource::next`]; decodes only the
/// columns that are needed.
pub(crate) struct FileSource {
    access: FileAccess,
    file: Arc<FileMeta>,
    shape: Arc<TableShape>,
    carried: Carried,
    /// What the read asks for within the file's clip.
    ranges: Ranges,
    /// The rows go through a merge: their keys and sequences are needed.
    merged: bool,
    open: Option<Open>,
    ready: VecDeque<Piece>,
}

struct Open {
    reader: CheckedReader,
    stream: ParquetRecordBatchStream<CheckedReader>,
    /// Field id of each column that the stream yields.
    ids: Vec<ColumnId>,
    /// All rows lie in the ranges.
    covered: bool,
}

impl FileSource {
    pub(crate) fn new(
        access: FileAccess,
        file: Arc<FileMeta>,
        shape: Arc<TableShape>,
        carried: Carried,
        ranges: &Ranges,
    ) -> Self {
        let ranges = ranges.within(&file.clip);
        Self {
            access,
            file,
            shape,
            carried,
            ranges,
            merged: true,
            open: None,
            ready: VecDeque::new(),
        }
    }

    /// Says whether the rows go through a merge; before the first call of [`Self::next`].
    pub(crate) fn set_merged(&mut self, merged: bool) {
        self.merged = merged;
    }

    /// The next rows; `None` at the end. Without a merge they come without keys or sequences.
    pub(crate) async fn next(&mut self) -> Result<Option<Piece>, EngineError> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                return Ok(Some(piece));
            }
            let mut open = match self.open.take() {
                Some(open) => open,
                None => match self.open().await? {
                    Some(open) => open,
                    None => return Ok(None),
                },
            };
            let batch = match open.stream.next().await {
                None => {
                    // Asked again, it must not begin again.
                    self.open = Some(open);
                    return Ok(None);
                }
                Some(Ok(batch)) => batch,
                Some(Err(error)) => return Err(unwrap_error(&open.reader, error)),
            };
            self.split(&open, &batch)?;
            self.open = Some(open);
        }
    }

    async fn open(&mut self) -> Result<Option<Open>, EngineError> {
        let footer = footer(&self.access.storage, &self.access.footers, &self.file).await?;
        let covered = self.ranges.cover(&self.file.min_key, &self.file.max_key);
        let mut leaves: Vec<(usize, ColumnId)> = self
            .wanted(covered)
            .into_iter()
            .filter_map(|id| footer.leaves.get(&id).map(|leaf| (*leaf, id)))
            .collect();
        leaves.sort_unstable();
        leaves.dedup();
        let reader = CheckedReader {
            storage: self.access.storage.clone(),
            file: self.file.clone(),
            footer: footer.clone(),
        };
        let metadata = footer.metadata.clone();
        let mask =
            ProjectionMask::leaves(metadata.parquet_schema(), leaves.iter().map(|(leaf, _)| *leaf));
        let mut builder =
            ParquetRecordBatchStreamBuilder::new_with_metadata(reader.clone(), metadata)
                .with_batch_size(PIECE_ROWS)
                .with_projection(mask);
        if !covered {
            let blocks = self.ranges.blocks(&footer.key_index, &self.file.max_key);
            let (groups, selection) = self.select(&footer, &blocks);
            if groups.is_empty() {
                return Ok(None);
            }
            builder = builder.with_row_groups(groups).with_row_selection(selection);
        }
        let stream = builder.build().map_err(|error| unwrap_error(&reader, error))?;
        let ids = leaves.into_iter().map(|(_, id)| id).collect();
        Ok(Some(Open { reader, stream, ids, covered }))
    }

    fn wanted(&self, covered: bool) -> Vec<ColumnId> {
        let mut ids = self.carried.ids.to_vec();
        if self.merged || !covered {
            ids.extend(self.shape.schema.primary_key());
        }
        if self.merged && self.file.stamp.is_none() {
            ids.push(SEQUENCE_ID);
        }
        if self.file.deletes > 0 {
            ids.push(OP_ID);
        }
        ids
    }

    /// Row groups, and within them the rows, of the blocks of the key index that were chosen.
    fn select(
        &self,
        footer: &super::footer::Footer,
        blocks: &[bool],
    ) -> (Vec<usize>, RowSelection) {
        let mut groups = Vec::new();
        let mut selectors = Vec::new();
        let mut blocks = blocks.iter();
        for (index, group) in footer.metadata.metadata().row_groups().iter().enumerate() {
            let rows = usize::try_from(group.num_rows()).unwrap_or(0);
            let chosen: Vec<bool> =
                blocks.by_ref().take(rows.div_ceil(PAGE_ROWS)).copied().collect();
            if !chosen.contains(&true) {
                continue;
            }
            groups.push(index);
            for (block, chosen) in chosen.into_iter().enumerate() {
                let rows = (rows - block * PAGE_ROWS).min(PAGE_ROWS);
                selectors.push(match chosen {
                    true => RowSelector::select(rows),
                    false => RowSelector::skip(rows),
                });
            }
        }
        (groups, selectors.into())
    }

    /// Makes pieces of a batch: one, or one for each stretch of rows that the ranges admit.
    fn split(&mut self, open: &Open, batch: &RecordBatch) -> Result<(), EngineError> {
        let rows = batch.num_rows();
        if rows == 0 {
            return Ok(());
        }
        if open.ids.len() != batch.num_columns() {
            return Err(self.damage("its columns are not those of its footer".to_owned()));
        }
        let keys = match self.merged || !open.covered {
            true => self.keys(open, batch)?,
            false => Vec::new(),
        };
        let versions = self.versions(open, batch)?;
        if open.covered {
            self.ready.push_back(Piece { rows: versions, keys });
            return Ok(());
        }
        for range in self.ranges.rows(&self.shape.codec, &keys, rows)? {
            let keys = keys.iter().map(|key| key.slice(range.start, range.len())).collect();
            let rows = versions.slice(range.start, range.len());
            self.ready.push_back(Piece { rows, keys });
        }
        Ok(())
    }

    fn keys(&self, open: &Open, batch: &RecordBatch) -> Result<Vec<ArrayRef>, EngineError> {
        let schema = &self.shape.schema;
        schema
            .primary_key()
            .iter()
            .filter_map(|id| schema.column(*id))
            .map(|column| {
                let data_type = column.data_type.arrow();
                match self.column(open, batch, column.id, &data_type)? {
                    Some(array) if array.null_count() == 0 => Ok(array),
                    _ => Err(self.damage(format!("key column {:?} is missing", column.name))),
                }
            })
            .collect()
    }

    fn versions(&self, open: &Open, batch: &RecordBatch) -> Result<RowVersions, EngineError> {
        let rows = batch.num_rows();
        let arrays = self
            .carried
            .ids
            .iter()
            .zip(self.carried.types.iter())
            .map(|(id, data_type)| {
                Ok(self
                    .column(open, batch, *id, data_type)?
                    .unwrap_or_else(|| new_null_array(data_type, rows)))
            })
            .collect::<Result<Vec<_>, EngineError>>()?;
        let sequences = match (self.file.stamp, self.merged) {
            (Some(stamp), _) => Numbers::All(stamp.sequence.get()),
            (None, false) => Numbers::All(0),
            (None, true) => {
                let array = self.column(open, batch, SEQUENCE_ID, &DataType::UInt64)?;
                let array = array.ok_or_else(|| self.damage("it has no sequences".to_owned()))?;
                Numbers::Each(array.as_primitive::<UInt64Type>().clone())
            }
        };
        let ops = match self.file.deletes {
            0 => Ops::All(RowOp::Put),
            _ => {
                let array = self.column(open, batch, OP_ID, &DataType::UInt8)?;
                let array = array.ok_or_else(|| self.damage("it has no operations".to_owned()))?;
                Ops::Each(array.as_primitive::<UInt8Type>().clone())
            }
        };
        let stamps = Stamps { sequences, epochs: Numbers::All(0), ops };
        Ok(RowVersions::new(self.carried.ids.clone(), arrays, rows, stamps))
    }

    /// The column with this field id; `None` where the file was written without it.
    fn column(
        &self,
        open: &Open,
        batch: &RecordBatch,
        id: ColumnId,
        data_type: &DataType,
    ) -> Result<Option<ArrayRef>, EngineError> {
        let Some(index) = open.ids.iter().position(|own| *own == id) else { return Ok(None) };
        let array = batch.column(index);
        if array.data_type() == data_type {
            return Ok(Some(array.clone()));
        }
        cast(array, data_type).map(Some).map_err(|error| {
            self.damage(format!("column {id} has type {}: {error}", array.data_type()))
        })
    }

    fn damage(&self, detail: String) -> EngineError {
        damaged(&self.access.storage, &self.file, detail)
    }
}

impl fmt::Debug for FileSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileSource").field("file", &self.file.file_id).finish_non_exhaustive()
    }
}
