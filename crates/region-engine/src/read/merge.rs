//! K-way merge of row versions: a pure core without any I/O.
//!
//! Words: a *source* yields row versions in order, by key and within a key newest first; a *chunk*
//! is a piece of a source with its comparable keys; a *segment* is a stretch of rows of one chunk
//! that the merge has let through. The caller feeds chunks when [`Merge::advance`] asks for one,
//! and takes a batch when enough segments have come together.
//!
//! The heads of the sources stand in a tree of losers: taking a row costs about log2(sources)
//! comparisons of key bytes. When one source wins several times in a row, the place where the
//! next source takes over is found by galloping, so sources that hardly overlap are not compared
//! row by row. Columns are copied once per batch, not per row.
//!
//! A batch ends with its rows or with its bytes, which are counted by the average row of each chunk:
//! chunks are small (see `run_source`), so what a batch may take too much is, too.

mod chunk;
mod tree;

use std::ops::Range;
use std::sync::Arc;

use tidewater_common::schema::WriteMode;

pub(crate) use self::chunk::Chunk;
use super::BATCH_BYTES;
use super::assemble::{Segment, assemble};
use crate::EngineError;
use crate::row_versions::{Ops, RowOp, RowVersions};

/// What a merge lets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MergeRules {
    /// Which versions of a key.
    pub(crate) versions: Versions,
    /// Whether deletes are part of the output (flush, run merges) or hide their key only (reads).
    pub(crate) keep_deletes: bool,
}

/// Which versions of a key a merge lets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Versions {
    /// Every row (append-only tables).
    Every,
    /// The newest.
    Newest,
    /// Those of later epochs, deletes included, and the newest of this epoch or an earlier one.
    Since(u64),
}

impl Versions {
    /// What a read shows and a flush writes.
    pub(crate) fn of(mode: WriteMode) -> Self {
        match mode {
            WriteMode::Upsert => Self::Newest,
            WriteMode::AppendOnly => Self::Every,
        }
    }
}

/// What a merge needs next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// [`Merge::feed`] this source.
    Feed(usize),
    /// Enough rows for a batch.
    Full,
    /// All sources have ended.
    Done,
}

/// Wins in a row after which a source is expected to go on winning.
const STREAK: u32 = 3;

#[derive(Debug, Default)]
struct Slot {
    chunk: Option<Arc<Chunk>>,
    /// Index of the chunk in `pinned`, once one of its rows was let through.
    pin: Option<usize>,
    position: usize,
    ended: bool,
}

/// The key that was looked at last, to tell older versions of it.
#[derive(Debug)]
enum LastKey {
    None,
    At(Arc<Chunk>, usize),
    Bytes,
}

/// See the module's head.
#[derive(Debug)]
pub(crate) struct Merge {
    rules: MergeRules,
    slots: Vec<Slot>,
    /// `tree[0]` is the winner, the others hold the loser of their match. Empty until all sources
    /// have been fed once.
    tree: Vec<usize>,
    hungry: Vec<usize>,
    streak: u32,
    pinned: Vec<Arc<Chunk>>,
    segments: Vec<Segment>,
    pending: usize,
    /// About as many bytes do the pending rows take.
    pending_bytes: usize,
    last: LastKey,
    last_bytes: Vec<u8>,
    /// No older version of the last key is let through.
    settled: bool,
}

impl Merge {
    /// Sources that come first win ties; ties do not occur between the versions of a region.
    pub(crate) fn new(sources: usize, rules: MergeRules) -> Self {
        Self {
            rules,
            slots: (0..sources).map(|_| Slot::default()).collect(),
            tree: Vec::new(),
            hungry: (0..sources).rev().collect(),
            streak: 0,
            pinned: Vec::new(),
            segments: Vec::new(),
            pending: 0,
            pending_bytes: 0,
            last: LastKey::None,
            last_bytes: Vec::new(),
            settled: false,
        }
    }

    /// Gives a source its next chunk, `None` at its end. Empty chunks are passed over.
    pub(crate) fn feed(&mut self, source: usize, chunk: Option<Chunk>) {
        let slot = &mut self.slots[source];
        match chunk {
            Some(chunk) if chunk.rows.rows() == 0 => return,
            Some(chunk) => {
                *slot = Slot { chunk: Some(Arc::new(chunk)), pin: None, position: 0, ended: false };
            }
            None => *slot = Slot { chunk: None, pin: None, position: 0, ended: true },
        }
        self.hungry.retain(|waiting| *waiting != source);
        if !self.tree.is_empty() {
            self.replay(source);
        }
    }

    /// Goes on until `target` rows, or rows of [`BATCH_BYTES`], are let through or a source must be
    /// fed.
    pub(crate) fn advance(&mut self, target: usize) -> Turn {
        loop {
            // Chunks that contribute a row or two each would otherwise all be held at once.
            let enough = self.pending >= target || self.pending_bytes >= BATCH_BYTES;
            if enough || self.pinned.len() > 4 * self.slots.len() + 16 {
                return Turn::Full;
            }
            if let Some(source) = self.hungry.last() {
                return Turn::Feed(*source);
            }
            if self.tree.is_empty() {
                self.build();
            }
            let Some(winner) = self.tree.first().copied() else { return Turn::Done };
            if self.slots[winner].ended {
                return Turn::Done;
            }
            self.take_from(winner, target);
        }
    }

