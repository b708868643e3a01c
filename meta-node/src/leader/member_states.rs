//! Observed states of the members of the meta group, which send no heartbeats: a member is down while it does not answer the
//! leader. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use tidewater_common::feature_level::FeatureLevel;
use tidewater_common::ids::NodeId;
use tidewater_proto::v1::{self, NodeRole};
use tokio::time::Instant;

use super::detector::{contradiction, observation};
use super::problems::MemberHealth;
use crate::catalog::MetaState;

/// A member as the leader knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ObservedMember {
    node: NodeId,
    /// Time since its last answer in this term.
    silent_for: Option<Duration>,
    /// Time since the leader knows the member in this term.
    known_for: Duration,
}

/// Times from which on the leader knows the other members in its term. Its silence counts from there for a member that has not
/// answered: a new learner is not silent since the begin of the term.
#[derive(Debug, Default)]
pub(super) struct KnownMembers(BTreeMap<NodeId, Instant>);

impl KnownMembers {
    /// Follows the health of the other members.
    pub(super) fn follow(&mut self, health: &[MemberHealth], now: Instant) -> Vec<ObservedMember> {
        self.0.retain(|known, _| health.iter().any(|member| member.node == *known));
        let observed = health.iter().map(|member| {
            let since = *self.0.entry(member.node).or_insert(now);
            let known_for = now.saturating_duration_since(since);
            ObservedMember { node: member.node, silent_for: member.silent_for, known_for }
        });
        observed.collect()
    }
}

/// Returns the members whose recorded state contradicts their answers, with the observed state. The leader itself is up. Nothing
/// below [`FeatureLevel::EXACT_EVENTS`].
pub(super) fn detect(
    state: &MetaState,
    leader: NodeId,
    others: &[ObservedMember],
    timeout: Duration,
) -> Vec<v1::ObservedNode> {
    if state.header().feature_level < FeatureLevel::EXACT_EVENTS {
        return Vec::new();
    }
    let silent_for = Some(Duration::ZERO);
    let own = ObservedMember { node: leader, silent_for, known_for: Duration::ZERO };
    let changed = others.iter().chain([&own]).filter_map(|member| {
        let node = state.node(member.node).filter(|node| node.role == NodeRole::Meta)?;
        let to = contradiction(node.state, member.silent_for, member.known_for, timeout)?;
        Some(observation(node, to))
    });
    changed.collect()
}

#[cfg(test)]
mod tests {
    use tidewater_proto::v1::{NodeState, meta_command::Kind};

    use super::*;
    use crate::commands::testing::{bootstrapped, raise_to, raise_to_highest, run, set_members};

    const TIMEOUT: Duration = Duration::from_secs(5);

    /// Health of members: id, and seconds since the last answer.
    fn health(members: &[(u64, Option<u64>)]) -> Vec<MemberHealth> {
        let member = |(node, silent): &(u64, Option<u64>)| MemberHealth {
            node: NodeId(*node),
            silent_for: silent.map(Duration::from_secs),
            lag: 0,
        };
        members.iter().map(member).collect()
    }

    fn cluster() -> MetaState {
        let mut state = bootstrapped();
        set_members(&mut state, &[1, 2, 3]);
        raise_to_highest(&mut state);
        state
    }

    /// Ids and observed states.
    fn changes(observed: &[v1::ObservedNode]) -> Vec<(u64, NodeState)> {
        observed.iter().map(|of| (of.node_id, of.state())).collect()
    }

    /// Records observations, as the leader does.
    fn record(state: &mut MetaState, observed_nodes: Vec<v1::ObservedNode>) {
        let command =
            v1::RecordObservations { observed_nodes, ..v1::RecordObservations::default() };
        run(state, Kind::RecordObservations(command)).unwrap();
    }

