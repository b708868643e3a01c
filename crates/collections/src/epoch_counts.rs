//! Multisets of epochs, whose least epoch is found in logarithmic time.

use std::collections::BTreeMap;
use std::num::NonZeroU64;

use tidewater_common::ids::Epoch;

/// Epochs with their counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct EpochCounts {
    counts: BTreeMap<Epoch, NonZeroU64>,
}

impl EpochCounts {
    /// Returns the count of an epoch.
    pub(crate) fn get(&self, epoch: Epoch) -> u64 {
        self.counts.get(&epoch).copied().map_or(0, NonZeroU64::get)
    }

    /// Sets the count of an epoch; 0 removes it.
    pub(crate) fn set(&mut self, epoch: Epoch, count: u64) {
        match NonZeroU64::new(count) {
            Some(count) => self.counts.insert(epoch, count),
            None => self.counts.remove(&epoch),
        };
    }

    /// Returns the least epoch.
    pub(crate) fn least(&self) -> Option<Epoch> {
        self.counts.keys().next().copied()
    }

    /// Returns the number of different epochs.
    pub(crate) fn distinct(&self) -> usize {
        self.counts.len()
    }

    /// Returns the epochs with their counts, in ascending order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Epoch, NonZeroU64)> {
        self.counts.iter().map(|(epoch, count)| (*epoch, *count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn least_epoch_follows_the_counts() {
        let mut counts = EpochCounts::default();
        assert_eq!((counts.least(), counts.distinct()), (None, 0));
        counts.set(Epoch(9), 1);
        counts.set(Epoch(4), 2);
        assert_eq!((counts.least(), counts.distinct()), (Some(Epoch(4)), 2));
        assert_eq!((counts.get(Epoch(4)), counts.get(Epoch(5))), (2, 0));
        let listed: Vec<_> =
            counts.iter().map(|(epoch, count)| (epoch.get(), count.get())).collect();
        assert_eq!(listed, [(4, 2), (9, 1)]);
        counts.set(Epoch(4), 0);
        assert_eq!((counts.least(), counts.distinct()), (Some(Epoch(9)), 1));
    }
}
