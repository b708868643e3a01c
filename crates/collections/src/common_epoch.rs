//! Epoch of holds of several collections.

use tidewater_common::ids::Epoch;

/// Error of a common epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CommonEpochError {
    /// There are no collections.
    #[error("no collections are named: name at least one")]
    NoCollections,
    /// The requested epoch can no longer be read in one of the collections.
    #[error(
        "epoch {requested} can no longer be read: the earliest of all collections is {earliest}"
    )]
    BelowSince {
        /// Requested epoch.
        requested: Epoch,
        /// Earliest epoch that all collections can be read at.
        earliest: Epoch,
    },
}

/// Returns the epoch at which holds of several collections are acquired: the requested one, or else the earliest that all of
/// them can be read at, which is the greatest since.
///
/// # Errors
/// [`CommonEpochError`].
pub fn earliest_common(
    sinces: &[Epoch],
    requested: Option<Epoch>,
) -> Result<Epoch, CommonEpochError> {
    let earliest = sinces.iter().copied().max().ok_or(CommonEpochError::NoCollections)?;
    match requested {
        Some(requested) if requested < earliest => {
            Err(CommonEpochError::BelowSince { requested, earliest })
        }
        Some(requested) => Ok(requested),
        None => Ok(earliest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_epoch_is_the_greatest_since() {
        let sinces = [Epoch(4), Epoch(9), Epoch(7)];
        for (requested, expected) in [
            (None, Ok(Epoch(9))),
            (Some(Epoch(9)), Ok(Epoch(9))),
            (Some(Epoch(12)), Ok(Epoch(12))),
            (
                Some(Epoch(8)),
                Err(CommonEpochError::BelowSince { requested: Epoch(8), earliest: Epoch(9) }),
            ),
        ] {
            assert_eq!(earliest_common(&sinces, requested), expected, "{requested:?}");
        }
        for requested in [None, Some(Epoch(9))] {
            assert_eq!(earliest_common(&[], requested), Err(CommonEpochError::NoCollections));
        }
    }
}
