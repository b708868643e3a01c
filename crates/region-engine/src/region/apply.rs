//! Writes into the memtable, and the merges that keep its runs few.

use std::sync::Arc;

use tidewater_common::ids::Sequence;

use super::{Contents, Phase, Region};
use crate::EngineError;
use crate::flush::on_worker;
use crate::memtable::{FAN_IN, RowsWrite, Run, RunImage, merge_runs, pick};

impl Region {
    /// Takes a write in. Never waits; columns are taken over as they are. A write at or below the
    /// flushed sequence, or that was applied before, is skipped: applying a log again is harmless.
    ///
    /// # Errors
    /// [`EngineError::BadRows`] when the batch does not have the schema's columns, has values that no
    /// file can hold, or deletes from an append-only table; [`EngineError::Closed`] and
    /// [`EngineError::Removed`].
    pub fn apply(&self, write: RowsWrite) -> Result<(), EngineError> {
        let sequence = write.sequence;
        let shape = {
            let contents = self.contents.lock();
            if !self.takes(&contents, sequence)? {
                return Ok(());
            }
            contents.shape.clone()
        };
        let run = Run::from_write(write, &shape.schema, shape.mode())?;
        let now_ms = self.env.clock.now_ms();
        let mut contents = self.contents.lock();
        if !self.takes(&contents, sequence)? {
            return Ok(());
        }
        contents.last_sequence = sequence;
        if let Some(run) = run {
            self.usage.set(self.usage.bytes() + run.bytes() as u64);
            contents.unflushed_since_ms.get_or_insert(now_ms);
            contents.runs.push(Arc::new(run));
        }
        Ok(())
    }

    fn takes(&self, contents: &Contents, sequence: Sequence) -> Result<bool, EngineError> {
        match contents.phase {
            Phase::Closed => Err(EngineError::Closed { region: self.id() }),
            Phase::Removed => Err(EngineError::Removed { region: self.id() }),
            _ => Ok(sequence > contents.last_sequence && sequence > contents.version.flushed),
        }
    }

    /// Whether so many runs have come together that [`Region::merge_runs`] should be called soon.
    pub fn merge_due(&self) -> bool {
        self.contents.lock().runs.len() >= FAN_IN
    }

    /// Merges runs of similar size until they are few. Meant for a task of its own after writes;
    /// returns at once when another one is at it.
    ///
    /// # Errors
    /// The runs stay as they were after any error.
    pub async fn merge_runs(&self) -> Result<(), EngineError> {
        loop {
            let Ok(_merging) = self.merging.try_lock() else { return Ok(()) };
            let (picked, flushed, shape) = {
                let contents = self.contents.lock();
                let picked = mergeable(&contents);
                (picked, contents.version.flushed.get(), contents.shape.clone())
            };
            if picked.is_empty() {
                return Ok(());
            }
            let inputs = picked.clone();
            let merged =
                on_worker(&self.env.workers, move || merge_runs(&shape, &inputs, flushed)).await?;
            self.replace(&picked, merged);
        }
    }

    /// Puts a merged run in the place of its inputs, as far as they are still there.
    fn replace(&self, inputs: &[Arc<Run>], merged: Option<Run>) {
        let mut contents = self.contents.lock();
        let before = contents.runs.len();
        contents.runs.retain(|run| !inputs.iter().any(|input| Arc::ptr_eq(run, input)));
        // Some of them may have been flushed in the meantime, all of them, or the region closed;
        // what is flushed is masked.
        if contents.runs.len() < before
            && let Some(merged) = merged
            && merged.max_sequence() > contents.version.flushed.get()
        {
            contents.runs.push(Arc::new(merged));
        }
        self.account(&contents);
    }

    /// The runs that are not flushed, by pointer: what a snapshot of the log must carry.
    pub fn unflushed(&self) -> Vec<RunImage> {
        let contents = self.contents.lock();
        contents.runs.iter().map(|run| RunImage { run: run.clone() }).collect()
    }

    /// Replaces all runs by those of a snapshot. Rows at or below the flushed sequence are not
    /// shown.
    pub fn restore(&self, images: Vec<RunImage>) {
        let mut contents = self.contents.lock();
        let flushed = contents.version.flushed;
        contents.runs = images
            .into_iter()
            .map(|image| image.run)
            .filter(|run| run.max_sequence() > flushed.get())
            .collect();
        let last = contents.runs.iter().map(|run| Sequence(run.max_sequence())).max();
        contents.last_sequence = contents.last_sequence.max(last.unwrap_or_default());
        contents.unflushed_since_ms = (!contents.runs.is_empty()).then(|| self.env.clock.now_ms());
        self.account(&contents);
    }
}

/// The runs to merge next: all of them between the same obligations that flush what lies below.
fn mergeable(contents: &Contents) -> Vec<Arc<Run>> {
    let frozen = contents.frozen.unwrap_or(0);
    let bounds: Vec<u64> = contents
        .obligations
        .iter()
        .filter(|pending| pending.obligation.flushes_first())
        .map(|pending| pending.cause.sequence.get())
        .collect();
    let side = |run: &Run| bounds.iter().filter(|bound| **bound < run.min_sequence()).count();
    (0..=bounds.len())
        .map(|at| {
            let free: Vec<&Arc<Run>> = contents
                .runs
                .iter()
                .filter(|run| run.min_sequence() > frozen && side(run) == at)
                .collect();
            let sizes: Vec<usize> = free.iter().map(|run| run.rows()).collect();
            pick(&sizes).into_iter().map(|index| free[index].clone()).collect::<Vec<_>>()
        })
        .find(|picked| !picked.is_empty())
        .unwrap_or_default()
}