    /// The rows that were let through, as one batch; `None` when there are none.
    pub(crate) fn take(&mut self) -> Result<Option<RowVersions>, EngineError> {
        let batch = assemble(&self.pinned, &self.segments)?;
        self.forget();
        Ok(batch)
    }

    /// The number of rows that were let through, without making them.
    pub(crate) fn take_count(&mut self) -> usize {
        let count = self.pending;
        self.forget();
        count
    }

    fn forget(&mut self) {
        self.release_last();
        self.pinned.clear();
        self.segments.clear();
        self.pending = 0;
        self.pending_bytes = 0;
        for slot in &mut self.slots {
            slot.pin = None;
        }
    }

    fn release_last(&mut self) {
        if let LastKey::At(chunk, row) = &self.last {
            self.last_bytes.clear();
            self.last_bytes.extend_from_slice(chunk.keys.row(*row).data());
            self.last = LastKey::Bytes;
        }
    }

    fn is_last_key(&self, key: &[u8]) -> bool {
        match &self.last {
            LastKey::None => false,
            LastKey::At(chunk, row) => chunk.keys.row(*row).data() == key,
            LastKey::Bytes => self.last_bytes == key,
        }
    }

    /// Takes one row of the winner or, when it keeps winning, all up to where another takes over.
    fn take_from(&mut self, winner: usize, target: usize) {
        let Some(chunk) = self.slots[winner].chunk.clone() else { return };
        let start = self.slots[winner].position;
        let fits = (BATCH_BYTES.saturating_sub(self.pending_bytes) / chunk.row_bytes).max(1);
        let room = start.saturating_add(fits.min(target - self.pending)).min(chunk.rows.rows());
        let end = if self.streak >= STREAK {
            self.takeover(winner, &chunk, start, room)
        } else {
            start + 1
        };
        match self.rules.versions {
            Versions::Newest => self.let_newest_through(winner, &chunk, start, end),
            Versions::Every => self.let_through(winner, &chunk, start, end),
            Versions::Since(since) => self.let_since_through(winner, &chunk, start..end, since),
        }
        self.slots[winner].position = end;
        if end == chunk.rows.rows() {
            self.release_last();
            self.hungry.push(winner);
            return;
        }
        self.replay(winner);
        self.streak = if self.tree[0] == winner { self.streak + 1 } else { 0 };
    }

    fn let_newest_through(&mut self, source: usize, chunk: &Arc<Chunk>, start: usize, end: usize) {
        let mut from = start;
        if self.is_last_key(chunk.keys.row(start).data()) {
            from += 1;
        }
        let puts_only = matches!(chunk.rows.stamps().ops, Ops::All(RowOp::Put));
        if chunk.unique && (puts_only || self.rules.keep_deletes) {
            self.let_through(source, chunk, from, end);
        } else {
            for row in from..end {
                let key = chunk.keys.row(row);
                let older =
                    if row == start { false } else { chunk.keys.row(row - 1).data() == key.data() };
                if older || (!self.rules.keep_deletes && chunk.rows.stamps().ops.deletes_at(row)) {
                    continue;
                }
                self.let_through(source, chunk, row, row + 1);
            }
        }
        self.last = LastKey::At(chunk.clone(), end - 1);
    }

    fn let_since_through(
        &mut self,
        source: usize,
        chunk: &Arc<Chunk>,
        rows: Range<usize>,
        since: u64,
    ) {
        let stamps = chunk.rows.stamps();
        for row in rows.clone() {
            let key = chunk.keys.row(row);
            let again = match row == rows.start {
                true => self.is_last_key(key.data()),
                false => chunk.keys.row(row - 1).data() == key.data(),
            };
            if again && self.settled {
                continue;
            }
            self.settled = stamps.epochs.at(row) <= since;
            let hides = self.settled && !self.rules.keep_deletes && stamps.ops.deletes_at(row);
            if !hides {
                self.let_through(source, chunk, row, row + 1);
            }
        }
        self.last = LastKey::At(chunk.clone(), rows.end - 1);
    }

    fn let_through(&mut self, source: usize, chunk: &Arc<Chunk>, start: usize, end: usize) {
        if start >= end {
            return;
        }
        let pin = match self.slots[source].pin {
            Some(pin) => pin,
            None => {
                self.pinned.push(chunk.clone());
                let pin = self.pinned.len() - 1;
                self.slots[source].pin = Some(pin);
                pin
            }
        };
        self.pending += end - start;
        self.pending_bytes = self.pending_bytes.saturating_add((end - start) * chunk.row_bytes);
        match self.segments.last_mut() {
            Some(last) if last.chunk == pin && last.end == start => last.end = end,
            _ => self.segments.push(Segment { chunk: pin, start, end }),
        }
    }
}

#[cfg(test)]
#[path = "merge_tests.rs"]
mod tests;
