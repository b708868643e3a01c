//! Writes the changes of a region to Parquet files of an export.
//!
//! The encoding takes several times as long as the read, so that a large region is written to two files at a time. A step has
//! a key once at most, and files of a step may therefore have its rows in any order.

use std::error::Error;
use std::io;
use std::iter::successors;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::stream::{BoxStream, TryStreamExt};
use parquet::arrow::AsyncArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use tidewater_common::ids::RegionId;
use tidewater_common::refusal::Refusal;
use tidewater_common::schema::TableSchema;
use tidewater_proto::v1::Reason;
use tidewater_region_engine::EngineError;
use tidewater_region_engine::env::IdSource;
use tidewater_region_engine::region::EpochChanges;
use tidewater_region_engine::sst::with_column_encodings;
use tidewater_source_kinds::{ObjectWriter, Target, TargetError};
use tokio::runtime::Handle;
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;

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

/// File that is being written.
struct OpenFile {
    path: String,
    writer: AsyncArrowWriter<ObjectWriter>,
    rows: u64,
}

/// Files that are written one after the other.
#[derive(Default)]
struct FileSequence {
    open: Option<OpenFile>,
    complete: Vec<StepFile>,
    /// Rows of all of them.
    rows: u64,
}

/// Rows of a part, from which several sequences take batches.
struct SharedRows {
    batches: Mutex<BoxStream<'static, Result<RecordBatch, EngineError>>>,
    /// A sequence has failed: the others end.
    is_failed: AtomicBool,
}

impl SharedRows {
    /// Returns the next batch; `None`: there is none, or another sequence has failed.
    async fn next(&self) -> Result<Option<RecordBatch>, Refusal> {
        let mut batches = self.batches.lock().await;
        if self.is_failed.load(Ordering::Relaxed) {
            return Ok(None);
        }
        batches.try_next().await.map_err(|error| Refusal::from(&error))
    }
}

impl PartWriter<'_> {
    /// Writes all changes. Files exist once they are complete. No object names the files of a call that fails.
    ///
    /// # Errors
    /// Those of the read and of [`target_error`]; [`Reason::Internal`]: rows cannot be encoded.
    pub(super) async fn write(&self, changes: EpochChanges) -> Result<Vec<StepFile>, Refusal> {
        let EpochChanges { schema, rows } = changes;
        let rows = SharedRows { batches: Mutex::new(rows), is_failed: AtomicBool::new(false) };
        let mut sequences = [FileSequence::default(), FileSequence::default()];
        let [first, second] = &mut sequences;
        let single = self.write_files(&schema, &rows, first, self.sizes.single_rows).await;
        let written = match single {
            Ok(()) => {
                let (first, second) = tokio::join!(
                    self.write_files(&schema, &rows, first, u64::MAX),
                    self.write_files(&schema, &rows, second, u64::MAX),
                );
                first.and(second)
            }
            failed => failed,
        };
        let mut closed = written;
        for sequence in &mut sequences {
            if closed.is_ok()
                && let Some(file) = sequence.open.take()
            {
                closed = self.close(file).await.map(|file| sequence.complete.push(file));
            }
        }
        if closed.is_ok() {
            return Ok(sequences.into_iter().flat_map(|sequence| sequence.complete).collect());
        }
        for sequence in sequences {
            self.discard(sequence).await;
        }
        closed.map(|()| Vec::new())
    }

    /// Writes rows until the sequence has this number of them, or none is left. The last file remains open.
    async fn write_files(
        &self,
        schema: &SchemaRef,
        rows: &SharedRows,
        sequence: &mut FileSequence,
        until_rows: u64,
    ) -> Result<(), Refusal> {
        let written = async {
            while sequence.rows < until_rows
                && let Some(batch) = rows.next().await?
            {
                let file = match sequence.open.take() {
                    Some(file) => file,
                    None => self.create(schema)?,
                };
                let of_batch = batch.num_rows() as u64;
                let (file, appended) = append(file, batch, self.sizes.row_group_bytes).await?;
                let is_full = file.writer.bytes_written() as u64 >= self.sizes.file_bytes;
                let path = file.path.clone();
                sequence.open = Some(file);
                appended.map_err(|error| self.failed(&path, &error))?;
                sequence.rows += of_batch;
                self.rows.fetch_add(of_batch, Ordering::Relaxed);
                if is_full && let Some(file) = sequence.open.take() {
                    sequence.complete.push(self.close(file).await?);
                }
            }
            Ok(())
        };
        let written: Result<(), Refusal> = written.await;
        written.inspect_err(|_| rows.is_failed.store(true, Ordering::Relaxed))
    }

    /// Removes the files of a call that has failed: otherwise, each attempt leaves more of them.
    async fn discard(&self, sequence: FileSequence) {
        if let Some(OpenFile { writer, .. }) = sequence.open {
            let _ = writer.into_inner().abort().await;
        }
        for StepFile { path, .. } in sequence.complete {
            if let Err(problem) = self.target.delete(&path).await {
                tracing::debug!(%problem, %path, "file of a failed attempt not removed");
            }
        }
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

/// Encodes a batch on a thread for blocking work, so that others are read and encoded meanwhile.
///
/// # Errors
/// [`Reason::Internal`]: the encoding has panicked. That of the encoding, or of the target, is beside the file.
async fn append(
    mut file: OpenFile,
    batch: RecordBatch,
    row_group_bytes: usize,
) -> Result<(OpenFile, Result<(), ParquetError>), Refusal> {
    let runtime = Handle::current();
    let encoded = spawn_blocking(move || {
        let appended = runtime.block_on(async {
            file.writer.write(&batch).await?;
            if file.writer.in_progress_size() >= row_group_bytes {
                file.writer.flush().await?;
            }
            Ok(())
        });
        file.rows += batch.num_rows() as u64;
        (file, appended)
    });
    encoded.await.map_err(|error| {
        Refusal::new(Reason::Internal, format!("rows of an export cannot be encoded: {error}"))
    })
}

/// Returns whether an error of the operating system or of a writer is among the causes of an error.
fn is_io_error(error: &(dyn Error + 'static)) -> bool {
    successors(Some(error), |&error| error.source()).any(|cause| cause.is::<io::Error>())
}

#[cfg(test)]
mod tests;
