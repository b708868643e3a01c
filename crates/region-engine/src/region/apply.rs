//! Application of writes to the memtable, and the run merges that bound its number of runs.

use std::sync::Arc;

use tidewater_common::ids::Sequence;

use super::{Contents, Region};
use crate::EngineError;
use crate::memtable::{FAN_IN, HeldRun, RowsWrite, Run, RunImage, merge_runs, pick};
use crate::workers::on_worker;

impl Region {
    /// Applies a write to the memtable. Never waits; shares the column buffers of the batch. A write at or
    /// below the flushed sequence, or that was applied before, is skipped: replaying a log is safe.
    ///
    /// # Errors
    /// [`EngineError::BadRows`] if the batch does not have the schema's columns, has values that no file
    /// can store, or deletes from an append-only table; [`EngineError::Closed`], [`EngineError::Removed`]
    /// and [`EngineError::Divided`].
    pub fn apply(&self, write: RowsWrite) -> Result<(), EngineError> {
        let sequence = write.sequence;
        let shape = {
            let contents = self.contents.lock();
            if !self.accepts(&contents, sequence)? {
                return Ok(());
            }
            contents.shape.clone()
        };
        let run = Run::from_write(write, &shape.schema, shape.mode())?;
        let now_ms = self.env.clock.now_ms();
        let mut contents = self.contents.lock();
        if !self.accepts(&contents, sequence)? {
            return Ok(());
        }
        contents.last_sequence = sequence;
        if let Some(run) = run {
            contents.unflushed_since_ms.get_or_insert(now_ms);
            contents.runs.push(self.hold(Arc::new(run)));
        }
        Ok(())
    }

    /// Returns false if a write of this sequence is already applied or flushed.
    fn accepts(&self, contents: &Contents, sequence: Sequence) -> Result<bool, EngineError> {
        contents.check_open(self.id())?;
        Ok(sequence > contents.last_sequence && sequence > contents.version.flushed)
    }

    fn hold(&self, run: Arc<Run>) -> HeldRun {
        HeldRun::new(run, &self.env.memory)
    }

    /// Returns true if the number of runs has reached the threshold for [`Region::merge_runs`].
    pub fn is_merge_due(&self) -> bool {
        self.contents.lock().runs.len() >= FAN_IN
    }

    /// Merges runs of similar size until their number is below the threshold. Intended for a separate
    /// task after writes. Returns immediately if another call is merging.
    ///
    /// # Errors
    /// The runs are unchanged after any error.
    pub async fn merge_runs(&self) -> Result<(), EngineError> {
        loop {
            let Ok(_merging) = self.merging.try_lock() else { return Ok(()) };
            let (picked, flushed, since, shape) = {
                let contents = self.contents.lock();
                let picked = pick_runs_to_merge(&contents);
                let since = contents.readable_since();
                (picked, contents.version.flushed.get(), since, contents.shape.clone())
            };
            if picked.is_empty() {
                return Ok(());
            }
            let inputs = picked.clone();
            let merged =
                on_worker(&self.env.workers, move |_| merge_runs(&shape, &inputs, flushed, since))
                    .await?;
            self.replace_runs(&picked, merged);
        }
    }

    /// Replaces the inputs of a merge that are still present by the merged run.
    fn replace_runs(&self, inputs: &[Arc<Run>], merged: Option<Run>) {
        // Charged before the inputs are released: inputs and output are in memory at this moment.
        let merged = merged.map(|run| self.hold(Arc::new(run)));
        let mut contents = self.contents.lock();
        let before = contents.runs.len();
        contents.runs.retain(|held| !inputs.iter().any(|input| Arc::ptr_eq(held.run(), input)));
        // Some or all of them may have been flushed since, or the region closed. Flushed rows of the
        // merged run are masked.
        if contents.runs.len() < before
            && let Some(merged) = merged
            && merged.max_sequence() > contents.version.flushed.get()
        {
            contents.runs.push(merged);
        }
    }

    /// Unflushed runs, which a snapshot of the log must contain. Shares the runs; copies no rows.
    pub fn unflushed(&self) -> Vec<RunImage> {
        let contents = self.contents.lock();
        contents.runs.iter().map(|held| RunImage { run: held.run().clone() }).collect()
    }

    /// Replaces all runs with those of a snapshot. Rows at or below the flushed sequence are hidden.
    pub fn restore(&self, images: Vec<RunImage>) {
        let mut contents = self.contents.lock();
        let flushed = contents.version.flushed;
        contents.runs = images
            .into_iter()
            .map(|image| image.run)
            .filter(|run| run.max_sequence() > flushed.get())
            .map(|run| self.hold(run))
            .collect();
        let last = contents.runs.iter().map(|run| Sequence(run.max_sequence())).max();
        contents.last_sequence = contents.last_sequence.max(last.unwrap_or_default());
        contents.unflushed_since_ms = (!contents.runs.is_empty()).then(|| self.env.clock.now_ms());
    }
}

/// Picks the runs to merge next. No two of them are on different sides of an obligation before which
/// rows are flushed.
fn pick_runs_to_merge(contents: &Contents) -> Vec<Arc<Run>> {
    let frozen = contents.frozen.unwrap_or(0);
    let bounds: Vec<u64> = contents
        .obligations
        .iter()
        .filter(|pending| pending.obligation.flushes_first())
        .map(|pending| pending.cause.sequence.get())
        .collect();
    let side = |run: &Arc<Run>| bounds.iter().filter(|bound| **bound < run.min_sequence()).count();
    (0..=bounds.len())
        .map(|at| {
            let free: Vec<&Arc<Run>> = contents
                .runs
                .iter()
                .map(HeldRun::run)
                .filter(|run| run.min_sequence() > frozen && side(run) == at)
                .collect();
            let sizes: Vec<usize> = free.iter().map(|run| run.rows()).collect();
            pick(&sizes).into_iter().map(|index| free[index].clone()).collect::<Vec<_>>()
        })
        .find(|picked| !picked.is_empty())
        .unwrap_or_default()
}
