//! Series of files of sorted rows: a file ends, between two keys, when it is large enough.
//!
//! A file also ends before rows with a time that overflows in the unit in which the file stores the
//! column. The next file stores it in a greater unit. Both may then have versions of one key, which
//! reads and compactions merge by sequence. Rows of an append-only table with equal key and sequence
//! keep the order of their write only within a file: flushes and compactions of such tables determine
//! the units of all rows before the first file begins.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::EngineError;
use crate::compaction::CompactionProgress;
use crate::memtable::run::key_columns;
use crate::row_versions::RowVersions;
use crate::sst::sink::PartReceiver;
use crate::sst::units::StoredUnits;
use crate::sst::writer::{FilePlan, SstWriter, WrittenFile};
use crate::workers::WorkerSlot;

/// Message from the encoder to the upload: the parts of a file in order, then its end.
#[derive(Debug)]
pub(crate) enum FilePart {
    Bytes(Bytes),
    End(Box<WrittenFile>),
}

#[derive(Debug)]
struct PartSender {
    sender: mpsc::Sender<FilePart>,
    slot: Arc<WorkerSlot>,
    progress: Option<Arc<CompactionProgress>>,
}

impl PartSender {
    fn send(&self, part: FilePart) -> io::Result<()> {
        if let Some(progress) = &self.progress {
            match &part {
                FilePart::Bytes(bytes) => progress.record_bytes_written(bytes.len() as u64),
                FilePart::End(_) => progress.record_file_written(),
            }
        }
        let sent = match self.sender.try_send(part) {
            Err(TrySendError::Full(part)) => {
                self.slot.without_permit(|| self.sender.blocking_send(part).is_ok())
            }
            other => other.is_ok(),
        };
        if sent { Ok(()) } else { Err(io::Error::other("the upload has ended")) }
    }
}

impl PartReceiver for PartSender {
    fn part(&mut self, bytes: Bytes) -> io::Result<()> {
        self.send(FilePart::Bytes(bytes))
    }
}

/// Writer of a series of files. CPU-bound; blocks while the upload is slower.
pub(crate) struct FileSeries {
    file: FilePlan,
    target_bytes: usize,
    /// Units that every file has at least.
    units: StoredUnits,
    parts: Option<PartSender>,
    writer: Option<SstWriter<PartSender>>,
}

impl FileSeries {
    /// Creates a series of files like `file` of about `target_bytes` each, which are sent while
    /// they are encoded. While the upload is slower, the thread waits without the permit of `slot`.
    pub(crate) fn new(
        file: FilePlan,
        target_bytes: usize,
        sender: mpsc::Sender<FilePart>,
        slot: Arc<WorkerSlot>,
    ) -> Self {
        let parts = Some(PartSender { sender, slot, progress: None });
        let units = StoredUnits::micros(file.shape.schema.columns().len());
        Self { file, target_bytes, units, parts, writer: None }
    }

    /// Stores the columns in units that hold all values that these hold.
    pub(crate) fn with_units(self, units: StoredUnits) -> Self {
        Self { units, ..self }
    }

    /// Records sent bytes and files in `progress`.
    pub(crate) fn with_progress(mut self, progress: Arc<CompactionProgress>) -> Self {
        if let Some(parts) = &mut self.parts {
            parts.progress = Some(progress);
        }
        self
    }

    /// Appends rows, in order after earlier rows. `repeats`: they have, together with those before, several versions of
    /// a key.
    pub(crate) fn push(&mut self, rows: &RowVersions, repeats: bool) -> Result<(), EngineError> {
        if rows.rows() == 0 {
            return Ok(());
        }
        if let Some(full) =
            self.writer.take_if(|writer| writer.estimated_bytes() >= self.target_bytes)
        {
            // All versions of a key must be in one file.
            if self.file.unique || full.last_key()? != Some(self.first_key(rows)?) {
                self.parts = Some(end(full)?);
            } else {
                self.writer = Some(full);
            }
        }
        let mut units = self.units.union(&StoredUnits::of(rows.arrays()));
        if let Some(narrow) = self.writer.take_if(|writer| !writer.units().cover(&units)) {
            // With the units of both, a series ends at most one file early for each column.
            units = units.union(narrow.units());
            self.parts = Some(end(narrow)?);
        }
        let writer = match (&mut self.writer, self.parts.take()) {
            (Some(writer), _) => writer,
            (none, Some(parts)) => none.insert(SstWriter::new(self.file.clone(), units, parts)?),
            (None, None) => {
                return Err(EngineError::Internal {
                    detail: "a file series has neither a writer nor a receiver".to_owned(),
                });
            }
        };
        if repeats {
            writer.note_repeats();
        }
        writer.push(rows)
    }

    /// Ends the last file.
    pub(crate) fn finish(self) -> Result<(), EngineError> {
        match self.writer {
            Some(writer) => end(writer).map(drop),
            None => Ok(()),
        }
    }

    fn first_key(&self, rows: &RowVersions) -> Result<Vec<u8>, EngineError> {
        let shape = &self.file.shape;
        Ok(shape.codec.row_key(&key_columns(rows, &shape.schema), 0)?)
    }
}

fn end(writer: SstWriter<PartSender>) -> Result<PartSender, EngineError> {
    let (file, parts) = writer.finish()?;
    parts
        .send(FilePart::End(Box::new(file)))
        .map_err(|error| EngineError::Internal { detail: error.to_string() })?;
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use tokio::runtime::Handle;
    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn sender_that_waits_for_the_upload_holds_no_permit() {
        let workers = Arc::new(Semaphore::new(1));
        let slot = Arc::new(WorkerSlot::new(workers.clone(), Handle::current()));
        slot.acquire().await;
        let (sender, mut receiver) = mpsc::channel(1);
        let parts = PartSender { sender, slot, progress: None };
        let send = move || {
            for number in 0..3 {
                parts.send(FilePart::Bytes(Bytes::from(vec![number]))).unwrap();
            }
        };
        let sending = tokio::task::spawn_blocking(send);
        drop(workers.acquire().await.unwrap());
        assert!(!sending.is_finished());
        for _ in 0..3 {
            assert!(matches!(receiver.recv().await, Some(FilePart::Bytes(_))));
        }
        sending.await.unwrap();
        assert_eq!(workers.available_permits(), 1);
    }
}
