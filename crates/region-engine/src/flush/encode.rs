//! The CPU-bound half of a flush: merge, cut into files, encode.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use tidewater_common::schema::WriteMode;
use tokio::sync::mpsc;

use crate::EngineError;
use crate::layout::RegionDir;
use crate::memtable::run::key_columns;
use crate::memtable::{Run, merge_into};
use crate::read::merge::MergeRules;
use crate::read::shape::TableShape;
use crate::row_versions::RowVersions;
use crate::sst::sink::PartReceiver;
use crate::sst::writer::{FilePlan, SstWriter, WrittenFile};

/// What a flush writes.
#[derive(Debug, Clone)]
pub(crate) struct FlushPlan {
    pub(crate) shape: Arc<TableShape>,
    pub(crate) dir: RegionDir,
    pub(crate) mode: WriteMode,
    pub(crate) hashed: bool,
    /// Rows at or below this sequence are in files already.
    pub(crate) flushed: u64,
    /// Older files may hold keys that a delete hides.
    pub(crate) keep_deletes: bool,
    /// Bytes at which a file ends.
    pub(crate) target_bytes: usize,
}

/// From the encoder to the upload: the parts of a file in order, then its end.
#[derive(Debug)]
pub(crate) enum Part {
    Bytes(Bytes),
    End(Box<WrittenFile>),
}

#[derive(Debug)]
struct Parts(mpsc::Sender<Part>);

impl Parts {
    fn send(&self, part: Part) -> io::Result<()> {
        self.0.blocking_send(part).map_err(|_| io::Error::other("the upload has ended"))
    }
}

impl PartReceiver for Parts {
    fn part(&mut self, bytes: Bytes) -> io::Result<()> {
        self.send(Part::Bytes(bytes))
    }
}

/// Merges the runs and sends the files; blocks while the upload is slower.
pub(crate) fn encode(
    plan: &FlushPlan,
    runs: &[Arc<Run>],
    sender: mpsc::Sender<Part>,
) -> Result<(), EngineError> {
    let with_deletes = plan.keep_deletes && runs.iter().any(|run| run.deletes() > 0);
    let upsert = plan.mode == WriteMode::Upsert;
    let file = FilePlan {
        shape: plan.shape.clone(),
        dir: plan.dir,
        hashed: plan.hashed,
        with_deletes,
        unique: upsert,
    };
    let mut parts = Some(Parts(sender));
    let mut writer: Option<SstWriter<Parts>> = None;
    let rules = MergeRules { newest_only: upsert, keep_deletes: with_deletes };
    merge_into(&plan.shape, rules, runs, plan.flushed, |rows| {
        if let Some(full) = writer.take_if(|writer| writer.estimated_bytes() >= plan.target_bytes) {
            if upsert || full.last_key()? != Some(first_key(plan, &rows)?) {
                parts = Some(end(full)?);
            } else {
                writer = Some(full);
            }
        }
        let writer = match (&mut writer, parts.take()) {
            (Some(writer), _) => writer,
            (none, Some(parts)) => none.insert(SstWriter::new(file.clone(), parts)?),
            (None, None) => {
                return Err(EngineError::Internal { detail: "a file without an end".to_owned() });
            }
        };
        writer.push(&rows)
    })?;
    if let Some(writer) = writer {
        end(writer)?;
    }
    Ok(())
}

fn end(writer: SstWriter<Parts>) -> Result<Parts, EngineError> {
    let (file, parts) = writer.finish()?;
    parts
        .send(Part::End(Box::new(file)))
        .map_err(|error| EngineError::Internal { detail: error.to_string() })?;
    Ok(parts)
}

fn first_key(plan: &FlushPlan, rows: &RowVersions) -> Result<Vec<u8>, EngineError> {
    let keys = key_columns(rows, &plan.shape.schema);
    Ok(plan.shape.codec.row_key(&keys, 0)?)
}
