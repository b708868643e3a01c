//! Capabilities: epochs that callers have added to keep them readable.

use std::num::NonZeroU64;

use tidewater_common::ids::Epoch;

use crate::change_batch::ChangeBatch;
use crate::epoch_counts::EpochCounts;

/// Maximum number of different epochs of the capabilities of a collection.
pub(crate) const MAX_CAPABILITY_EPOCHS: usize = 1_000;

/// Multiset of epochs. The least one limits since.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Capabilities {
    counts: EpochCounts,
}

/// Error of a change of capabilities. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CapabilityError {
    /// More capabilities are taken away than there are.
    #[error("{taken} capabilities at epoch {epoch} cannot be taken away: there are {present}")]
    TooFew {
        /// The epoch.
        epoch: Epoch,
        /// Number of capabilities at the epoch.
        present: u64,
        /// Number that the change takes away.
        taken: u64,
    },
    /// The count of an epoch is out of range.
    #[error("too many capabilities at epoch {epoch}")]
    Overflow {
        /// The epoch.
        epoch: Epoch,
    },
    /// More than [`MAX_CAPABILITY_EPOCHS`] different epochs.
    #[error("more than {} epochs have capabilities: take earlier ones away", MAX_CAPABILITY_EPOCHS)]
    TooManyEpochs,
    /// A new capability is below since.
    #[error("epoch {requested} can no longer be read: the oldest for a capability is {since}")]
    BelowSince {
        /// Epoch of the capability.
        requested: Epoch,
        /// Since of the collection.
        since: Epoch,
    },
}

impl Capabilities {
    /// Reads stored counts. Those of the same epoch are added.
    ///
    /// # Errors
    /// [`CapabilityError::Overflow`] and [`CapabilityError::TooManyEpochs`].
    pub fn from_counts(
        counts: impl IntoIterator<Item = (Epoch, NonZeroU64)>,
    ) -> Result<Self, CapabilityError> {
        let mut read = Self::default();
        for (epoch, count) in counts {
            let sum = read.counts.get(epoch).checked_add(count.get());
            read.counts.set(epoch, sum.ok_or(CapabilityError::Overflow { epoch })?);
            read.check_distinct()?;
        }
        Ok(read)
    }

    /// Returns the capabilities after a batch of changes.
    ///
    /// # Errors
    /// [`CapabilityError::TooFew`], [`CapabilityError::Overflow`] and [`CapabilityError::TooManyEpochs`].
    pub fn checked_apply(&self, batch: &ChangeBatch) -> Result<Self, CapabilityError> {
        let mut next = self.clone();
        for (epoch, difference) in batch.changes() {
            let present = next.counts.get(epoch);
            let count = present.checked_add_signed(difference).ok_or_else(|| {
                if difference < 0 {
                    CapabilityError::TooFew { epoch, present, taken: difference.unsigned_abs() }
                } else {
                    CapabilityError::Overflow { epoch }
                }
            })?;
            next.counts.set(epoch, count);
        }
        // Only after all changes: a batch may replace all epochs.
        next.check_distinct()?;
        Ok(next)
    }

    /// Returns the least epoch; `None`: there are no capabilities.
    pub fn least(&self) -> Option<Epoch> {
        self.counts.least()
    }

    /// Returns the epochs with their counts, in ascending order.
    pub fn counts(&self) -> impl Iterator<Item = (Epoch, NonZeroU64)> {
        self.counts.iter()
    }

    fn check_distinct(&self) -> Result<(), CapabilityError> {
        if self.counts.distinct() > MAX_CAPABILITY_EPOCHS {
            return Err(CapabilityError::TooManyEpochs);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(changes: impl IntoIterator<Item = (u64, i64)>) -> ChangeBatch {
        let changes = changes.into_iter().map(|(epoch, difference)| (Epoch(epoch), difference));
        ChangeBatch::joined(changes).unwrap()
    }

    fn capabilities(counts: impl IntoIterator<Item = (u64, i64)>) -> Capabilities {
        Capabilities::default().checked_apply(&batch(counts)).unwrap()
    }

    #[test]
    fn least_capability_holds() {
        let before = capabilities([(7, 2), (5, 1)]);
        assert_eq!(before.least(), Some(Epoch(5)));
        let after = before.checked_apply(&batch([(5, -1), (9, 1)])).unwrap();
        assert_eq!(after, capabilities([(7, 2), (9, 1)]));
        assert_eq!(after.least(), Some(Epoch(7)));
        let none = after.checked_apply(&batch([(7, -2), (9, -1)])).unwrap();
        assert_eq!((none.least(), none.counts().count()), (None, 0));
    }

    #[test]
    fn absent_capabilities_cannot_be_taken_away() {
        let before = capabilities([(7, 2)]);
        let refused = before.checked_apply(&batch([(7, -3), (9, 1)]));
        let expected = CapabilityError::TooFew { epoch: Epoch(7), present: 2, taken: 3 };
        assert_eq!(refused, Err(expected));
        let refused = before.checked_apply(&batch([(6, i64::MIN)]));
        let expected = CapabilityError::TooFew { epoch: Epoch(6), present: 0, taken: 1 << 63 };
        assert_eq!(refused, Err(expected));
        assert_eq!(before, capabilities([(7, 2)]));
    }

    #[test]
    fn counts_are_bounded() {
        let half = batch([(7, i64::MAX)]);
        let most = Capabilities::default().checked_apply(&half).unwrap();
        let most = most.checked_apply(&half).unwrap();
        let most = most.checked_apply(&batch([(7, 1)])).unwrap();
        let overflow = CapabilityError::Overflow { epoch: Epoch(7) };
        assert_eq!(most.checked_apply(&batch([(7, 1)])), Err(overflow));
        let stored: Vec<_> = most.counts().collect();
        assert_eq!(stored, [(Epoch(7), NonZeroU64::MAX)]);
        assert_eq!(Capabilities::from_counts(stored.clone()), Ok(most));
        let twice = stored.into_iter().chain([(Epoch(7), NonZeroU64::MIN)]);
        assert_eq!(Capabilities::from_counts(twice), Err(overflow));
    }

    #[test]
    fn number_of_epochs_is_bounded() {
        let last = MAX_CAPABILITY_EPOCHS as u64;
        let most = capabilities((0..last).map(|epoch| (epoch, 1)));
        let refused = most.checked_apply(&batch([(last, 1)]));
        assert_eq!(refused, Err(CapabilityError::TooManyEpochs));
        // As many others at once.
        let others = (0..last).flat_map(|epoch| [(epoch, -1), (last + epoch, 1)]);
        let replaced = most.checked_apply(&batch(others)).unwrap();
        assert_eq!(replaced.least(), Some(Epoch(last)));
        let stored = (0..=last).map(|epoch| (Epoch(epoch), NonZeroU64::MIN));
        assert_eq!(Capabilities::from_counts(stored), Err(CapabilityError::TooManyEpochs));
    }
}
