//! K-way merge of row versions: a pure core without any I/O.
//!
//! - **Source**: yields row versions in order, by key and within a key newest first.
//! - **Chunk**: a piece of a source with its comparable keys. It lives until the batches that
//!   contain its rows are taken.
//! - **Segment**: adjacent rows of one chunk that the merge has emitted.
//!
//! The caller feeds chunks when [`Merge::advance`] requests one, and takes a batch when enough
//! segments are collected.
//!
//! The heads of the sources are in a tree of losers: taking a row costs about log2(sources)
//! comparisons of key bytes. When one source wins several times in a row, galloping finds the row
//! before which another source continues, so sources that hardly overlap are not compared row by
//! row. Columns are copied once per batch, not per row.
//!
//! A batch is limited in rows and in bytes. Bytes are estimated by the average row of each chunk.
//! Chunks are small (see `run_source`), so the error of a batch is small too.

pub(crate) mod chunk;
mod emit;
mod kept;
mod tree;

use std::sync::Arc;

use tidewater_common::ids::Epoch;
use tidewater_common::schema::WriteMode;

pub(crate) use self::chunk::Chunk;
use self::emit::LastKey;
pub(crate) use self::kept::{KeptCounts, KeptSinces};
use super::BATCH_BYTES;
use super::assemble::{Segment, assemble};
use crate::EngineError;
use crate::row_versions::RowVersions;

/// Rules for the output of a merge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MergeRules {
    /// Versions of a key to emit.
    pub(crate) versions: Versions,
    /// True if deletes are part of the output (flush, merges of runs); otherwise they only hide
    /// their key (reads).
    pub(crate) keep_deletes: bool,
}

/// Versions of a key that a merge emits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Versions {
    /// Every row (append-only tables).
    Every,
    /// The newest version.
    Newest,
    /// The newest version of each later epoch, deletes included, and the newest of this epoch or an earlier one: those
    /// that are [kept](KeptSinces) for it.
    Since(u64),
}

impl Versions {
    /// Returns the versions that a read returns.
    pub(crate) fn of(mode: WriteMode) -> Self {
        match mode {
            WriteMode::Upsert => Self::Newest,
            WriteMode::AppendOnly => Self::Every,
        }
    }

    /// Returns the versions that reads as of `since` or later may return, of rows whose greatest epoch is `greatest`.
    pub(crate) fn kept(mode: WriteMode, since: Epoch, greatest: Epoch) -> Self {
        match mode {
            WriteMode::Upsert if greatest > since => Self::Since(since.get()),
            mode => Self::of(mode),
        }
    }
}

/// Next step of a merge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MergeStep {
    /// [`Merge::feed`] this source.
    Feed(usize),
    /// Enough rows for a batch.
    Full,
    /// All sources have ended.
    Done,
}

/// Number of wins in a row after which a source is expected to keep winning.
const STREAK: u32 = 3;

#[derive(Debug, Default)]
struct Slot {
    chunk: Option<Arc<Chunk>>,
    /// Index of the chunk in `pinned`, once one of its rows was emitted.
    pin: Option<usize>,
    position: usize,
    ended: bool,
}

/// A k-way merge of row versions.
#[derive(Debug)]
pub(crate) struct Merge {
    rules: MergeRules,
    slots: Vec<Slot>,
    /// `tree[0]` is the winner, the others hold the loser of their match. Empty until all sources
    /// have been fed once.
    tree: Vec<usize>,
    unfed: Vec<usize>,
    streak: u32,
    pinned: Vec<Arc<Chunk>>,
    segments: Vec<Segment>,
    /// Number of the rows that were emitted since the last batch; of a merge that counts, of those that were processed.
    pending: usize,
    /// Approximate bytes of the pending rows.
    pending_bytes: usize,
    last: LastKey,
    last_bytes: Vec<u8>,
    /// Least epoch of the processed versions of the last key, with [`Versions::Since`].
    least_epoch: u64,
    /// True if several versions of a key were emitted since [`Merge::take_repeats`].
    repeats: bool,
    /// Counts since [`Merge::take_counts`], if versions are only counted.
    counts: Option<KeptCounts>,
    /// Bytes of the pinned chunks of which all rows were processed: only the pending batch holds them.
    exhausted_bytes: usize,
}

impl Merge {
    /// Creates a merge. Earlier sources win ties; ties do not occur between the versions of a
    /// region.
    pub(crate) fn new(sources: usize, rules: MergeRules) -> Self {
        Self {
            rules,
            slots: (0..sources).map(|_| Slot::default()).collect(),
            tree: Vec::new(),
            unfed: (0..sources).rev().collect(),
            streak: 0,
            pinned: Vec::new(),
            segments: Vec::new(),
            pending: 0,
            pending_bytes: 0,
            last: LastKey::None,
            last_bytes: Vec::new(),
            least_epoch: 0,
            repeats: false,
            counts: None,
            exhausted_bytes: 0,
        }
    }

