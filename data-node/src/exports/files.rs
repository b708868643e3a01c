//! Writes the changes of a region to Parquet files of an export.
//!
//! A loop reads batches and appends each of them to a file that is free. Other tasks encode the rows while it reads the
//! next batch. The encoding takes longer than the read: a large region is written to two files at a time. A step has a key
//! once at most, and files of a step may therefore have its rows in any order.
//!
//! - `open_file`: a file that is being written. `encodings`: encodings of its columns.

mod encodings;
mod open_file;

use std::collections::BTreeMap;
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::stream::TryStreamExt;
use tidewater_common::ids::RegionId;
use tidewater_common::refusal::Refusal;
use tidewater_common::schema::TableSchema;
use tidewater_region_engine::env::IdSource;
use tidewater_region_engine::region::EpochChanges;
use tidewater_source_kinds::Target;
use tokio::task::JoinSet;

use self::encodings::properties;
use self::open_file::{OpenFile, task_failed};
use super::layout::{StepFile, data_file};

/// Files of a part to which rows are appended at a time.
const FILES_AT_A_TIME: usize = 2;
/// Full files of a part whose last bytes may be sent while rows are appended to others.
const FULL_FILES: usize = 1;

/// Sizes of the files of a part.
#[derive(Debug, Clone, Copy)]
pub(super) struct FileSizes {
    /// Bytes of a file after which the next one begins.
    pub(super) file_bytes: u64,
    /// Bytes of encoded rows in memory after which a row group ends.
    pub(super) row_group_bytes: usize,
    /// Rows of a part after which two files are written at a time.
    pub(super) single_rows: u64,
}

impl Default for FileSizes {
    fn default() -> Self {
        Self { file_bytes: 256 << 20, row_group_bytes: 16 << 20, single_rows: 1 << 19 }
    }
}

/// Writer of the files of a region in a step.
pub(super) struct PartWriter<'a> {
    pub(super) target: &'a Target,
    /// Source of the ids in the names of files.
    pub(super) ids: &'a dyn IdSource,
    pub(super) step: u64,
    pub(super) region: RegionId,
    /// Columns of the table.
    pub(super) schema: &'a TableSchema,
    /// Counter of the rows that were written.
    pub(super) rows: &'a AtomicU64,
    pub(super) sizes: FileSizes,
}

/// Files of a part. Their tasks are aborted when this is dropped.
#[derive(Default)]
struct PartFiles {
    /// Number of files that were begun.
    begun: usize,
    /// Rows that were read.
    rows: u64,
    /// Files that wait for rows.
    free: Vec<OpenFile>,
    /// Files to which rows are appended. Each task returns its file and the number of the rows.
    appending: JoinSet<Result<(OpenFile, u64), Refusal>>,
    /// Files that get no further rows.
    closing: JoinSet<Result<(usize, StepFile), Refusal>>,
    /// Complete files by their numbers.
    complete: BTreeMap<usize, StepFile>,
}

impl PartFiles {
    /// Begins to complete a file.
    fn close(&mut self, file: OpenFile) {
        let number = file.number;
        self.closing.spawn(async move { file.close().await.map(|file| (number, file)) });
    }

    /// Waits until a file that gets no further rows is complete; returns false if there is none.
    async fn end_closing(&mut self) -> Result<bool, Refusal> {
        let Some(ended) = self.closing.join_next().await else { return Ok(false) };
        let (number, file) = ended.map_err(|error| task_failed(&error))??;
        self.complete.insert(number, file);
        Ok(true)
    }
}

impl PartWriter<'_> {
    /// Writes all changes. Files exist once they are complete. No object names the files of a call that fails.
    ///
    /// # Errors
    /// Those of the read, of [`OpenFile::append`] and of [`OpenFile::close`].
    pub(super) async fn write(&self, changes: EpochChanges) -> Result<Vec<StepFile>, Refusal> {
        let mut files = PartFiles::default();
        match self.write_files(changes, &mut files).await {
            Ok(()) => Ok(files.complete.into_values().collect()),
            Err(problem) => {
                self.discard(files).await;
                Err(problem)
            }
        }
    }

    async fn write_files(
        &self,
        changes: EpochChanges,
        files: &mut PartFiles,
    ) -> Result<(), Refusal> {
        let EpochChanges { schema, mut rows } = changes;
        while let Some(batch) = rows.try_next().await.map_err(|error| Refusal::from(&error))? {
            let file = self.free_file(&schema, &batch, files).await?;
            files.rows += batch.num_rows() as u64;
            files.appending.spawn(file.append(batch, self.sizes.row_group_bytes));
        }
        while self.end_appending(files).await? {}
        for file in mem::take(&mut files.free) {
            files.close(file);
        }
        while files.end_closing().await? {}
        Ok(())
    }

    /// Returns a file for a batch: one that waits for rows, or a new one. Waits while rows are appended to all of them.
    async fn free_file(
        &self,
        schema: &SchemaRef,
        batch: &RecordBatch,
        files: &mut PartFiles,
    ) -> Result<OpenFile, Refusal> {
        let most = if files.rows < self.sizes.single_rows { 1 } else { FILES_AT_A_TIME };
        loop {
            match files.free.pop() {
                Some(file) if file.bytes() < self.sizes.file_bytes => return Ok(file),
                Some(full) => {
                    files.close(full);
                    while files.closing.len() > FULL_FILES {
                        files.end_closing().await?;
                    }
                }
                None if files.appending.len() < most => return self.create(schema, batch, files),
                None => {
                    self.end_appending(files).await?;
                }
            }
        }
    }

    /// Waits until rows are appended to a file; returns false if there is no such file.
    async fn end_appending(&self, files: &mut PartFiles) -> Result<bool, Refusal> {
        let Some(ended) = files.appending.join_next().await else { return Ok(false) };
        let (file, rows) = ended.map_err(|error| task_failed(&error))??;
        files.free.push(file);
        self.rows.fetch_add(rows, Ordering::Relaxed);
        Ok(true)
    }

    /// Begins a file whose first rows are those of a batch.
    fn create(
        &self,
        schema: &SchemaRef,
        first: &RecordBatch,
        files: &mut PartFiles,
    ) -> Result<OpenFile, Refusal> {
        let path = data_file(self.step, self.region, self.ids.random());
        let number = files.begun;
        files.begun += 1;
        OpenFile::create(self.target, path, number, schema, properties(self.schema, first))
    }

    /// Removes the files of a call that has failed: otherwise, each attempt leaves more of them.
    async fn discard(&self, mut files: PartFiles) {
        while !files.appending.is_empty() {
            let _ = self.end_appending(&mut files).await;
        }
        for file in files.free {
            file.abort().await;
        }
        // A file that is being completed may already exist.
        while let Some(ended) = files.closing.join_next().await {
            if let Ok(Ok((number, file))) = ended {
                files.complete.insert(number, file);
            }
        }
        for StepFile { path, .. } in files.complete.into_values() {
            if let Err(problem) = self.target.delete(&path).await {
                tracing::debug!(%problem, %path, "file of a failed attempt not removed");
            }
        }
    }
}

#[cfg(test)]
mod tests;
