//! Writes the changes of a region to Parquet files of an export.

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
use tidewater_region_engine::region::EpochChanges;
use tidewater_region_engine::sst::with_column_encodings;
use tidewater_source_kinds::{ObjectWriter, Target, TargetError};
use uuid::Uuid;

use super::layout::{StepFile, data_file};
use super::target_error;

/// Bytes of a file after which the next one begins.
const FILE_BYTES: u64 = 256 << 20;
/// Bytes of encoded rows that are in memory at most, and rows of a row group.
const ROW_GROUP_BYTES: usize = 16 << 20;
const ROW_GROUP_ROWS: usize = 1 << 20;

/// Writer of the files of a region in a step.
pub(super) struct PartWriter<'a> {
    pub(super) target: &'a Target,
    pub(super) step: u64,
    pub(super) region: RegionId,
    /// Columns of the table.
    pub(super) schema: &'a TableSchema,
    /// Counter of the rows that were written.
    pub(super) rows: &'a AtomicU64,
}

/// File that is being written.
struct OpenFile {
    path: String,
    writer: AsyncArrowWriter<ObjectWriter>,
    rows: u64,
}

impl PartWriter<'_> {
    /// Writes all changes. Files exist once they are complete; those of a call that fails are named by no object.
    ///
    /// # Errors
    /// Those of the read, and [`Reason::ExportTargetUnavailable`].
    pub(super) async fn write(&self, changes: EpochChanges) -> Result<Vec<StepFile>, Refusal> {
        let mut open = None;
        let written = self.write_files(changes, &mut open).await;
        if let (Err(_), Some(OpenFile { writer, .. })) = (&written, open) {
            // Otherwise, stores keep the parts that were sent.
            let _ = writer.into_inner().abort().await;
        }
        written
    }

    async fn write_files(
        &self,
        changes: EpochChanges,
        open: &mut Option<OpenFile>,
    ) -> Result<Vec<StepFile>, Refusal> {
        let EpochChanges { schema, mut rows } = changes;
        let mut files = Vec::new();
        while let Some(batch) = rows.try_next().await.map_err(|error| Refusal::from(&error))? {
            let file = match open {
                Some(file) => file,
                None => open.insert(self.create(&schema)?),
            };
            self.append(file, &batch).await?;
            if file.writer.bytes_written() as u64 >= FILE_BYTES
                && let Some(file) = open.take()
            {
                files.push(self.close(file).await?);
            }
        }
        if let Some(file) = open.take() {
            files.push(self.close(file).await?);
        }
        Ok(files)
    }

    fn create(&self, schema: &SchemaRef) -> Result<OpenFile, Refusal> {
        let path = data_file(self.step, self.region, Uuid::new_v4());
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
        if file.writer.in_progress_size() >= ROW_GROUP_BYTES {
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
        Ok(StepFile { path, rows, bytes })
    }

    fn failed(&self, path: &str, error: &ParquetError) -> Refusal {
        if let Some(error) = TargetError::find_in(error) {
            return target_error(error.clone());
        }
        let text = format!("{}/{path} cannot be written: {error}", self.target.url());
        Refusal::new(Reason::ExportTargetUnavailable, text)
    }
}
