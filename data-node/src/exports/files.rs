//! Writes the changes of a region to Parquet files of an export.

use std::error::Error;
use std::io;
use std::iter::successors;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::TryStreamExt;
use parquet::arrow::AsyncArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use tidewater_common::ids::RegionId;
use tidewater_common::refusal::Refusal;
use tidewater_common::schema::TableSchema;
use tidewater_proto::v1::Reason;
use tidewater_region_engine::env::IdSource;
use tidewater_region_engine::region::EpochChanges;
use tidewater_region_engine::sst::with_column_encodings;
use tidewater_source_kinds::{ObjectWriter, Target, TargetError};

use super::layout::{StepFile, data_file};
use super::open_target::target_error;
use crate::meters;

/// Maximum number of rows of a row group.
const ROW_GROUP_ROWS: usize = 1 << 20;

/// Sizes of the files of a part.
#[derive(Debug, Clone, Copy)]
pub(super) struct FileSizes {
    /// Bytes of a file after which the next one begins.
    pub(super) file_bytes: u64,
    /// Bytes of encoded rows in memory after which a row group ends.
    pub(super) row_group_bytes: usize,
}

impl Default for FileSizes {
    fn default() -> Self {
        Self { file_bytes: 256 << 20, row_group_bytes: 16 << 20 }
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

/// File that is being written.
struct OpenFile {
    path: String,
    writer: AsyncArrowWriter<ObjectWriter>,
    rows: u64,
}

impl PartWriter<'_> {
    /// Writes all changes. Files exist once they are complete. No object names the files of a call that fails.
    ///
    /// # Errors
    /// Those of the read and of [`target_error`]; [`Reason::Internal`]: rows cannot be encoded.
    pub(super) async fn write(&self, changes: EpochChanges) -> Result<Vec<StepFile>, Refusal> {
        let (mut open, mut files) = (None, Vec::new());
        let written = self.write_files(changes, &mut open, &mut files).await;
        if written.is_ok() {
            return Ok(files);
        }
        // Otherwise, each attempt leaves more of them.
        if let Some(OpenFile { writer, .. }) = open {
            let _ = writer.into_inner().abort().await;
        }
        for StepFile { path, .. } in files {
            if let Err(problem) = self.target.delete(&path).await {
                tracing::debug!(%problem, %path, "file of a failed attempt not removed");
            }
        }
        written.map(|()| Vec::new())
    }

    async fn write_files(
        &self,
        changes: EpochChanges,
        open: &mut Option<OpenFile>,
        files: &mut Vec<StepFile>,
    ) -> Result<(), Refusal> {
        let EpochChanges { schema, mut rows } = changes;
        while let Some(batch) = rows.try_next().await.map_err(|error| Refusal::from(&error))? {
            let file = match open {
                Some(file) => file,
                None => open.insert(self.create(&schema)?),
            };
            self.append(file, &batch).await?;
            if file.writer.bytes_written() as u64 >= self.sizes.file_bytes
                && let Some(file) = open.take()
            {
                files.push(self.close(file).await?);
            }
        }
        if let Some(file) = open.take() {
            files.push(self.close(file).await?);
        }
        Ok(())
    }

    fn create(&self, schema: &SchemaRef) -> Result<OpenFile, Refusal> {
        let path = data_file(self.step, self.region, self.ids.random());
        let object = self.target.writer(&path).map_err(target_error)?;
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_max_row_group_row_count(Some(ROW_GROUP_ROWS));
        let properties = with_column_encodings(properties, self.schema).build();
        let writer = AsyncArrowWriter::try_new(object, schema.clone(), Some(properties));
        let writer = writer.map_err(|error| self.failed(&path, &error))?;
        Ok(OpenFile { path, writer, rows: 0 })
    }

    async fn append(&self, file: &mut OpenFile, batch: &RecordBatch) -> Result<(), Refusal> {
        let written = file.writer.write(batch).await;
        written.map_err(|error| self.failed(&file.path, &error))?;
        if file.writer.in_progress_size() >= self.sizes.row_group_bytes {
            let flushed = file.writer.flush().await;
            flushed.map_err(|error| self.failed(&file.path, &error))?;
        }
        let rows = batch.num_rows() as u64;
        file.rows += rows;
        self.rows.fetch_add(rows, Ordering::Relaxed);
        Ok(())
    }

    async fn close(&self, file: OpenFile) -> Result<StepFile, Refusal> {
        let OpenFile { path, mut writer, rows } = file;
        let finished = writer.finish().await;
        finished.map_err(|error| self.failed(&path, &error))?;
        let bytes = writer.bytes_written() as u64;
        meters::record_export_file(rows, bytes);
        Ok(StepFile { path, rows, bytes })
    }

    /// Returns the RPC error of a file that cannot be written: that of the target, or of the encoding.
    fn failed(&self, path: &str, error: &ParquetError) -> Refusal {
        if let Some(error) = TargetError::find_in(error) {
            return target_error(error.clone());
        }
        let reason =
            if is_io_error(error) { Reason::ExportTargetUnavailable } else { Reason::Internal };
        let text = format!("{}/{path} cannot be written: {error}", self.target.url());
        Refusal::new(reason, text)
    }
}

/// Returns whether an error of the operating system or of a writer is among the causes of an error.
fn is_io_error(error: &(dyn Error + 'static)) -> bool {
    successors(Some(error), |&error| error.source()).any(|cause| cause.is::<io::Error>())
}

#[cfg(test)]
mod tests;
