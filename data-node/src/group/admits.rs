//! Operations that the state of a region admits: one table, for the leader's checks and for apply.

use tidewater_common::ids::RegionId;
use tidewater_proto::v1::Reason;

use super::entry::EntryOutcome;

/// State of a region in its group's registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServingState {
    /// Admits everything.
    Active,
    /// Admits nothing that the manifest must record: the region is about to be split or merged.
    Held,
    /// Admits no writes either: the region is about to be merged.
    Fenced,
    /// As fenced: another group is about to take the region over.
    Departing,
    /// The group has taken the region over, and does not serve it yet.
    Arriving,
    /// Its children have replaced it: they serve calls that name it.
    Replaced,
}

/// Operation on a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// A scan, a count or a point read.
    Read,
    /// Rows of a write.
    Write,
    /// A decision that the manifest must record: an alteration, a truncation, a step of a staging area.
    Decide,
    /// A manifest version of the owner: a flush, a compaction.
    Advance,
    /// The preparation of a split, merge or move, or its abandonment.
    Hold,
    /// The replacement by several children.
    Split,
    /// The replacement of several regions by one child.
    Merge,
    /// The end, after the replacement.
    Close,
    /// The end, after another group has taken the region over.
    Release,
    /// The begin of the service by a group that has received the region.
    Activate,
}

/// Regions that carry out an operation that a state admits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// The region.
    Region,
    /// The children that have replaced it.
    Children,
}

/// Returns which region carries out an operation.
///
/// # Errors
/// [`Reason::RouteBusy`], [`Reason::RouteWriteFenced`]: the state does not admit it. [`Reason::RouteMoved`]: its
/// children do.
pub fn admit(
    state: ServingState,
    operation: Operation,
    region: RegionId,
) -> Result<Server, EntryOutcome> {
    use Operation::{Activate, Advance, Close, Decide, Hold, Merge, Read, Release, Split, Write};
    let because =
        |reason, text: &str| Err(EntryOutcome::refused(reason, format!("region {region} {text}")));
    let refused = |text: &str| because(Reason::RouteBusy, text);
    match (state, operation) {
        (ServingState::Active, Read | Write | Decide | Advance | Hold)
        | (ServingState::Held, Read | Write | Advance | Hold | Split)
        | (ServingState::Fenced, Read | Advance | Hold | Merge)
        | (ServingState::Departing, Read | Advance | Hold | Release)
        | (ServingState::Arriving, Advance | Activate)
        | (ServingState::Replaced, Close) => Ok(Server::Region),
        (ServingState::Replaced, Read | Write) => Ok(Server::Children),
        (ServingState::Active, Split) => refused("is not held: it cannot be split"),
        (ServingState::Active | ServingState::Held, Merge) => {
            refused("is not fenced: it cannot be merged")
        }
        (ServingState::Departing, Write) => {
            because(Reason::RouteWriteFenced, "is being moved: repeat the write")
        }
        (ServingState::Arriving, Read | Write) => {
            because(Reason::RouteWriteFenced, "is about to be served by this group: retry")
        }
        (ServingState::Fenced, Split) => refused("is being merged: it cannot be split"),
        (ServingState::Fenced, Write) => {
            because(Reason::RouteWriteFenced, "is being merged: repeat the write")
        }
        (ServingState::Held | ServingState::Fenced, Decide) => {
            refused("is being split, merged or moved: repeat the operation after that")
        }
        (ServingState::Departing | ServingState::Arriving, Decide | Hold | Split | Merge) => {
            refused("is being moved: repeat the operation after that")
        }
        (
            ServingState::Active
            | ServingState::Held
            | ServingState::Fenced
            | ServingState::Departing
            | ServingState::Arriving,
            Close,
        ) => refused("has not been replaced by children: it cannot be closed"),
        (ServingState::Replaced, Decide) => {
            because(Reason::RouteMoved, "has been replaced: refresh the catalog")
        }
        (ServingState::Replaced, Advance | Hold | Split | Merge) => refused("has been replaced"),
        (_, Release) => refused("is not fenced for a move: it cannot be released"),
        (_, Activate) => refused("has not been received from another group"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_admit_operations_cell_by_cell() {
        use Operation::{
            Activate, Advance, Close, Decide, Hold, Merge, Read, Release, Split, Write,
        };
        let operations =
            [Read, Write, Decide, Advance, Hold, Split, Merge, Close, Release, Activate];
        // R: the region, C: its children, -: refused, F: refused for a short time, M: refused, since it has moved to
        // the children.
        for (state, cells) in [
            (ServingState::Active, "RRRRR-----"),
            (ServingState::Held, "RR-RRR----"),
            (ServingState::Fenced, "RF-RR-R---"),
            (ServingState::Departing, "RF-RR---R-"),
            (ServingState::Arriving, "FF-R-----R"),
            (ServingState::Replaced, "CCM----R--"),
        ] {
            for (operation, cell) in operations.into_iter().zip(cells.chars()) {
                let found = match admit(state, operation, RegionId(7)) {
                    Ok(Server::Region) => 'R',
                    Ok(Server::Children) => 'C',
                    Err(EntryOutcome::Refused { reason: Reason::RouteBusy, .. }) => '-',
                    Err(EntryOutcome::Refused { reason: Reason::RouteMoved, .. }) => 'M',
                    Err(EntryOutcome::Refused { reason: Reason::RouteWriteFenced, .. }) => 'F',
                    Err(other) => panic!("{other:?}"),
                };
                assert_eq!(found, cell, "{state:?}, {operation:?}");
            }
        }
    }
}
