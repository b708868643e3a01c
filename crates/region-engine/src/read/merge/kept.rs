//! Rule by which row versions are kept for reads as of older epochs (pure), and counts by it.
//!
//! - **Since**: the oldest epoch that reads may be as of.
//!
//! A read as of an epoch returns, of the versions of a key up to that epoch, the newest one. A version is therefore
//! returned by reads from its own epoch on, and before that of the next newer version. It is kept for each since that
//! is before the latter: if it is kept for a since, it is also kept for all earlier ones.

use std::collections::BTreeSet;
use std::sync::Arc;

use tidewater_common::ids::Epoch;

use crate::row_versions::{Ops, RowOp, RowVersions};

/// Sinces for which a version is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeptSinces {
    /// Those before this epoch; 0: none.
    Before(u64),
    /// All.
    All,
}

impl KeptSinces {
    /// Returns the sinces for which a version of an epoch is kept. `newer`: least epoch of the newer versions of its
    /// key; `None`: there are none. `is_needless_delete`: the version is a delete, and nothing remains that it hides
    /// once the older versions of its key are dropped.
    pub(crate) fn of(newer: Option<u64>, epoch: u64, is_needless_delete: bool) -> Self {
        match newer {
            // The newer version hides it from all reads.
            Some(newer) if epoch >= newer => Self::Before(0),
            // From its epoch on, no older version is kept.
            _ if is_needless_delete => Self::Before(epoch),
            Some(newer) => Self::Before(newer),
            None => Self::All,
        }
    }

    /// Returns whether the version is kept for this since.
    pub(crate) fn contains(self, since: u64) -> bool {
        match self {
            Self::Before(epoch) => since < epoch,
            Self::All => true,
        }
    }
}

/// Numbers of versions that are kept for some sinces.
#[derive(Debug, Clone)]
pub(crate) struct KeptCounts {
    /// In ascending order, without duplicates.
    sinces: Arc<[u64]>,
    /// At position `n` the number of versions that are kept for the first `n` sinces, and for no other one.
    numbers: Vec<u64>,
}

impl KeptCounts {
    /// Creates counts of 0. `sinces`: in any order, duplicates permitted.
    pub(crate) fn new(sinces: &[Epoch]) -> Self {
        let sinces: BTreeSet<u64> = sinces.iter().map(|since| since.get()).collect();
        let numbers = vec![0; sinces.len() + 1];
        Self { sinces: sinces.into_iter().collect(), numbers }
    }

    /// Returns counts of 0 for the same sinces.
    pub(crate) fn cleared(&self) -> Self {
        Self { sinces: self.sinces.clone(), numbers: vec![0; self.numbers.len()] }
    }

    /// Adds versions that are kept for these sinces.
    pub(crate) fn add(&mut self, kept: KeptSinces, versions: u64) {
        let first = self.sinces.partition_point(|since| kept.contains(*since));
        self.numbers[first] += versions;
    }

    /// Adds rows that are the only versions of their keys, without deletes that hide nothing.
    pub(crate) fn add_only_versions(&mut self, rows: &RowVersions) {
        let stamps = rows.stamps();
        if let Ops::All(RowOp::Put) = stamps.ops {
            self.add(KeptSinces::All, rows.rows() as u64);
            return;
        }
        for row in 0..rows.rows() {
            let kept = KeptSinces::of(None, stamps.epochs.at(row), stamps.ops.deletes_at(row));
            self.add(kept, 1);
        }
    }

    /// Moves the counts of `other`, which are of the same sinces.
    pub(crate) fn append(&mut self, other: &mut Self) {
        for (total, number) in self.numbers.iter_mut().zip(&mut other.numbers) {
            *total += std::mem::take(number);
        }
    }

    /// Returns the number of versions that are kept for one of the sinces.
    pub(crate) fn of(&self, since: Epoch) -> u64 {
        let earlier = self.sinces.partition_point(|other| *other < since.get());
        self.numbers.iter().skip(earlier + 1).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_is_kept_until_newer_one_hides_it() {
        // Least newer epoch, epoch, needless delete, sinces.
        for (newer, epoch, is_needless_delete, expected) in [
            (None, 5, false, KeptSinces::All),
            (None, 5, true, KeptSinces::Before(5)),
            (None, 0, true, KeptSinces::Before(0)),
            (Some(7), 5, false, KeptSinces::Before(7)),
            (Some(7), 5, true, KeptSinces::Before(5)),
            (Some(5), 5, false, KeptSinces::Before(0)),
            (Some(5), 5, true, KeptSinces::Before(0)),
            (Some(4), 5, false, KeptSinces::Before(0)),
        ] {
            let kept = KeptSinces::of(newer, epoch, is_needless_delete);
            assert_eq!(kept, expected, "{newer:?}, {epoch}, {is_needless_delete}");
        }
    }

    #[test]
    fn counts_add_up_for_sinces_in_any_order() {
        let sinces = [6, 2, 9, 2].map(Epoch);
        let mut counts = KeptCounts::new(&sinces);
        counts.add(KeptSinces::All, 100);
        counts.add(KeptSinces::Before(7), 10);
        counts.add(KeptSinces::Before(6), 1);
        counts.add(KeptSinces::Before(2), 1_000);
        let found = |counts: &KeptCounts| sinces.map(|since| counts.of(since));
        assert_eq!(found(&counts), [110, 111, 100, 111]);
        let mut totals = counts.cleared();
        assert_eq!(found(&totals), [0; 4]);
        totals.add(KeptSinces::Before(9), 2);
        totals.append(&mut counts);
        assert_eq!((found(&totals), found(&counts)), ([112, 113, 100, 113], [0; 4]));
    }
}
