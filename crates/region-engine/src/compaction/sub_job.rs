//! A sub-job: merges the inputs of a job within a key range. Runs on a thread of its own.
//!
//! It holds a row group of each sorted run of its inputs and the one that it writes, whatever their
//! total size. It takes a worker permit for one batch at a time: a waiting flush gets the next
//! permit.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::BooleanArray;
use arrow::compute::{and, not};
use tidewater_common::keys::KeyRange;
use tidewater_common::schema::WriteMode;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};

use super::chain::{ChainFile, ChainPiece, FileChain};
use super::job::CompactionJob;
use super::progress::Attempt;
use super::runs::{Ranged, sorted_runs};
use crate::EngineError;
use crate::expiry::Expiry;
use crate::file_meta::FileMeta;
use crate::flush::series::{FilePart, FileSeries};
use crate::read::merge::{Merge, MergeRules, MergeStep, Versions};
use crate::read::ranges::KeyRanges;
use crate::read::run_source::PIECE_ROWS;
use crate::read::shape::{Carried, TableShape};
use crate::row_versions::{RowOp, RowVersions};
use crate::sst::source::{FileAccess, FileSource};
use crate::sst::statistics::stored_units;
use crate::sst::units::{StoredUnits, has_units};
use crate::sst::writer::FilePlan;
use crate::workers::WorkerSlot;

/// A sub-job of a compaction job.
#[derive(Debug)]
pub(crate) struct SubJob {
    pub(crate) job: Arc<CompactionJob>,
    pub(crate) shape: Arc<TableShape>,
    pub(crate) access: FileAccess,
    pub(crate) range: KeyRange,
    pub(crate) attempt: Attempt,
    pub(crate) workers: Arc<Semaphore>,
    pub(crate) runtime: Handle,
}

/// An input with the range of keys that it shows within the sub-job's range.
struct ShownRange {
    file: Arc<FileMeta>,
    low: Vec<u8>,
    high: Vec<u8>,
}

impl Ranged for ShownRange {
    type Key = Vec<u8>;
    fn low(&self) -> &Vec<u8> {
        &self.low
    }
    fn high(&self) -> &Vec<u8> {
        &self.high
    }
}

/// Drops expired rows after the merge.
struct ExpiryFilter {
    expiry: Option<Expiry>,
    /// `Some`: an expired version may be dropped only if it is of this epoch or an earlier one, for
    /// then no older version exists beneath it. `None`: all versions beneath it have expired too.
    at_or_below: Option<u64>,
}

impl SubJob {
    /// Merges and sends the files; blocks while the upload is slower.
    pub(crate) fn run(&self, sender: mpsc::Sender<FilePart>) -> Result<(), EngineError> {
        let expiry = self.job.expiry();
        let mut chains = self.chains()?;
        let keep_deletes = self.job.may_hide(&self.range);
        let versions = self.versions();
        let rules = MergeRules { versions, keep_deletes };
        let filter = ExpiryFilter {
            at_or_below: match &expiry {
                Some(expiry) if !expiry.whole_keys => Some(self.job.since.get()),
                _ => None,
            },
            // A version that outlives others of the inputs hides versions outside of them, like a
            // delete.
            expiry: expiry.filter(|expiry| expiry.whole_keys || !keep_deletes),
        };
        let slot = Arc::new(WorkerSlot::new(self.workers.clone(), self.runtime.clone()));
        let mut files = self.files(rules, sender, slot.clone())?;
        let mut merge = Merge::new(chains.len(), rules);
        loop {
            if self.attempt.cancel.is_cancelled() {
                return Err(self.cancelled());
            }
            self.wait(slot.acquire())?;
            let turn = merge.advance(PIECE_ROWS);
            if let MergeStep::Feed(source) = turn {
                let next = self.wait(chains[source].next())??;
                merge.feed(source, next.map(|piece| self.chunk(piece)).transpose()?);
                continue;
            }
            if let Some(rows) = merge.take()? {
                let rows = filter.apply(rows)?;
                self.attempt.progress.record_rows_written(rows.rows() as u64);
                files.push(&rows, merge.take_repeats())?;
            }
            if turn == MergeStep::Done {
                return files.finish();
            }
            slot.release();
        }
    }

    /// Blocks on a future until it completes or the attempt is cancelled: a store may not answer
    /// for a long time.
    fn wait<T>(&self, future: impl Future<Output = T>) -> Result<T, EngineError> {
        self.runtime.block_on(async {
            tokio::select! {
                done = future => Ok(done),
                () = self.attempt.cancel.cancelled() => Err(self.cancelled()),
            }
        })
    }

