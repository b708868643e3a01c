//! A file as a source of a read.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt64Array};
use arrow::compute::filter_record_batch;
use arrow::compute::kernels::cmp::lt_eq;
use arrow::datatypes::{DataType, UInt8Type, UInt64Type};
use tidewater_common::ids::ColumnId;
use tidewater_common::rows::rows_within;
use tokio::sync::Semaphore;

use super::convert::from_stored;
use super::decode::{Decoder, Pace};
use super::fetch::CheckedReader;
use super::few::{Few, are_few};
use super::footer::{Footer, FooterCache, damaged, footer};
use super::format::{EPOCH_ID, OP_ID, PAGE_ROWS, SEQUENCE_ID};
use super::plan::{RowPlan, plan};
use super::statistics::file_admits;
use crate::EngineError;
use crate::cache::{ObjectCache, worth_keeping};
use crate::env::RegionEnv;
use crate::file_meta::FileMeta;
use crate::read::BATCH_BYTES;
use crate::read::context::ReadContext;
use crate::read::filter::Term;
use crate::read::pushdown::{Pushdown, pushed};
use crate::read::ranges::Ranges;
use crate::read::shape::{Carried, Piece, TableShape};
use crate::row_versions::{Numbers, Ops, RowOp, RowVersions, Stamps};
use crate::storage::Storage;

/// What reading a file takes beside the file itself.
#[derive(Debug, Clone)]
pub(crate) struct FileAccess {
    storage: Storage,
    footers: Arc<FooterCache>,
    objects: Arc<ObjectCache>,
    readers: Arc<Semaphore>,
    /// Bytes of all files that the read may open.
    scanned: u64,
}

impl FileAccess {
    /// `scanned`: bytes of all files that the read may open; large reads do not fill the cache.
    pub(crate) fn new(env: &RegionEnv, scanned: u64) -> Self {
        Self {
            storage: env.storage.clone(),
            footers: env.footers.clone(),
            objects: env.objects.clone(),
            readers: env.readers.clone(),
            scanned,
        }
    }
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
    context: ReadContext,
    pushdown: Pushdown,
    /// Epochs are wanted too.
    epochs: bool,
    open: Option<Open>,
    ended: bool,
    ready: VecDeque<Piece>,
}

struct Open {
    rows: Rows,
    /// Field id of each column that the stream yields.
    ids: Vec<ColumnId>,
    /// All rows lie in the ranges.
    covered: bool,
}

/// How the rows of a file come.
enum Rows {
    Few(Few),
    Many(Decoder),
}

