//! Which versions of a key a merge emits.

use std::ops::Range;
use std::sync::Arc;

use super::{Chunk, Merge};
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

    /// Emits the newest version of each epoch after `since`, and the newest of `since` or before of each key: no read as
    /// of an epoch returns another one.
    pub(super) fn emit_since(
        &mut self,
        source: usize,
        chunk: &Arc<Chunk>,
        rows: Range<usize>,
        since: u64,
    ) {
        let stamps = chunk.rows.stamps();
        let puts_only = matches!(stamps.ops, Ops::All(RowOp::Put));
        if chunk.unique && (puts_only || self.rules.keep_deletes) {
            let again = self.is_last_key(chunk.keys.row(rows.start).data());
            let hidden = again && self.is_hidden(stamps.epochs.at(rows.start), since);
            self.repeats |= again && !hidden;
            let from = rows.start + usize::from(hidden);
            if from < rows.end {
                self.last_epoch = stamps.epochs.at(rows.end - 1);
            }
            self.emit(source, chunk, from, rows.end);
        } else {
            for row in rows.clone() {
                self.emit_row_since(source, chunk, row, row == rows.start, since);
            }
        }
        self.last = LastKey::At(chunk.clone(), rows.end - 1);
    }

    fn emit_row_since(
        &mut self,
        source: usize,
        chunk: &Arc<Chunk>,
        row: usize,
        is_first: bool,
        since: u64,
    ) {
        let stamps = chunk.rows.stamps();
        let key = chunk.keys.row(row);
        let again = if is_first {
            self.is_last_key(key.data())
        } else {
            chunk.keys.row(row - 1).data() == key.data()
        };
        let epoch = stamps.epochs.at(row);
        if again && self.is_hidden(epoch, since) {
            return;
        }
        self.last_epoch = epoch;
        let hides = epoch <= since && !self.rules.keep_deletes && stamps.ops.deletes_at(row);
        if !hides {
            self.repeats |= again;
            self.emit(source, chunk, row, row + 1);
        }
    }

    /// Returns whether the last version hides an older one of its key from every read as of `since` or later.
    fn is_hidden(&self, epoch: u64, since: u64) -> bool {
        self.last_epoch <= since || epoch >= self.last_epoch
    }

    /// Emits the rows `start..end` of a chunk.
    pub(super) fn emit(&mut self, source: usize, chunk: &Arc<Chunk>, start: usize, end: usize) {
        if start >= end {
            return;
        }
        if self.counts_only {
            self.pending += end - start;
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