    fn cancelled(&self) -> EngineError {
        EngineError::Cancelled { region: self.job.dir.region_id, job: self.job.job_id }
    }

    fn versions(&self) -> Versions {
        let greatest = self.job.inputs.iter().map(|file| file.max_epoch()).max();
        Versions::kept(self.job.options.write_mode, self.job.since, greatest.unwrap_or_default())
    }

    fn files(
        &self,
        rules: MergeRules,
        sender: mpsc::Sender<FilePart>,
        slot: Arc<WorkerSlot>,
    ) -> Result<FileSeries, EngineError> {
        let deletes = self.job.inputs.iter().any(|file| file.deletes > 0);
        let file = FilePlan {
            shape: self.shape.clone(),
            dir: self.job.dir,
            hashed: self.job.options.hash.is_some(),
            with_deletes: deletes && (rules.keep_deletes || rules.versions != Versions::Newest),
            unique: rules.versions == Versions::Newest,
        };
        let files = FileSeries::new(file, self.job.output.target_file_bytes, sender, slot)
            .with_progress(self.attempt.progress.clone());
        let schema = &self.shape.schema;
        let has_times = schema.columns().iter().any(|column| has_units(&column.data_type.arrow()));
        if self.job.options.write_mode == WriteMode::AppendOnly && has_times {
            return Ok(files.with_units(self.units()?));
        }
        Ok(files)
    }

    /// Returns the units that hold the times of all inputs: in an append-only table, rows with equal key and
    /// sequence must be in one file, which keeps their order.
    fn units(&self) -> Result<StoredUnits, EngineError> {
        let schema = &self.shape.schema;
        let mut units = StoredUnits::of_defaults(&Carried::all(schema)?)?;
        for file in self.job.read() {
            let shown = file.shown_keys();
            if shown.is_none_or(|(low, high)| !self.range.intersects_inclusive(low, high)) {
                continue;
            }
            let footer = self.wait(self.access.footer(file))??;
            self.attempt.progress.record_step();
            units = units.union(&stored_units(&footer, schema));
        }
        Ok(units)
    }

    /// Returns the inputs' sorted runs with_context the range, without inputs that [are not
    /// read](CompactionJob::read).
    fn chains(&self) -> Result<Vec<FileChain>, EngineError> {
        let range = KeyRanges::one(&self.range, &KeyRange::whole());
        let shown: Vec<ShownRange> = self
            .job
            .read()
            .filter_map(|file| {
                let (low, high) = range.within(&file.clip).clamp(&file.min_key, &file.max_key)?;
                Some(ShownRange { file: Arc::new(file.clone()), low, high })
            })
            .collect();
        let all: Vec<usize> = (0..shown.len()).collect();
        let carried = Carried::all(&self.shape.schema)?;
        let chains = sorted_runs(&shown, &all)
            .into_iter()
            .map(|run| {
                let links = run.into_iter().map(|index| {
                    let file = shown[index].file.clone();
                    let (unique, row_bytes) =
                        (file.one_version_per_key, file.size / file.rows.max(1));
                    let access = self.access.clone();
                    let shape = self.shape.clone();
                    let source = FileSource::new(access, file, shape, carried.clone(), &range);
                    ChainFile { source: source.with_epochs(), unique, row_bytes }
                });
                FileChain::new(links.collect::<VecDeque<ChainFile>>())
            })
            .collect();
        Ok(chains)
    }

    fn chunk(&self, next: ChainPiece) -> Result<crate::read::merge::Chunk, EngineError> {
        self.attempt.progress.record_read(next.piece.rows.rows() as u64, next.bytes);
        next.piece.into_chunk(&self.shape.codec, next.unique)
    }
}

impl ExpiryFilter {
    fn apply(&self, rows: RowVersions) -> Result<RowVersions, EngineError> {
        let Some(expiry) = &self.expiry else { return Ok(rows) };
        let Some(mut dropped) = expiry.expired(&rows)? else { return Ok(rows) };
        let stamps = rows.stamps();
        if let Some(since) = self.at_or_below {
            let settled = (0..rows.rows()).map(|row| Some(stamps.epochs.at(row) <= since));
            dropped = and(&dropped, &settled.collect::<BooleanArray>())?;
        }
        if let crate::row_versions::Ops::Each(ops) = &stamps.ops {
            // A delete hides rows that another node's clock may not yet consider expired.
            let puts = ops.values().iter().map(|op| Some(*op == RowOp::Put.code()));
            dropped = and(&dropped, &puts.collect::<BooleanArray>())?;
        }
        Ok(rows.filter(&not(&dropped)?)?)
    }
}
