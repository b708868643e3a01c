//! Leaders of group 0, as this node has seen them. Pure.

use tidewater_cluster_events::types::LeaderChanged;
use tidewater_common::ids::{GroupId, NodeId, Term};

/// Leaders of group 0, as this node has seen them since its start. A node leads in a term once: after a restart, it takes
/// part in a new election.
#[derive(Debug)]
pub(super) struct LeaderChanges {
    own: NodeId,
    last: Option<NodeId>,
    recorded: Option<Term>,
}

impl LeaderChanges {
    pub(super) fn new(own: NodeId) -> Self {
        Self { own, last: None, recorded: None }
    }

    /// Follows the leader that this node knows.
    pub(super) fn follow(&mut self, leader: Option<NodeId>) {
        // This node counts as the leader from the begin of its term on.
        if let Some(leader) = leader.filter(|leader| *leader != self.own) {
            self.last = Some(leader);
        }
    }

    /// Returns the event of a term in which this node leads; `None`: it is recorded. The term begins again when a
    /// quorum answers after a silence.
    pub(super) fn begin(&mut self, term: Term) -> Option<LeaderChanged> {
        if self.recorded.replace(term) == Some(term) {
            return None;
        }
        let former = self.last.replace(self.own);
        Some(LeaderChanged {
            group_id: GroupId::META.get(),
            node_id: self.own.get(),
            former_node_id: former.map(NodeId::get),
            term: term.get(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leader_is_recorded_once_in_a_term() {
        let mut changes = LeaderChanges::new(NodeId(1));
        let begun = |changes: &mut LeaderChanges, term| {
            changes.begin(Term(term)).map(|event| (event.term, event.former_node_id))
        };
        changes.follow(None);
        changes.follow(Some(NodeId(1)));
        assert_eq!(begun(&mut changes, 3), Some((3, None)));
        assert_eq!(begun(&mut changes, 3), None);
        changes.follow(Some(NodeId(2)));
        changes.follow(None);
        changes.follow(Some(NodeId(1)));
        assert_eq!(begun(&mut changes, 5), Some((5, Some(2))));
        assert_eq!(begun(&mut changes, 6), Some((6, Some(1))));
    }
}