    #[test]
    fn silent_member_is_down_until_it_answers() {
        let mut state = cluster();
        let mut known = KnownMembers::default();
        let begun = Instant::now();
        let (up, down) = (NodeState::Up, NodeState::Down);
        for (second, members, expected) in [
            (0, [(2, None), (3, Some(0))], vec![]),
            (5, [(2, None), (3, Some(1))], vec![]),
            (6, [(2, None), (3, Some(5))], vec![(2, down)]),
            // The catalog has it as down.
            (7, [(2, None), (3, Some(6))], vec![(3, down)]),
            (8, [(2, Some(0)), (3, Some(7))], vec![(2, up)]),
            (9, [(2, Some(1)), (3, Some(0))], vec![(3, up)]),
            (10, [(2, Some(2)), (3, Some(1))], vec![]),
        ] {
            let now = begun + Duration::from_secs(second);
            let members = known.follow(&health(&members), now);
            let observed = detect(&state, NodeId(1), &members, TIMEOUT);
            assert_eq!(changes(&observed), expected, "{second}");
            record(&mut state, observed);
        }
    }

    #[test]
    fn next_leader_observes_no_outage_again() {
        let mut state = cluster();
        let begun = Instant::now();
        let silent = |known: &mut KnownMembers, members: &[(u64, Option<u64>)]| {
            known.follow(&health(members), begun);
            known.follow(&health(members), begun + Duration::from_secs(9))
        };
        let members = silent(&mut KnownMembers::default(), &[(2, None), (3, Some(0))]);
        let observed = detect(&state, NodeId(1), &members, TIMEOUT);
        record(&mut state, observed);
        // Node 1 has stopped, and node 3 leads.
        let members = silent(&mut KnownMembers::default(), &[(1, None), (2, None)]);
        let observed = detect(&state, NodeId(3), &members, TIMEOUT);
        assert_eq!(changes(&observed), [(1, NodeState::Down)]);
        record(&mut state, observed);
        // Node 2 returns and is elected, node 1 answers it.
        let members = silent(&mut KnownMembers::default(), &[(1, Some(0)), (3, Some(0))]);
        let observed = detect(&state, NodeId(2), &members, TIMEOUT);
        assert_eq!(changes(&observed), [(1, NodeState::Up), (2, NodeState::Up)]);
    }

    #[test]
    fn new_member_is_silent_from_its_addition_on() {
        let mut state = cluster();
        let mut known = KnownMembers::default();
        let begun = Instant::now();
        let mut observe = |state: &MetaState, second, members: &[(u64, Option<u64>)]| {
            let members = known.follow(&health(members), begun + Duration::from_secs(second));
            changes(&detect(state, NodeId(1), &members, TIMEOUT))
        };
        let old = [(2, Some(0)), (3, Some(0))];
        assert_eq!(observe(&state, 0, &old), []);
        let added = [(2, Some(0)), (3, Some(0)), (4, None)];
        assert_eq!(observe(&state, 60, &added), [], "its membership entry is not applied yet");
        set_members(&mut state, &[1, 2, 3, 4]);
        assert_eq!(observe(&state, 65, &added), []);
        assert_eq!(observe(&state, 66, &added), [(4, NodeState::Down)]);
        // It was removed, and is added again.
        assert_eq!(observe(&state, 67, &old), []);
        assert_eq!(observe(&state, 68, &added), []);
    }

    #[test]
    fn members_are_not_observed_below_the_level() {
        let mut state = bootstrapped();
        set_members(&mut state, &[1, 2, 3]);
        raise_to(&mut state, FeatureLevel::EXACT_EVENTS.previous());
        let silent = ObservedMember {
            node: NodeId(2),
            silent_for: Some(2 * TIMEOUT),
            known_for: 2 * TIMEOUT,
        };
        assert_eq!(detect(&state, NodeId(1), &[silent], TIMEOUT), []);
        raise_to_highest(&mut state);
        let observed = detect(&state, NodeId(1), &[silent], TIMEOUT);
        assert_eq!(changes(&observed), [(2, NodeState::Down)]);
    }
}