impl Rows {
    async fn next(&mut self) -> Result<Option<RecordBatch>, EngineError> {
        match self {
            Self::Few(few) => few.next().await,
            Self::Many(decoder) => decoder.next().await,
        }
    }
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
            context: ReadContext::default(),
            pushdown: Pushdown::Keys,
            epochs: false,
            open: None,
            ended: false,
            ready: VecDeque::new(),
        }
    }

    /// As part of a read with a filter, a bound or counters.
    pub(crate) fn within(mut self, context: ReadContext) -> Self {
        self.context = context;
        self
    }

    /// Says whether the rows go through a merge; before the first call of [`Self::next`].
    pub(crate) fn set_merged(&mut self, merged: bool) {
        self.merged = merged;
    }

    /// The epochs of the rows are wanted too; without this all are 0.
    pub(crate) fn with_epochs(mut self) -> Self {
        self.epochs = true;
        self
    }

    /// Says which terms of the filter may leave rows out; before the first call of [`Self::next`].
    pub(crate) fn set_pushdown(&mut self, pushdown: Pushdown) {
        self.pushdown = pushdown;
    }

    /// Whether the file may hold row versions that the read must not see.
    pub(crate) fn bounded(&self) -> bool {
        self.context.as_of.is_some_and(|as_of| self.file.max_epoch() > as_of)
    }

    /// The next rows; `None` at the end. Without a merge they come without keys or sequences.
    pub(crate) async fn next(&mut self) -> Result<Option<Piece>, EngineError> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                return Ok(Some(piece));
            }
            if self.ended {
                return Ok(None);
            }
            let opened = match self.open.take() {
                Some(open) => Some(open),
                None => self.open().await?,
            };
            let Some(mut open) = opened else {
                self.ended = true;
                return Ok(None);
            };
            let Some(batch) = open.rows.next().await? else {
                // Asked again, it must not begin again.
                self.ended = true;
                return Ok(None);
            };
            self.split(&open, &batch)?;
            self.open = Some(open);
        }
    }

    async fn open(&mut self) -> Result<Option<Open>, EngineError> {
        let schema = &self.shape.schema;
        let context = &self.context;
        let terms: Vec<&Term> =
            pushed(&context.filter, self.pushdown, schema.primary_key()).collect();
        if self.hidden() || !file_admits(schema, &self.file, terms.iter().copied()) {
            context.counters.files_pruned.add(1);
            context.counters.bytes_pruned.add(self.file.size);
            return Ok(None);
        }
        let footer = footer(&self.access.storage, &self.access.footers, &self.file).await?;
        context.counters.files.add(1);
        let covered = self.ranges.cover(&self.file.min_key, &self.file.max_key);
        let (leaves, ids) = leaves(&footer, self.wanted(covered));
        let blocks = (!covered).then(|| self.ranges.blocks(&footer.key_index, &self.file.max_key));
        let mut plan = plan(&footer, schema, blocks.as_deref(), &terms);
        let usage = plan.usage(&footer, &leaves);
        let access = &self.access;
        let reader = CheckedReader {
            storage: access.storage.clone(),
            cache: access.objects.clone(),
            file: self.file.clone(),
            footer: footer.clone(),
            keep: worth_keeping(usage.bytes, access.scanned, access.objects.capacity()),
        };
        if !covered && plan.rows() <= 2 * PAGE_ROWS {
            plan = self.exact_rows(&reader, &plan).await?;
        }
        plan.usage(&footer, &leaves).count(&context.counters);
        if plan.0.is_empty() {
            return Ok(None);
        }
        let pace = if self.merged { Pace::MERGED } else { Pace::ALONE };
        let rows = self.rows(reader, leaves, &plan, pace);
        Ok(Some(Open { rows, ids, covered }))
    }

    fn rows(&self, reader: CheckedReader, leaves: Vec<usize>, plan: &RowPlan, pace: Pace) -> Rows {
        match are_few(&reader.footer, &leaves, plan) {
            true => Rows::Few(Few::new(reader, leaves, plan)),
            false => {
                let readers = self.access.readers.clone();
                Rows::Many(Decoder::new(reader, leaves, plan, pace, readers))
            }
        }
    }

    /// Of a few planned rows, those whose keys lie in the ranges: the other columns need not be
    /// decoded for more.
    async fn exact_rows(
        &self,
        reader: &CheckedReader,
        plan: &RowPlan,
    ) -> Result<RowPlan, EngineError> {
        let (leaves, ids) = leaves(&reader.footer, self.shape.schema.primary_key().to_vec());
        let rows = self.rows(reader.clone(), leaves, plan, Pace::ALONE);
        let mut open = Open { rows, ids, covered: false };
        let (mut kept, mut at) = (Vec::new(), 0);
        while let Some(batch) = open.rows.next().await? {
            let keys = self.keys(&open, &batch)?;
            let found = self.ranges.rows(&self.shape.codec, &keys, batch.num_rows())?;
            kept.extend(found.into_iter().map(|rows| at + rows.start..at + rows.end));
            at += batch.num_rows();
        }
        Ok(plan.pick(&kept))
    }

    /// Whether every row version is newer than what the read may see.
    fn hidden(&self) -> bool {
        self.context.as_of.is_some_and(|as_of| self.file.min_epoch() > as_of)
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
        if self.reads_epochs() || self.bounded() && self.file.stamp.is_none() {
            ids.push(EPOCH_ID);
        }
        ids
    }

    fn reads_epochs(&self) -> bool {
        self.epochs && self.file.min_epoch() != self.file.max_epoch()
    }

    /// Makes pieces of a batch: one, or one for each stretch of rows that the ranges admit; more
    /// where these are too many bytes for one.
    fn split(&mut self, open: &Open, batch: &RecordBatch) -> Result<(), EngineError> {
        if open.ids.len() != batch.num_columns() {
            return Err(self.damage("its columns are not those of its footer".to_owned()));
        }
        let batch = &self.visible(open, batch)?;
        let rows = batch.num_rows();
        if rows == 0 {
            return Ok(());
        }
        let keys = match self.merged || !open.covered {
            true => self.keys(open, batch)?,
            false => Vec::new(),
        };
        let versions = self.versions(open, batch)?;
        let ranges = match open.covered {
            true => std::iter::once(0..rows).collect(),
            false => self.ranges.rows(&self.shape.codec, &keys, rows)?,
        };
        for mut range in ranges {
            while !range.is_empty() {
                let count = rows_within(versions.arrays(), range.clone(), BATCH_BYTES);
                let keys = keys.iter().map(|key| key.slice(range.start, count)).collect();
                let rows = versions.slice(range.start, count);
                self.ready.push_back(Piece { rows, keys });
                range.start += count;
            }
        }
        Ok(())
    }

    /// The rows that are not newer than the read's bound.
    fn visible(&self, open: &Open, batch: &RecordBatch) -> Result<RecordBatch, EngineError> {
        let Some(as_of) = self.context.as_of.filter(|_| self.bounded()) else {
            return Ok(batch.clone());
        };
        let epochs = self.column(open, batch, EPOCH_ID, &DataType::UInt64)?;
        let epochs = epochs.ok_or_else(|| self.damage("it has no epochs".to_owned()))?;
        let seen = lt_eq(&epochs, &UInt64Array::new_scalar(as_of.get()))?;
        Ok(filter_record_batch(batch, &seen)?)
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
            .enumerate()
            .map(|(index, (id, data_type))| match self.column(open, batch, *id, data_type)? {
                Some(array) => Ok(array),
                None => self.carried.missing(index, rows),
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
        let epochs = match self.reads_epochs() {
            false if self.epochs => Numbers::All(self.file.min_epoch().get()),
            false => Numbers::All(0),
            true => {
                let array = self.column(open, batch, EPOCH_ID, &DataType::UInt64)?;
                let array = array.ok_or_else(|| self.damage("it has no epochs".to_owned()))?;
                Numbers::Each(array.as_primitive::<UInt64Type>().clone())
            }
        };
        let stamps = Stamps { sequences, epochs, ops };
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
        from_stored(array, data_type).map(Some).map_err(|error| {
            self.damage(format!("column {id} has type {}: {error}", array.data_type()))
        })
    }

    fn damage(&self, detail: String) -> EngineError {
        damaged(&self.access.storage, &self.file, detail)
    }
}

/// Leaves of the columns that the file has, in order, with their ids.
fn leaves(footer: &Footer, wanted: Vec<ColumnId>) -> (Vec<usize>, Vec<ColumnId>) {
    let mut leaves: Vec<(usize, ColumnId)> = wanted
        .into_iter()
        .filter_map(|id| footer.leaves.get(&id).map(|leaf| (*leaf, id)))
        .collect();
    leaves.sort_unstable();
    leaves.dedup();
    leaves.into_iter().unzip()
}

impl fmt::Debug for FileSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileSource").field("file", &self.file.file_id).finish_non_exhaustive()
    }
}
