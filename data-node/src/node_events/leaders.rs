//! Leaders of a group, as one replica sees them (pure).

use tidewater_common::ids::{NodeId, Term};

use crate::group::replica::Leadership;

/// Leaders that a replica has seen. It may miss some that led for a short time.
#[derive(Debug, Default)]
pub(crate) struct LeaderHistory {
    last: Option<NodeId>,
    /// Last term in which this node led.
    led: Option<Term>,
}

/// Begin of a term in which this node leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LeaderChange {
    /// The term.
    pub(crate) term: Term,
    /// Last leader that the replica has seen before.
    pub(crate) former: Option<NodeId>,
}

impl LeaderHistory {
    /// Records the leadership as the replica on node `own` sees it now. Returns a change once for each term in which the
    /// node leads.
    pub(crate) fn observe(&mut self, now: Leadership, own: NodeId) -> Option<LeaderChange> {
        if !now.is_leader {
            self.last = now.leader.or(self.last);
            return None;
        }
        let term = Term(now.term);
        if self.led == Some(term) {
            return None;
        }
        self.led = Some(term);
        Some(LeaderChange { term, former: self.last.replace(own) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: NodeId = NodeId(1);

    #[test]
    fn each_led_term_is_a_change() {
        let mut history = LeaderHistory::default();
        let change = |term, former: Option<u64>| {
            Some(LeaderChange { term: Term(term), former: former.map(NodeId) })
        };
        for (term, leader, is_leader, expected) in [
            (0, None, false, None),
            (1, Some(1), true, change(1, None)),
            (1, Some(1), true, None),
            (2, None, false, None),
            // Without another leader in between.
            (2, Some(1), true, change(2, Some(1))),
            (3, Some(2), false, None),
            (4, None, false, None),
            (5, Some(1), true, change(5, Some(2))),
            (5, Some(1), false, None),
            (5, Some(1), true, None),
        ] {
            let now = Leadership { term, leader: leader.map(NodeId), is_leader };
            assert_eq!(history.observe(now, OWN), expected, "{now:?}");
        }
    }
}
