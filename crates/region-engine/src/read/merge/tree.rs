//! The tree of losers: finds the next source, and how many of its rows precede all others.

use std::cmp::Ordering;

use super::{Chunk, Merge};

impl Merge {
    /// Returns the first row in `start + 1 .. end` that sorts after the head of every other source.
    pub(super) fn end_of_streak(
        &self,
        winner: usize,
        chunk: &Chunk,
        start: usize,
        end: usize,
    ) -> usize {
        let Some(rival) = self.runner_up(winner) else { return end };
        let Some(rival_chunk) = &self.slots[rival].chunk else { return end };
        let rival_row = self.slots[rival].position;
        let wins = |row: usize| {
            let order = compare(chunk, row, rival_chunk, rival_row).then(winner.cmp(&rival));
            order == Ordering::Less
        };
        // Gallop: double the step each time, then bisect the last interval.
        let mut low = start;
        let mut step = 1;
        loop {
            let probe = low + step;
            if probe >= end {
                break;
            }
            if !wins(probe) {
                return partition(low + 1, probe, wins);
            }
            low = probe;
            step *= 2;
        }
        partition(low + 1, end, wins)
    }

    /// The best of the other sources, which must have lost against the winner.
    fn runner_up(&self, winner: usize) -> Option<usize> {
        let mut node = (winner + self.slots.len()) / 2;
        let mut best: Option<usize> = None;
        while node > 0 {
            let rival = self.tree[node];
            if !self.slots[rival].ended && best.is_none_or(|best| self.beats(rival, best)) {
                best = Some(rival);
            }
            node /= 2;
        }
        best
    }

    fn beats(&self, a: usize, b: usize) -> bool {
        let left = &self.slots[a];
        let right = &self.slots[b];
        match (&left.chunk, &right.chunk) {
            (Some(x), Some(y)) => {
                compare(x, left.position, y, right.position).then(a.cmp(&b)) == Ordering::Less
            }
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (None, None) => a < b,
        }
    }

    /// Plays all matches.
    pub(super) fn build(&mut self) {
        let sources = self.slots.len();
        if sources == 0 {
            return;
        }
        // Winners of the sub-trees, leaves at `sources ..`.
        let mut winners = vec![0; 2 * sources];
        for source in 0..sources {
            winners[sources + source] = source;
        }
        self.tree = vec![0; sources];
        for node in (1..sources).rev() {
            let a = winners[2 * node];
            let b = winners[2 * node + 1];
            let (winner, loser) = if self.beats(a, b) { (a, b) } else { (b, a) };
            winners[node] = winner;
            self.tree[node] = loser;
        }
        self.tree[0] = if sources == 1 { 0 } else { winners[1] };
    }

    /// Plays the matches of one source again after its head has changed.
    pub(super) fn replay(&mut self, source: usize) {
        let mut winner = source;
        let mut node = (source + self.slots.len()) / 2;
        while node > 0 {
            if self.beats(self.tree[node], winner) {
                std::mem::swap(&mut self.tree[node], &mut winner);
            }
            node /= 2;
        }
        self.tree[0] = winner;
    }
}

/// Compares two rows by key, and within a key newest first.
fn compare(a: &Chunk, row_a: usize, b: &Chunk, row_b: usize) -> Ordering {
    a.keys.row(row_a).data().cmp(b.keys.row(row_b).data()).then_with(|| {
        let older = a.rows.stamps().sequences.at(row_a);
        let newer = b.rows.stamps().sequences.at(row_b);
        newer.cmp(&older)
    })
}

/// Returns the first position in `low .. high` for which `before` is false, `high` if there is
/// none.
fn partition(mut low: usize, mut high: usize, before: impl Fn(usize) -> bool) -> usize {
    while low < high {
        let middle = low + (high - low) / 2;
        if before(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}
