//! A series of files that hold sorted rows: one ends where it is large enough, between two keys.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::EngineError;
use crate::compaction::CompactionProgress;
use crate::memtable::run::key_columns;
use crate::row_versions::RowVersions;
use crate::sst::sink::PartReceiver;
use crate::sst::writer::{FilePlan, SstWriter, WrittenFile};

/// From the encoder to the upload: the parts of a file in order, then its end.
#[derive(Debug)]
pub(crate) enum Part {
    Bytes(Bytes),
    End(Box<WrittenFile>),
}

#[derive(Debug)]
struct Parts {
    sender: mpsc::Sender<Part>,
    progress: Option<Arc<CompactionProgress>>,
}

impl Parts {
    fn send(&self, part: Part) -> io::Result<()> {
        if let Some(progress) = &self.progress {
            match &part {
                Part::Bytes(bytes) => progress.record_bytes_written(bytes.len() as u64),
                Part::End(_) => progress.record_file_written(),
            }
        }
        self.sender.blocking_send(part).map_err(|_| io::Error::other("the upload has ended"))
    }
}

impl PartReceiver for Parts {
    fn part(&mut self, bytes: Bytes) -> io::Result<()> {
        self.send(Part::Bytes(bytes))
    }
}

/// See the module's head. CPU-bound, and blocks while the upload is slower.
pub(crate) struct FileSeries {
    file: FilePlan,
    target_bytes: usize,
    parts: Option<Parts>,
    writer: Option<SstWriter<Parts>>,
}

impl FileSeries {
    /// Files like `file` of about `target_bytes` each, sent as they come.
    pub(crate) fn new(file: FilePlan, target_bytes: usize, sender: mpsc::Sender<Part>) -> Self {
        let parts = Some(Parts { sender, progress: None });
        Self { file, target_bytes, parts, writer: None }
    }

    /// Counts what is sent.
    pub(crate) fn counted_by(mut self, progress: Arc<CompactionProgress>) -> Self {
        if let Some(parts) = &mut self.parts {
            parts.progress = Some(progress);
        }
        self
    }

    /// Appends rows, which follow those before them.
    pub(crate) fn push(&mut self, rows: &RowVersions) -> Result<(), EngineError> {
        if rows.rows() == 0 {
            return Ok(());
        }
        if let Some(full) = self.writer.take_if(|one| one.estimated_bytes() >= self.target_bytes) {
            // All versions of a key lie in one file.
            if self.file.unique || full.last_key()? != Some(self.first_key(rows)?) {
                self.parts = Some(end(full)?);
            } else {
                self.writer = Some(full);
            }
        }
        let writer = match (&mut self.writer, self.parts.take()) {
            (Some(writer), _) => writer,
            (none, Some(parts)) => none.insert(SstWriter::new(self.file.clone(), parts)?),
            (None, None) => {
                return Err(EngineError::Internal { detail: "a file without an end".to_owned() });
            }
        };
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

fn end(writer: SstWriter<Parts>) -> Result<Parts, EngineError> {
    let (file, parts) = writer.finish()?;
    parts
        .send(Part::End(Box::new(file)))
        .map_err(|error| EngineError::Internal { detail: error.to_string() })?;
    Ok(parts)
}