    /// Creates a merge whose rows are counted and not built; see [`Merge::take_counts`]. It holds one chunk of each
    /// source. With [`Versions::Since`] it counts the versions that are kept for each of the sinces of `counts`, which
    /// are 0, otherwise for each of them all rows that it would emit.
    pub(crate) fn counting(sources: usize, rules: MergeRules, counts: KeptCounts) -> Self {
        Self { counts: Some(counts), ..Self::new(sources, rules) }
    }

    /// Passes the next chunk of a source, `None` at its end. Empty chunks are skipped.
    pub(crate) fn feed(&mut self, source: usize, chunk: Option<Chunk>) {
        let slot = &mut self.slots[source];
        match chunk {
            Some(chunk) if chunk.rows.rows() == 0 => return,
            Some(chunk) => {
                *slot = Slot { chunk: Some(Arc::new(chunk)), pin: None, position: 0, ended: false };
            }
            None => *slot = Slot { chunk: None, pin: None, position: 0, ended: true },
        }
        self.unfed.retain(|waiting| *waiting != source);
        if !self.tree.is_empty() {
            self.replay(source);
        }
    }

    /// Advances until `target` rows, or rows of [`BATCH_BYTES`], are emitted, or a source must be fed. A merge that
    /// counts advances until `target` rows are processed.
    pub(crate) fn advance(&mut self, target: usize) -> MergeStep {
        loop {
            // Otherwise many chunks that contribute a row or two each would be held at the same
            // time.
            let enough = self.pending >= target || self.pending_bytes >= BATCH_BYTES;
            let many = self.pinned.len() > 4 * self.slots.len() + 16
                || self.exhausted_bytes >= BATCH_BYTES;
            if enough || many {
                return MergeStep::Full;
            }
            if let Some(source) = self.unfed.last() {
                return MergeStep::Feed(*source);
            }
            if self.tree.is_empty() {
                self.build();
            }
            let Some(winner) = self.tree.first().copied() else { return MergeStep::Done };
            if self.slots[winner].ended {
                return MergeStep::Done;
            }
            self.take_from(winner, target);
        }
    }

    /// Returns whether the rows emitted since the last call have, together with earlier ones, several versions of a
    /// key. Only with [`Versions::Since`].
    pub(crate) fn take_repeats(&mut self) -> bool {
        std::mem::take(&mut self.repeats)
    }

    /// Returns the emitted rows as one batch; `None` when there are none.
    pub(crate) fn take(&mut self) -> Result<Option<RowVersions>, EngineError> {
        let batch = assemble(&self.pinned, &self.segments)?;
        self.reset();
        Ok(batch)
    }

    /// Adds the counts since the last call to `totals`, which are of the same sinces. Returns the number of rows that
    /// were processed since then: 0 at the end.
    pub(crate) fn take_counts(&mut self, totals: &mut KeptCounts) -> usize {
        if let Some(counts) = &mut self.counts {
            totals.append(counts);
        }
        let rows = self.pending;
        self.reset();
        rows
    }

    fn reset(&mut self) {
        self.release_last();
        self.pinned.clear();
        self.segments.clear();
        self.pending = 0;
        self.pending_bytes = 0;
        self.exhausted_bytes = 0;
        for slot in &mut self.slots {
            slot.pin = None;
        }
    }

    /// Takes one row of the winner or, when it keeps winning, all rows before the next source's
    /// head.
    fn take_from(&mut self, winner: usize, target: usize) {
        let Some(chunk) = self.slots[winner].chunk.clone() else { return };
        let start = self.slots[winner].position;
        let fits = (BATCH_BYTES.saturating_sub(self.pending_bytes) / chunk.row_bytes).max(1);
        let room = start.saturating_add(fits.min(target - self.pending)).min(chunk.rows.rows());
        let end = if self.streak >= STREAK {
            self.end_of_streak(winner, &chunk, start, room)
        } else {
            start + 1
        };
        match self.rules.versions {
            Versions::Newest => self.emit_newest(winner, &chunk, start, end),
            Versions::Every => self.emit(winner, &chunk, start, end),
            Versions::Since(since) => self.emit_since(winner, &chunk, start..end, since),
        }
        if self.counts.is_some() {
            self.pending += end - start;
        }
        self.slots[winner].position = end;
        if end == chunk.rows.rows() {
            if self.slots[winner].pin.is_some() {
                let bytes = chunk.row_bytes.saturating_mul(end);
                self.exhausted_bytes = self.exhausted_bytes.saturating_add(bytes);
            }
            self.release_last();
            self.unfed.push(winner);
            return;
        }
        self.replay(winner);
        self.streak = if self.tree[0] == winner { self.streak + 1 } else { 0 };
    }
}

#[cfg(test)]
#[path = "merge_tests.rs"]
mod tests;
