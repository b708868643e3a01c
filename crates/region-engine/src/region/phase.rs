//! The states of a region and how they follow each other.

use tidewater_common::ids::{OwnerEpoch, RegionId};

use crate::EngineError;

/// Where a region stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The manifest has not been read: writes are applied, reads are refused.
    Loading,
    /// Reads and writes; another replica owns the region, or nobody yet.
    Following,
    /// Reads, writes and flushes.
    Owning(OwnerEpoch),
    /// This replica owned the region until a later owner came: as following.
    Fenced(OwnerEpoch),
    /// The region was dropped.
    Removed,
    /// Put down on this node.
    Closed,
}

impl Phase {
    /// The manifest has been read and names `owner`, or is marked removed.
    pub(super) fn loaded(self, owner: Option<OwnerEpoch>, removed: bool) -> Self {
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

    /// The fence of `own` has been committed.
    pub(super) fn owned(self, own: OwnerEpoch) -> Self {
        match self {
            Self::Closed | Self::Removed => self,
            Self::Fenced(later) if later > own => self,
            Self::Owning(later) if later > own => self,
            _ => Self::Owning(own),
        }
    }

    /// A later owner was found.
    pub(super) fn fenced(self, later: OwnerEpoch) -> Self {
        match self {
            Self::Owning(own) if own >= later => self,
            Self::Fenced(known) if known >= later => self,
            Self::Closed | Self::Removed => self,
            _ => Self::Fenced(later),
        }
    }

    /// The region was put down.
    pub(super) fn closed(self) -> Self {
        Self::Closed
    }

    /// Whether reads are served.
    pub(super) fn check_read(self, region: RegionId) -> Result<(), EngineError> {
        match self {
            Self::Loading => Err(EngineError::Loading { region }),
            Self::Removed => Err(EngineError::Removed { region }),
            Self::Closed => Err(EngineError::Closed { region }),
            Self::Following | Self::Owning(_) | Self::Fenced(_) => Ok(()),
        }
    }

    /// Who owns the region, if this replica does.
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
    fn phases_follow_each_other() {
        use Phase::{Closed, Fenced, Following, Loading, Owning, Removed};
        let (one, two) = (epoch(1), epoch(2));
        let cases = [
            (Loading.loaded(None, false), Following),
            (Loading.loaded(Some(two), false), Following),
            (Loading.loaded(None, true), Removed),
            (Owning(one).loaded(Some(one), false), Owning(one)),
            (Owning(one).loaded(Some(two), false), Fenced(two)),
            (Closed.loaded(None, true), Closed),
            (Loading.owned(one), Owning(one)),
            (Following.owned(one), Owning(one)),
            (Fenced(two).owned(one), Fenced(two)),
            (Fenced(one).owned(two), Owning(two)),
            (Owning(two).owned(one), Owning(two)),
            (Removed.owned(two), Removed),
            (Owning(one).fenced(two), Fenced(two)),
            (Owning(two).fenced(one), Owning(two)),
            (Closed.fenced(two), Closed),
            (Removed.closed(), Closed),
        ];
        for (index, (got, expected)) in cases.into_iter().enumerate() {
            assert_eq!(got, expected, "case {index}");
        }
    }

    #[test]
    fn only_an_owner_flushes_and_nobody_reads_what_is_loading() {
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
