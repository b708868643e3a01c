//! Which versions of a key a merge emits.

use std::ops::Range;
use std::sync::Arc;

use super::{Chunk, KeptSinces, Merge};
use crate::read::assemble::Segment;
use crate::row_versions::{Ops, RowOp};

/// The last key processed, to recognize older versions of it.
#[derive(Debug)]
pub(super) enum LastKey {
    None,
    At(Arc<Chunk>, usize),
    Bytes,
}

impl Merge {
    /// Copies the last key, so that its chunk is no longer held.
    pub(super) fn release_last(&mut self) {
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

    /// Emits the newest version of each key in the rows `start..end` of a chunk.
    pub(super) fn emit_newest(
        &mut self,
        source: usize,
        chunk: &Arc<Chunk>,
        start: usize,
        end: usize,
    ) {
        let mut from = start;
        if self.is_last_key(chunk.keys.row(start).data()) {
            from += 1;
        }
        let puts_only = matches!(chunk.rows.stamps().ops, Ops::All(RowOp::Put));
        if chunk.unique && (puts_only || self.rules.keep_deletes) {
            self.emit(source, chunk, from, end);
        } else {
            for row in from..end {
                let key = chunk.keys.row(row);
                let older =
                    if row == start { false } else { chunk.keys.row(row - 1).data() == key.data() };
                if older || (!self.rules.keep_deletes && chunk.rows.stamps().ops.deletes_at(row)) {
                    continue;
                }
                self.emit(source, chunk, row, row + 1);
            }
        }
        self.last = LastKey::At(chunk.clone(), end - 1);
    }

    /// Emits those of these rows that are kept for `since`: no read as of it or of a later epoch returns another one.
    /// If versions are counted, counts each of the rows for the sinces for which it is kept.
    pub(super) fn emit_since(
        &mut self,
        source: usize,
        chunk: &Arc<Chunk>,
        rows: Range<usize>,
        since: u64,
    ) {
        let stamps = chunk.rows.stamps();
        let puts_only = matches!(stamps.ops, Ops::All(RowOp::Put));
        let again = self.is_last_key(chunk.keys.row(rows.start).data());
        if chunk.unique && (puts_only || self.rules.keep_deletes) {
            let mut from = rows.start;
            if again {
                self.emit_row_since(source, chunk, from, again, since);
                from += 1;
            }
            // The newest versions of their keys: kept for every since.
            if from < rows.end {
                self.least_epoch = stamps.epochs.at(rows.end - 1);
            }
            self.emit(source, chunk, from, rows.end);
        } else {
            self.emit_row_since(source, chunk, rows.start, again, since);
            for row in rows.start + 1..rows.end {
                let again = chunk.keys.row(row - 1).data() == chunk.keys.row(row).data();
                self.emit_row_since(source, chunk, row, again, since);
            }
        }
        self.last = LastKey::At(chunk.clone(), rows.end - 1);
    }

    /// Emits or counts one row. `again`: it is a version of the same key as the row before it.
    fn emit_row_since(
        &mut self,
        source: usize,
        chunk: &Arc<Chunk>,
        row: usize,
        again: bool,
        since: u64,
    ) {
        let stamps = chunk.rows.stamps();
        let epoch = stamps.epochs.at(row);
        let newer = again.then_some(self.least_epoch);
        let is_needless_delete = !self.rules.keep_deletes && stamps.ops.deletes_at(row);
        let kept = KeptSinces::of(newer, epoch, is_needless_delete);
        self.least_epoch = newer.map_or(epoch, |newer| newer.min(epoch));
        if let Some(counts) = &mut self.counts {
            counts.add(kept, 1);
        } else if kept.contains(since) {
            self.repeats |= again;
            self.emit(source, chunk, row, row + 1);
        }
    }

    /// Emits the rows `start..end` of a chunk.
    pub(super) fn emit(&mut self, source: usize, chunk: &Arc<Chunk>, start: usize, end: usize) {
        if start >= end {
            return;
        }
        if let Some(counts) = &mut self.counts {
            counts.add(KeptSinces::All, (end - start) as u64);
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
