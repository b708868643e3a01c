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
use super::decode::{Pace, RowDecoder};
use super::fetch::CheckedReader;
use super::few::{FewRowsReader, is_small};
use super::footer::{Footer, FooterCache, damaged, footer};
use super::format::{EPOCH_ID, OP_ID, PAGE_ROWS, SEQUENCE_ID};
use super::plan::{RowPlan, plan};
use super::statistics::file_admits;
use crate::EngineError;
use crate::cache::{ObjectCache, should_cache};
use crate::env::RegionEnv;
use crate::file_meta::FileMeta;
use crate::read::BATCH_BYTES;
use crate::read::context::ReadContext;
use crate::read::filter::Term;
use crate::read::pushdown::{Pushdown, pushed_terms};
use crate::read::ranges::KeyRanges;
use crate::read::shape::{Carried, Piece, TableShape};
use crate::row_versions::{Numbers, Ops, RowOp, RowVersions, Stamps};
use crate::storage::Storage;

/// The resources needed to read files.
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
    /// Creates the access to files. `scanned`: bytes of all files that the read may open; large
    /// reads do not fill the cache.
    pub(crate) fn new(env: &RegionEnv, scanned: u64) -> Self {
        Self {
            storage: env.storage.clone(),
            footers: env.footers.clone(),
            objects: env.objects.clone(),
            readers: env.readers.clone(),
            scanned,
        }
    }

    /// Returns the footer of a file.
    ///
    /// # Errors
    /// As [`footer`].
    pub(crate) async fn footer(&self, file: &FileMeta) -> Result<Arc<Footer>, EngineError> {
        footer(&self.storage, &self.footers, file).await
    }
}

/// Source that yields the rows of a file. Opened at the first call of [`FileSource::next`]; decodes
/// only the columns that are needed.
pub(crate) struct FileSource {
    access: FileAccess,
    file: Arc<FileMeta>,
    shape: Arc<TableShape>,
    carried: Carried,
    /// The read's ranges within the file's clip.
    ranges: KeyRanges,
    /// True if the rows go through a merge: their keys and sequences are needed.
    merged: bool,
    context: ReadContext,
    pushdown: Pushdown,
    /// True if epochs are needed too.
    epochs: bool,
    open_file: Option<OpenFile>,
    ended: bool,
    ready: VecDeque<Piece>,
}

struct OpenFile {
    rows: RowReader,
    /// Field id of each column that the stream yields.
    ids: Vec<ColumnId>,
    /// True if all rows are in the ranges.
    covered: bool,
}

/// Reader of the rows of a file.
enum RowReader {
    Few(FewRowsReader),
    Many(RowDecoder),
}

