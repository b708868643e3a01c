//! Changes of the capabilities of one collection, joined.

use std::collections::BTreeMap;

use tidewater_common::ids::Epoch;

use crate::capabilities::MAX_CAPABILITY_EPOCHS;

/// Maximum number of different epochs in a batch: all capabilities of a collection can be replaced at once.
pub(crate) const MAX_CHANGED_EPOCHS: usize = 2 * MAX_CAPABILITY_EPOCHS;

/// Differences of the counts of epochs. None of them is 0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChangeBatch {
    changes: BTreeMap<Epoch, i64>,
}

/// Error of changes that cannot be joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// The sum of an epoch's differences is out of range.
    #[error("differences of epoch {epoch} are too large")]
    Overflow {
        /// The epoch.
        epoch: Epoch,
    },
    /// More than [`MAX_CHANGED_EPOCHS`] different epochs.
    #[error(
        "more than {} epochs are changed: send the changes in several calls",
        MAX_CHANGED_EPOCHS
    )]
    TooManyEpochs,
}

impl ChangeBatch {
    /// Joins changes: the differences of each epoch are added, and those of 0 left out. The order has no effect.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub fn joined(changes: impl IntoIterator<Item = (Epoch, i64)>) -> Result<Self, ChangeError> {
        let mut sums: BTreeMap<Epoch, i128> = BTreeMap::new();
        for (epoch, difference) in changes {
            let sum = sums.entry(epoch).or_default();
            // Wide sums: an overflow that later differences take back is none.
            *sum = sum.saturating_add(i128::from(difference));
            if sums.len() > MAX_CHANGED_EPOCHS {
                return Err(ChangeError::TooManyEpochs);
            }
        }
        let mut joined = BTreeMap::new();
        for (epoch, sum) in sums {
            let difference = i64::try_from(sum).map_err(|_| ChangeError::Overflow { epoch })?;
            if difference != 0 {
                joined.insert(epoch, difference);
            }
        }
        Ok(Self { changes: joined })
    }

    /// Returns the epochs with their differences, in ascending order.
    pub fn changes(&self) -> impl Iterator<Item = (Epoch, i64)> {
        self.changes.iter().map(|(epoch, difference)| (*epoch, *difference))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(changes: &[(u64, i64)]) -> Result<Vec<(u64, i64)>, ChangeError> {
        let changes = changes.iter().map(|(epoch, difference)| (Epoch(*epoch), *difference));
        let batch = ChangeBatch::joined(changes)?;
        Ok(batch.changes().map(|(epoch, difference)| (epoch.get(), difference)).collect())
    }

    #[test]
    fn differences_of_an_epoch_are_added() {
        assert_eq!(joined(&[(7, 2), (3, -1), (7, -5), (9, 4)]), Ok(vec![(3, -1), (7, -3), (9, 4)]));
    }

    #[test]
    fn differences_of_zero_are_left_out() {
        assert_eq!(joined(&[(7, 2), (3, 0), (7, -2)]), Ok(vec![]));
        let changes = [(Epoch(7), 1), (Epoch(7), -1)];
        assert_eq!(ChangeBatch::joined(changes), Ok(ChangeBatch::default()));
    }

    #[test]
    fn only_the_final_sum_can_overflow() {
        assert_eq!(joined(&[(7, i64::MAX), (7, 1), (7, -1)]), Ok(vec![(7, i64::MAX)]));
        for changes in [[(7, i64::MAX), (7, 1)], [(7, i64::MIN), (7, -1)]] {
            assert_eq!(joined(&changes), Err(ChangeError::Overflow { epoch: Epoch(7) }));
        }
    }

    #[test]
    fn number_of_epochs_is_bounded() {
        let changes = |count: usize| {
            let epochs = (0..u64::MAX).map(|epoch| (Epoch(epoch), 1));
            ChangeBatch::joined(epochs.take(count))
        };
        let most = changes(MAX_CHANGED_EPOCHS).unwrap();
        assert_eq!(most.changes().count(), MAX_CHANGED_EPOCHS);
        assert_eq!(changes(MAX_CHANGED_EPOCHS + 1), Err(ChangeError::TooManyEpochs));
    }
}
