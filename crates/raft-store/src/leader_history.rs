//! Leaders of a group, as one replica sees them, and the reasons of changes (pure).

use openraft::ServerState;
use openraft::metrics::RaftServerMetrics;
use tidewater_common::ids::{GroupId, NodeId, Term};

use crate::service::RaftHost;
use crate::types::TypeConfig;

/// Leadership of a group, as a replica sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaderView {
    /// Node of the replica.
    pub own: NodeId,
    /// Current term.
    pub term: Term,
    /// Leader of the term, if one is known.
    pub leader: Option<NodeId>,
    /// This replica leads.
    pub leads: bool,
    /// No other node votes.
    pub is_only_voter: bool,
    /// Newest term whose leader has announced the transfer of its leadership to this replica.
    pub transferred: Option<Term>,
}

impl LeaderView {
    /// Returns the view in the metrics of a replica of `group` on `host`.
    pub fn new(host: &RaftHost, group: GroupId, metrics: &RaftServerMetrics<TypeConfig>) -> Self {
        Self {
            own: NodeId(metrics.id),
            term: Term(metrics.vote.leader_id.term),
            leader: metrics.current_leader.map(NodeId),
            leads: metrics.state == ServerState::Leader,
            is_only_voter: metrics.membership_config.voter_ids().all(|id| id == metrics.id),
            // A transfer is recorded before the leader that follows from it is in the metrics.
            transferred: host.transferred_term(group),
        }
    }
}

/// Leaders that a replica has seen since its start. It may miss some that led for a short time.
#[derive(Debug, Default)]
pub struct LeaderHistory {
    last: Option<SeenLeader>,
    /// Last term in which this node led.
    led: Option<Term>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SeenLeader {
    node: NodeId,
    term: Term,
}

/// Begin of a term in which this node leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaderChange {
    /// The term.
    pub term: Term,
    /// Last leader that the replica has seen before.
    pub former: Option<NodeId>,
    /// Reason of the change.
    pub cause: LeaderCause,
}

/// Reason why a node leads, as far as it knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaderCause {
    /// It is the first leader of the group.
    FirstLeader,
    /// The leader of the term before has announced a transfer.
    Transferred,
    /// The leader of the term before sent nothing for the election timeout, by a quorum.
    FormerSilent,
    /// No other node votes.
    OnlyVoter,
    /// No leader was seen since the start of the replica.
    NoneSeen,
    /// The leader of the term before, if there was one, was not seen.
    TermMissed,
}

impl LeaderCause {
    /// Returns the reason as text.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FirstLeader => "the group has its first leader",
            Self::Transferred => "the former leader transferred its leadership",
            Self::FormerSilent => "the former leader was silent",
            Self::OnlyVoter => "the node is the only voter of the group",
            Self::NoneSeen => "unknown: the node has seen no leader since its start",
            Self::TermMissed => "unknown: the node has seen no leader of the term before",
        }
    }
}

impl LeaderHistory {
    /// Records the leadership as the replica sees it now. Returns a change once for each term in which the node leads: after
    /// a restart, it takes part in a new election.
    pub fn observe(&mut self, now: LeaderView) -> Option<LeaderChange> {
        if !now.leads {
            // A node may be named the leader before it counts as one.
            if let Some(node) = now.leader.filter(|leader| *leader != now.own) {
                self.last = Some(SeenLeader { node, term: now.term });
            }
            return None;
        }
        if self.led == Some(now.term) {
            return None;
        }
        self.led = Some(now.term);
        let former = self.last.replace(SeenLeader { node: now.own, term: now.term });
        let cause = cause(&now, former);
        Some(LeaderChange { term: now.term, former: former.map(|former| former.node), cause })
    }
}

/// Returns the reason why a node leads. An election begins when the leader is silent, when it announces a transfer, or with
/// the first membership, in term 1; a node that is the only voter waits for nothing. Only the leader of the term before
/// is known to have led until then.
fn cause(now: &LeaderView, former: Option<SeenLeader>) -> LeaderCause {
    if now.term <= Term(1) {
        return LeaderCause::FirstLeader;
    }
    let before = Term(now.term.get() - 1);
    if now.transferred == Some(before) {
        return LeaderCause::Transferred;
    }
    match former {
        None => LeaderCause::NoneSeen,
        Some(_) if now.is_only_voter => LeaderCause::OnlyVoter,
        Some(former) if former.term == before && former.node != now.own => {
            LeaderCause::FormerSilent
        }
        Some(_) => LeaderCause::TermMissed,
    }
}

#[cfg(test)]
mod tests {
    use super::LeaderCause::{
        FirstLeader, FormerSilent, NoneSeen, OnlyVoter, TermMissed, Transferred,
    };
    use super::*;

    const OWN: NodeId = NodeId(1);

    fn view(term: u64, leader: Option<u64>, leads: bool) -> LeaderView {
        LeaderView {
            own: OWN,
            term: Term(term),
            leader: leader.map(NodeId),
            leads,
            is_only_voter: false,
            transferred: None,
        }
    }

    #[test]
    fn each_led_term_is_a_change() {
        let mut history = LeaderHistory::default();
        let change = |term, former: Option<u64>, cause| {
            Some(LeaderChange { term: Term(term), former: former.map(NodeId), cause })
        };
        for (term, leader, leads, expected) in [
            (0, None, false, None),
            (1, Some(1), false, None),
            (1, Some(1), true, change(1, None, FirstLeader)),
            (1, Some(1), true, None),
            (2, None, false, None),
            // Without another leader in between.
            (2, Some(1), true, change(2, Some(1), TermMissed)),
            (3, Some(2), false, None),
            (4, None, false, None),
            (5, Some(1), true, change(5, Some(2), TermMissed)),
            (5, Some(1), false, None),
            (5, Some(1), true, None),
            (6, Some(3), false, None),
            (7, None, false, None),
            (7, Some(1), true, change(7, Some(3), FormerSilent)),
        ] {
            let now = view(term, leader, leads);
            assert_eq!(history.observe(now), expected, "{now:?}");
        }
    }

    #[test]
    fn cause_is_known_of_the_term_before_only() {
        let seen = |node, term| Some(SeenLeader { node: NodeId(node), term: Term(term) });
        for (term, transferred, is_only_voter, former, expected) in [
            (1, None, false, None, FirstLeader),
            (1, None, true, None, FirstLeader),
            (8, Some(7), false, seen(2, 7), Transferred),
            (8, Some(7), false, None, Transferred),
            // Another election was in between.
            (9, Some(7), false, seen(2, 7), TermMissed),
            (8, Some(6), false, seen(2, 7), FormerSilent),
            (8, None, false, seen(2, 7), FormerSilent),
            (8, None, false, seen(2, 6), TermMissed),
            (8, None, false, seen(OWN.get(), 7), TermMissed),
            (8, None, false, None, NoneSeen),
            (8, None, true, None, NoneSeen),
            (8, None, true, seen(2, 7), OnlyVoter),
        ] {
            let now = LeaderView {
                is_only_voter,
                transferred: transferred.map(Term),
                ..view(term, Some(OWN.get()), true)
            };
            assert_eq!(cause(&now, former), expected, "{now:?} {former:?}");
        }
    }
}