impl RowReader {
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
        ranges: &KeyRanges,
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
            open_file: None,
            ended: false,
            ready: VecDeque::new(),
        }
    }

    /// Adds the context of a read: a filter, a bound of epochs, counters.
    pub(crate) fn with_context(mut self, context: ReadContext) -> Self {
        self.context = context;
        self
    }

    /// Sets whether the rows go through a merge; must precede the first call of [`Self::next`].
    pub(crate) fn set_merged(&mut self, merged: bool) {
        self.merged = merged;
    }

    /// Yields the epochs of the rows too; without this all are 0.
    pub(crate) fn with_epochs(mut self) -> Self {
        self.epochs = true;
        self
    }

    /// Sets which terms of the filter may skip rows; must precede the first call of [`Self::next`].
    pub(crate) fn set_pushdown(&mut self, pushdown: Pushdown) {
        self.pushdown = pushdown;
    }

    /// Returns whether the file may hold row versions that the read must not return.
    pub(crate) fn is_bounded(&self) -> bool {
        self.context.as_of.is_some_and(|as_of| self.file.max_epoch() > as_of)
    }

    /// Returns the next rows; `None` at the end. Without a merge they have no keys or sequences.
    pub(crate) async fn next(&mut self) -> Result<Option<Piece>, EngineError> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                return Ok(Some(piece));
            }
            if self.ended {
                return Ok(None);
            }
            let opened = match self.open_file.take() {
                Some(open_file) => Some(open_file),
                None => self.open().await?,
            };
            let Some(mut open_file) = opened else {
                self.ended = true;
                return Ok(None);
            };
            let Some(batch) = open_file.rows.next().await? else {
                // A further call must not start again.
                self.ended = true;
                return Ok(None);
            };
            self.split(&open_file, &batch)?;
            self.open_file = Some(open_file);
        }
    }

    async fn open(&mut self) -> Result<Option<OpenFile>, EngineError> {
        let schema = &self.shape.schema;
        let context = &self.context;
        let terms: Vec<&Term> =
            pushed_terms(&context.filter, self.pushdown, schema.primary_key()).collect();
        if self.is_hidden() || !file_admits(schema, &self.file, terms.iter().copied()) {
            context.counters.files_pruned.add(1);
            context.counters.bytes_pruned.add(self.file.size);
            return Ok(None);
        }
        let footer = self.access.footer(&self.file).await?;
        context.counters.files.add(1);
        let covered = self.ranges.cover(&self.file.min_key, &self.file.max_key);
        let (leaves, ids) = leaves(&footer, self.needed_columns(covered));
        let blocks = (!covered).then(|| self.ranges.blocks(&footer.key_index, &self.file.max_key));
        let mut plan = plan(&footer, schema, blocks.as_deref(), &terms);
        let usage = plan.usage(&footer, &leaves);
        let access = &self.access;
        let reader = CheckedReader {
            storage: access.storage.clone(),
            cache: access.objects.clone(),
            file: self.file.clone(),
            footer: footer.clone(),
            keep: should_cache(usage.bytes, access.scanned, access.objects.capacity()),
        };
        if !covered && plan.rows() <= 2 * PAGE_ROWS {
            plan = self.exact_rows(&reader, &plan).await?;
        }
        plan.usage(&footer, &leaves).count(&context.counters);
        if plan.0.is_empty() {
            return Ok(None);
        }
        let pace = if self.merged { Pace::MERGED } else { Pace::ALONE };
        let rows = self.row_reader(reader, leaves, &plan, pace);
        Ok(Some(OpenFile { rows, ids, covered }))
    }

    fn row_reader(
        &self,
        reader: CheckedReader,
        leaves: Vec<usize>,
        plan: &RowPlan,
        pace: Pace,
    ) -> RowReader {
        if is_small(&reader.footer, &leaves, plan) {
            RowReader::Few(FewRowsReader::new(reader, leaves, plan))
        } else {
            let readers = self.access.readers.clone();
            RowReader::Many(RowDecoder::new(reader, leaves, plan, pace, readers))
        }
    }

    /// Reduces a plan of a few rows to those whose keys are in the ranges, so that the other
    /// columns are decoded for these only.
    async fn exact_rows(
        &self,
        reader: &CheckedReader,
        plan: &RowPlan,
    ) -> Result<RowPlan, EngineError> {
        let (leaves, ids) = leaves(&reader.footer, self.shape.schema.primary_key().to_vec());
        let rows = self.row_reader(reader.clone(), leaves, plan, Pace::ALONE);
        let mut open_file = OpenFile { rows, ids, covered: false };
        let mut kept = Vec::new();
        let mut at = 0;
        while let Some(batch) = open_file.rows.next().await? {
            let keys = self.keys(&open_file, &batch)?;
            let found = self.ranges.rows(&self.shape.codec, &keys, batch.num_rows())?;
            kept.extend(found.into_iter().map(|rows| at + rows.start..at + rows.end));
            at += batch.num_rows();
        }
        Ok(plan.pick(&kept))
    }

    /// Returns whether every row version is too new for the read.
    fn is_hidden(&self) -> bool {
        self.context.as_of.is_some_and(|as_of| self.file.min_epoch() > as_of)
    }

    fn needed_columns(&self, covered: bool) -> Vec<ColumnId> {
        let mut ids = self.carried.ids.to_vec();
        if self.merged || !covered {
            ids.extend(self.shape.schema.primary_key());
        }
        if self.reads_sequences() && self.file.stamp.is_none() {
            ids.push(SEQUENCE_ID);
        }
        if self.file.deletes > 0 {
            ids.push(OP_ID);
        }
        if self.reads_epochs() || self.is_bounded() && self.file.stamp.is_none() {
            ids.push(EPOCH_ID);
        }
        ids
    }

    fn reads_sequences(&self) -> bool {
        self.merged || self.context.filter.needs_sequences(&self.file)
    }

    fn reads_epochs(&self) -> bool {
        self.epochs && self.file.min_epoch() != self.file.max_epoch()
    }

    /// Splits a batch into pieces: one for each range of rows that the ranges of the read contain,
    /// and more where these are too many bytes for one.
    fn split(&mut self, open_file: &OpenFile, batch: &RecordBatch) -> Result<(), EngineError> {
        if open_file.ids.len() != batch.num_columns() {
            return Err(self.damage("its columns differ from its footer".to_owned()));
        }
        let batch = &self.visible(open_file, batch)?;
        let rows = batch.num_rows();
        if rows == 0 {
            return Ok(());
        }
        let keys = if self.merged || !open_file.covered {
            self.keys(open_file, batch)?
        } else {
            Vec::new()
        };
        let versions = self.versions(open_file, batch)?;
        let ranges = if open_file.covered {
            std::iter::once(0..rows).collect()
        } else {
            self.ranges.rows(&self.shape.codec, &keys, rows)?
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

    /// Returns the rows whose epoch is within the read's bound.
    fn visible(
        &self,
        open_file: &OpenFile,
        batch: &RecordBatch,
    ) -> Result<RecordBatch, EngineError> {
        let Some(as_of) = self.context.as_of.filter(|_| self.is_bounded()) else {
            return Ok(batch.clone());
        };
        let epochs = self.column(open_file, batch, EPOCH_ID, &DataType::UInt64)?;
        let epochs = epochs.ok_or_else(|| self.damage("it has no epochs".to_owned()))?;
        let visible = lt_eq(&epochs, &UInt64Array::new_scalar(as_of.get()))?;
        Ok(filter_record_batch(batch, &visible)?)
    }

    fn keys(
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

    fn versions(
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

    fn damage(&self, detail: String) -> EngineError {
        damaged(&self.access.storage, &self.file, detail)
    }
}

/// Returns the leaves of those columns that the file has, in order, with their ids.
fn leaves(footer: &Footer, needed: Vec<ColumnId>) -> (Vec<usize>, Vec<ColumnId>) {
    let mut leaves: Vec<(usize, ColumnId)> = needed
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
