//! A file that is being written.

use std::error::Error;
use std::mem;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use parquet::arrow::ArrowWriter;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::Reason;
use tidewater_source_kinds::{ObjectWriter, Target, TargetError};
use tokio::io::AsyncWriteExt;
use tokio::task::{JoinError, spawn_blocking};

use crate::exports::layout::StepFile;
use crate::exports::open_target::target_error;
use crate::meters;

/// Encoder of a file. Its vector has the bytes of complete row groups that are not sent yet.
type Encoder = ArrowWriter<Vec<u8>>;

/// File that is being written. It exists when it is closed; a file that is dropped before is aborted in the background.
///
/// Rows are encoded on threads for blocking work, and bytes are sent by the task that awaits them: a task that is aborted
/// sends nothing further.
pub(super) struct OpenFile {
    /// Number of the file in its part, in the order of the first rows.
    pub(super) number: usize,
    target: Target,
    path: String,
    encoder: Encoder,
    object: ObjectWriter,
    rows: u64,
}

impl OpenFile {
    /// Begins a file. Sends nothing.
    ///
    /// # Errors
    /// Those of [`target_error`]; [`Reason::Internal`]: the columns cannot be encoded.
    pub(super) fn create(
        target: &Target,
        path: String,
        number: usize,
        schema: &SchemaRef,
        properties: WriterProperties,
    ) -> Result<Self, Refusal> {
        let object = target.writer(&path).map_err(target_error)?;
        let encoder = Encoder::try_new(Vec::new(), schema.clone(), Some(properties));
        let encoder = encoder.map_err(|error| not_encoded(target, &path, &error))?;
        Ok(Self { number, target: target.clone(), path, encoder, object, rows: 0 })
    }

    /// Bytes of the row groups that are complete.
    pub(super) fn bytes(&self) -> u64 {
        self.encoder.bytes_written() as u64
    }

    /// Appends rows, and sends the row group if it has at least this number of encoded bytes. Returns the file and the
    /// number of the rows. Aborts the file after an error.
    ///
    /// # Errors
    /// Those of [`target_error`]; [`Reason::Internal`]: the rows cannot be encoded.
    pub(super) async fn append(
        self,
        batch: RecordBatch,
        row_group_bytes: usize,
    ) -> Result<(Self, u64), Refusal> {
        let rows = batch.num_rows() as u64;
        let append = move |encoder: &mut Encoder| {
            encoder.write(&batch)?;
            if encoder.in_progress_size() >= row_group_bytes {
                encoder.flush()?;
            }
            Ok::<(), ParquetError>(())
        };
        let mut file = self.encode(append).await?;
        file.rows += rows;
        Ok((file, rows))
    }

    /// Completes the file.
    ///
    /// # Errors
    /// As [`Self::append`].
    pub(super) async fn close(self) -> Result<StepFile, Refusal> {
        let mut file = self.encode(|encoder| encoder.finish().map(drop)).await?;
        let bytes = file.bytes();
        let sent = file.object.shutdown().await;
        sent.map_err(|error| not_sent(&file.target, &file.path, &error))?;
        meters::record_export_file(file.rows, bytes);
        Ok(StepFile { path: file.path, rows: file.rows, bytes })
    }

    /// Removes the parts that were sent.
    pub(super) async fn abort(mut self) {
        let _ = self.object.abort().await;
    }

    /// Runs `work` on a thread for blocking work, and sends the row groups that it has completed. Aborts the file after
    /// an error.
    async fn encode<F>(self, work: F) -> Result<Self, Refusal>
    where
        F: FnOnce(&mut Encoder) -> Result<(), ParquetError> + Send + 'static,
    {
        let Self { number, target, path, mut encoder, mut object, rows } = self;
        let encoding = spawn_blocking(move || {
            work(&mut encoder)?;
            let mut bytes = mem::take(encoder.inner_mut());
            // The parts of the object keep the whole allocation until they are sent.
            bytes.shrink_to_fit();
            Ok::<(Encoder, Vec<u8>), ParquetError>((encoder, bytes))
        });
        let sent = async {
            let encoded = encoding.await.map_err(|error| task_failed(&error))?;
            let (encoder, bytes) = encoded.map_err(|error| not_encoded(&target, &path, &error))?;
            if !bytes.is_empty() {
                let put = object.put(bytes.into()).await;
                put.map_err(|error| not_sent(&target, &path, &error))?;
            }
            Ok::<Encoder, Refusal>(encoder)
        };
        let sent = sent.await;
        match sent {
            Ok(encoder) => Ok(Self { number, target, path, encoder, object, rows }),
            Err(problem) => {
                let _ = object.abort().await;
                Err(problem)
            }
        }
    }
}

/// Returns the RPC error of a task that has panicked.
pub(super) fn task_failed(error: &JoinError) -> Refusal {
    Refusal::new(Reason::Internal, format!("a file of an export cannot be written: {error}"))
}

fn not_encoded(target: &Target, path: &str, error: &ParquetError) -> Refusal {
    let text = format!("{}/{path} cannot be written: {error}", target.url());
    Refusal::new(Reason::Internal, text)
}

/// Returns the RPC error of an object that cannot be sent: that of the target, if it is among the causes.
fn not_sent(target: &Target, path: &str, error: &(dyn Error + 'static)) -> Refusal {
    if let Some(error) = TargetError::find_in(error) {
        return target_error(error.clone());
    }
    let text = format!("{}/{path} cannot be written: {error}", target.url());
    Refusal::new(Reason::ExportTargetUnavailable, text)
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::exports::testing::ExportDirectory;

    #[tokio::test]
    async fn only_encoding_errors_are_internal() {
        let directory = ExportDirectory::new();
        let target = directory.open(5).await.target;
        let encoding = ParquetError::General("bad rows".to_owned());
        for (refused, expected) in [
            (not_encoded(&target, "data/x", &encoding), Reason::Internal),
            (
                not_sent(&target, "data/x", &io::Error::other("no space")),
                Reason::ExportTargetUnavailable,
            ),
        ] {
            assert_eq!(refused.reason, expected, "{refused}");
            assert!(refused.message.contains("/data/x cannot be written"), "{refused}");
        }
    }

    #[tokio::test]
    async fn unsent_object_has_the_error_of_its_target() {
        let directory = ExportDirectory::new();
        let target = directory.open(5).await.target;
        let error = TargetError::Unavailable("the disk is full".to_owned());
        let refused = not_sent(&target, "data/x", &error);
        assert_eq!(refused.reason, Reason::ExportTargetUnavailable);
        assert_eq!(refused.message, "the disk is full");
    }
}
