//! Members of a group that a replica learned from other members or from the meta group (pure).

use std::collections::BTreeSet;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::types::{LogId, StoredMembership};

/// Time between two questions to the members of a group.
const INTERVAL: Duration = Duration::from_secs(1);

/// Members of a group as other members or the meta group named them, because this replica has missed changes.
#[derive(Debug, Default)]
pub(super) struct ConfirmedMembers {
    state: Mutex<ConfirmedState>,
}

#[derive(Debug, Default)]
struct ConfirmedState {
    at: Option<LogId>,
    nodes: BTreeSet<u64>,
    asked: Option<Instant>,
}

impl ConfirmedMembers {
    /// Returns the confirmed members, unless the replica itself knows a membership as late.
    pub(super) fn newer_than(&self, known: Option<LogId>) -> BTreeSet<u64> {
        let state = self.state.lock();
        if state.at > known { state.nodes.clone() } else { BTreeSet::new() }
    }

    /// Returns whether the members may be asked now.
    pub(super) fn begin(&self, now: Instant) -> bool {
        let mut state = self.state.lock();
        let due = state.asked.is_none_or(|asked| now.duration_since(asked) >= INTERVAL);
        if due {
            state.asked = Some(now);
        }
        due
    }

    pub(super) fn record(&self, membership: &StoredMembership) {
        self.record_at(*membership.log_id(), || membership.nodes().map(|(id, _)| *id).collect());
    }

    /// Records the members of the committed membership at a log id, unless a later one is known.
    pub(super) fn record_at(&self, at: Option<LogId>, nodes: impl FnOnce() -> BTreeSet<u64>) {
        let mut state = self.state.lock();
        if at > state.at {
            state.at = at;
            state.nodes = nodes();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Member, Membership, log_id};

    #[test]
    fn confirmed_members_count_until_the_replica_knows_later_ones() {
        let confirmed = ConfirmedMembers::default();
        let stored = |index: u64, node: u64| {
            let nodes = std::collections::BTreeMap::from([(node, Member::new("n:1"))]);
            let membership = Membership::new(vec![BTreeSet::from([node])], nodes).unwrap();
            StoredMembership::new(Some(log_id(2, index)), membership)
        };
        confirmed.record(&stored(9, 4));
        confirmed.record(&stored(7, 3));
        assert_eq!(confirmed.newer_than(Some(log_id(2, 8))), BTreeSet::from([4]));
        assert_eq!(confirmed.newer_than(None), BTreeSet::from([4]));
        assert_eq!(confirmed.newer_than(Some(log_id(2, 9))), BTreeSet::new());
    }

    #[test]
    fn members_are_asked_at_a_bounded_rate() {
        let confirmed = ConfirmedMembers::default();
        let now = Instant::now();
        assert!(confirmed.begin(now) && !confirmed.begin(now));
        assert!(confirmed.begin(now + INTERVAL));
    }
}
