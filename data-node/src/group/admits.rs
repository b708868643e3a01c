//! Operations that the state of a region admits: one table, for the leader's checks and for apply.

use tidewater_common::ids::RegionId;
use tidewater_proto::v1::Reason;

use super::entry::EntryOutcome;

/// State of a region in its group's registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServingState {
    /// Admits everything.
    Active,
    /// Admits nothing that the manifest must record: the region is about to be split.
    Held,
    /// Its children have replaced it: they serve calls that name it.
    Divided,
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
    /// The beginning of a split, or its abandonment.
    Hold,
    /// The replacement by children.
    Split,
    /// The end, after the replacement.
    Close,
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
/// [`Reason::RouteBusy`]: the state does not admit it. [`Reason::RouteMoved`]: its children do.
pub fn admit(
    state: ServingState,
    operation: Operation,
    region: RegionId,
) -> Result<Server, EntryOutcome> {
    use Operation::{Advance, Close, Decide, Hold, Read, Split, Write};
    let refused = |text: &str| {
        let text = format!("region {region} {text}");
        Err(EntryOutcome::refused(Reason::RouteBusy, text))
    };
    match (state, operation) {
        (ServingState::Active, Read | Write | Decide | Advance | Hold) => Ok(Server::Region),
        (ServingState::Active, Split) => refused("is not held: it cannot be split"),
        (ServingState::Active | ServingState::Held, Close) => {
            refused("has not been replaced by children: it cannot be closed")
        }
        (ServingState::Held, Read | Write | Advance | Hold | Split) => Ok(Server::Region),
        (ServingState::Held, Decide) => refused("is being split: repeat the operation after that"),
        (ServingState::Divided, Read | Write) => Ok(Server::Children),
        (ServingState::Divided, Close) => Ok(Server::Region),
        (ServingState::Divided, Decide) => {
            let text = format!("region {region} has been split: refresh the catalog");
            Err(EntryOutcome::refused(Reason::RouteMoved, text))
        }
        (ServingState::Divided, Advance | Hold | Split) => refused("has been split"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_admit_operations_cell_by_cell() {
        use Operation::{Advance, Close, Decide, Hold, Read, Split, Write};
        let operations = [Read, Write, Decide, Advance, Hold, Split, Close];
        // R: the region, C: its children, -: refused, M: refused, since it has moved to the children.
        for (state, cells) in [
            (ServingState::Active, "RRRRR--"),
            (ServingState::Held, "RR-RRR-"),
            (ServingState::Divided, "CCM---R"),
        ] {
            for (operation, cell) in operations.into_iter().zip(cells.chars()) {
                let found = match admit(state, operation, RegionId(7)) {
                    Ok(Server::Region) => 'R',
                    Ok(Server::Children) => 'C',
                    Err(EntryOutcome::Refused { reason: Reason::RouteBusy, .. }) => '-',
                    Err(EntryOutcome::Refused { reason: Reason::RouteMoved, .. }) => 'M',
                    Err(other) => panic!("{other:?}"),
                };
                assert_eq!(found, cell, "{state:?}, {operation:?}");
            }
        }
    }
}
