//! A file as a source of a read.

mod columns;
pub(crate) mod memory;
mod open;

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use tidewater_common::rows::rows_within;
use tokio::sync::Semaphore;

use self::open::OpenFile;
use super::footer::{Footer, FooterCache, footer};
use crate::EngineError;
use crate::cache::ObjectCache;
use crate::env::RegionEnv;
use crate::file_meta::FileMeta;
use crate::read::BATCH_BYTES;
use crate::read::context::ReadContext;
use crate::read::pushdown::Pushdown;
use crate::read::ranges::KeyRanges;
use crate::read::shape::{Carried, Piece, TableShape};
use crate::read::source::SourceMemory;
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
    memory: SourceMemory,
    open_file: Option<OpenFile>,
    ended: bool,
    ready: VecDeque<Piece>,
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
            memory: SourceMemory::default(),
            open_file: None,
            ended: false,
            ready: VecDeque::new(),
        }
    }

    /// Adds the context of a read: a filter, bounds of epochs, counters.
    pub(crate) fn with_context(mut self, context: ReadContext) -> Self {
        self.epochs |= context.yields_epochs;
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

    /// Limits the memory of the source; must precede the first call of [`Self::next`].
    pub(crate) fn set_memory(&mut self, memory: SourceMemory) {
        self.memory = memory;
    }

    /// Returns the number of rows if it is known without opening the file: all are shown, and each is
    /// a row of the result.
    pub(crate) fn rows_left(&self) -> Option<u64> {
        let unread = self.open_file.is_none() && !self.ended && self.ready.is_empty();
        let all = self.ranges.cover(&self.file.min_key, &self.file.max_key)
            && self.context.filter.is_empty()
            && !self.is_bounded();
        (unread && all && self.file.deletes == 0).then_some(self.file.rows)
    }

    /// Returns whether the file may hold row versions that the read must not return.
    pub(crate) fn is_bounded(&self) -> bool {
        self.context.epochs.cut(self.file.min_epoch(), self.file.max_epoch())
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

    /// Returns whether every row version is too new or too old for the read.
    fn is_hidden(&self) -> bool {
        self.context.epochs.exclude(self.file.min_epoch(), self.file.max_epoch())
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
}

impl fmt::Debug for FileSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileSource").field("file", &self.file.file_id).finish_non_exhaustive()
    }
}
