//! States of a region and the transitions between them.

use tidewater_common::ids::{OwnerEpoch, RegionId};

use crate::EngineError;

/// State of a region on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The manifest has not been read: writes are applied, reads fail.
    Loading,
    /// Serves reads and writes; another replica owns the region, or it has no owner yet.
    Following,
    /// Serves reads and writes, and flushes.
    Owning(OwnerEpoch),
    /// A later owner has replaced this one; otherwise like `Following`.
    Fenced(OwnerEpoch),
    /// The region was dropped.
    Removed,
    /// The region was closed on this node.
    Closed,
}

impl Phase {
    /// Transition when the manifest was read: it names `owner`, or is marked removed.
    pub(super) fn on_loaded(self, owner: Option<OwnerEpoch>, removed: bool) -> Self {
        match self {
            Self::Closed => Self::Closed,
            _ if removed => Self::Removed,
            Self::Loading => Self::Following,
            Self::Owning(own) => match owner {
                Some(later) if later > own => Self::Fenced(later),
                _ => Self::Owning(own),
            },
            Self::Following | Self::Fenced(_) | Self::Removed => self,
        }
    }

    /// Transition when the fence of `own` was committed.
    pub(super) fn on_owned(self, own: OwnerEpoch) -> Self {
        match self {
            Self::Closed | Self::Removed => self,
            Self::Fenced(later) if later > own => self,
            Self::Owning(later) if later > own => self,
            _ => Self::Owning(own),
        }
    }

    /// Transition when a later owner was found.
    pub(super) fn on_fenced(self, later: OwnerEpoch) -> Self {
        match self {
            Self::Owning(own) if own >= later => self,
            Self::Fenced(known) if known >= later => self,
            Self::Closed | Self::Removed => self,
            _ => Self::Fenced(later),
        }
    }

    /// Transition when the region is closed.
    pub(super) fn on_closed(self) -> Self {
        Self::Closed
    }

    /// Returns an error unless the region serves reads.
    pub(super) fn check_read(self, region: RegionId) -> Result<(), EngineError> {
        match self {
            Self::Loading => Err(EngineError::Loading { region }),
            Self::Removed => Err(EngineError::Removed { region }),
            Self::Closed => Err(EngineError::Closed { region }),
            Self::Following | Self::Owning(_) | Self::Fenced(_) => Ok(()),
        }
    }

    /// Returns the epoch of this replica's ownership, or an error if it is not the owner.
    pub(super) fn check_owner(self, region: RegionId) -> Result<OwnerEpoch, EngineError> {
        match self {
            Self::Owning(own) => Ok(own),
            Self::Removed => Err(EngineError::Removed { region }),
            Self::Closed => Err(EngineError::Closed { region }),
            Self::Loading | Self::Following | Self::Fenced(_) => {
                Err(EngineError::NotOwner { region })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tidewater_common::ids::Term;

    use super::*;

    fn epoch(term: u64) -> OwnerEpoch {
        OwnerEpoch { move_epoch: 0, term: Term(term) }
    }

    #[test]
    fn phase_transitions_ignore_older_owners() {
        use Phase::{Closed, Fenced, Following, Loading, Owning, Removed};
        let one = epoch(1);
        let two = epoch(2);
        let cases = [
            (Loading.on_loaded(None, false), Following),
            (Loading.on_loaded(Some(two), false), Following),
            (Loading.on_loaded(None, true), Removed),
            (Owning(one).on_loaded(Some(one), false), Owning(one)),
            (Owning(one).on_loaded(Some(two), false), Fenced(two)),
            (Closed.on_loaded(None, true), Closed),
            (Loading.on_owned(one), Owning(one)),
            (Following.on_owned(one), Owning(one)),
            (Fenced(two).on_owned(one), Fenced(two)),
            (Fenced(one).on_owned(two), Owning(two)),
            (Owning(two).on_owned(one), Owning(two)),
            (Removed.on_owned(two), Removed),
            (Owning(one).on_fenced(two), Fenced(two)),
            (Owning(two).on_fenced(one), Owning(two)),
            (Closed.on_fenced(two), Closed),
            (Removed.on_closed(), Closed),
        ];
        for (index, (got, expected)) in cases.into_iter().enumerate() {
            assert_eq!(got, expected, "case {index}");
        }
    }

    #[test]
    fn check_read_and_check_owner_depend_on_phase() {
        let region = RegionId(7);
        assert!(matches!(Phase::Loading.check_read(region), Err(EngineError::Loading { .. })));
        assert!(matches!(Phase::Removed.check_read(region), Err(EngineError::Removed { .. })));
        assert!(matches!(Phase::Closed.check_read(region), Err(EngineError::Closed { .. })));
        assert!(Phase::Fenced(epoch(1)).check_read(region).is_ok());
        assert_eq!(Phase::Owning(epoch(1)).check_owner(region).unwrap(), epoch(1));
        for phase in [Phase::Loading, Phase::Following, Phase::Fenced(epoch(1))] {
            assert!(matches!(phase.check_owner(region), Err(EngineError::NotOwner { .. })));
        }
    }
}
