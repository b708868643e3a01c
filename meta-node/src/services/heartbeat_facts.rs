//! Facts about the whole cluster in the answers to heartbeats. They take time for every node, so that they are
//! not computed for each heartbeat of each node.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidewater_common::ids::NodeId;
use tidewater_proto::v1::{self, NodeRole, NodeState};
use tokio::time::Instant;

use super::RunningReplica;
use crate::catalog::{MetaState, Node};
use crate::leader::clocks::{KnownClocks, differing};

/// Age up to which facts are used: a part of the interval between two heartbeats of a node.
const MAX_AGE: Duration = Duration::from_millis(100);
/// The same without an agreed time: the next heartbeat of a new term may bring it.
const MAX_AGE_UNDECIDED: Duration = Duration::from_millis(10);

/// Facts at one instant.
#[derive(Debug, Clone)]
pub(super) struct HeartbeatFacts {
    at: Instant,
    agreed_ms: Option<u64>,
    /// Data nodes whose clocks differ too much.
    pub(super) differing_clocks: Vec<u64>,
    /// Compactors that data nodes may offload to, in order of id.
    pub(super) compactors: Vec<v1::CompactorInfo>,
}

impl HeartbeatFacts {
    fn new(running: &RunningReplica, state: &MetaState, now: Instant) -> Self {
        let clocks = running.observations.clocks(now);
        let known = KnownClocks::new(state, &clocks, running.group.clock.now_ms());
        let agreed_ms = known.agreed_ms(state.header().time_ms);
        Self {
            at: now,
            agreed_ms,
            differing_clocks: differing(&clocks, agreed_ms, running.group.max_clock_difference),
            compactors: compactors_up(state, &running.observations.compactors(now)),
        }
    }

    /// The agreed time of the clocks at `now`.
    pub(super) fn agreed_ms(&self, now: Instant) -> Option<u64> {
        let age = u64::try_from(self.age(now).as_millis()).unwrap_or(u64::MAX);
        self.agreed_ms.map(|agreed| agreed.saturating_add(age))
    }

    fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.at)
    }

    /// Returns whether the facts are used at `now`.
    fn is_fresh(&self, now: Instant) -> bool {
        let max_age = if self.agreed_ms.is_some() { MAX_AGE } else { MAX_AGE_UNDECIDED };
        self.age(now) < max_age
    }
}

/// The last facts.
#[derive(Debug, Clone, Default)]
pub(super) struct LastFacts(Arc<Mutex<Option<Arc<HeartbeatFacts>>>>);

impl LastFacts {
    /// Returns the last facts while they are fresh, otherwise new ones.
    pub(super) fn get(
        &self,
        running: &RunningReplica,
        state: &MetaState,
        now: Instant,
    ) -> Arc<HeartbeatFacts> {
        let mut last = self.0.lock();
        if let Some(known) = last.as_ref().filter(|known| known.is_fresh(now)) {
            return Arc::clone(known);
        }
        let facts = Arc::new(HeartbeatFacts::new(running, state, now));
        *last = Some(Arc::clone(&facts));
        facts
    }
}

/// Returns the compactors that data nodes may offload to, in order of id.
fn compactors_up(
    state: &MetaState,
    loads: &BTreeMap<NodeId, v1::CompactorLoad>,
) -> Vec<v1::CompactorInfo> {
    let to_info = |(id, load): (&NodeId, &v1::CompactorLoad)| {
        let is_up =
            |node: &&Arc<Node>| node.role == NodeRole::Compactor && node.state == NodeState::Up;
        let node = state.node(*id).filter(is_up)?;
        let address = node.address.clone();
        Some(v1::CompactorInfo { node_id: id.get(), address, load: Some(load.clone()) })
    };
    loads.iter().filter_map(to_info).collect()
}

#[cfg(test)]
mod tests {
    use tidewater_proto::v1::meta_command::Kind;

    use super::*;
    use crate::commands::testing::{compactor, run, with_nodes};

    #[test]
    fn agreed_time_advances_with_the_age_of_the_facts() {
        let at = Instant::now();
        let facts = HeartbeatFacts {
            at,
            agreed_ms: Some(5_000),
            differing_clocks: Vec::new(),
            compactors: Vec::new(),
        };
        assert_eq!(facts.agreed_ms(at + Duration::from_millis(70)), Some(5_070));
        assert_eq!(HeartbeatFacts { agreed_ms: None, ..facts }.agreed_ms(at), None);
    }

    #[test]
    fn facts_without_agreed_time_expire_earlier() {
        let at = Instant::now();
        for (agreed_ms, age, is_fresh) in
            [(Some(5_000), 99, true), (Some(5_000), 100, false), (None, 9, true), (None, 10, false)]
        {
            let facts = HeartbeatFacts {
                at,
                agreed_ms,
                differing_clocks: Vec::new(),
                compactors: Vec::new(),
            };
            let now = at + Duration::from_millis(age);
            assert_eq!(facts.is_fresh(now), is_fresh, "{agreed_ms:?} after {age} ms");
        }
    }

    #[test]
    fn only_compactors_that_are_up_are_listed() {
        let mut state = with_nodes(1);
        for number in 1..=3 {
            run(&mut state, Kind::RegisterNode(compactor(20 + number, number))).unwrap();
        }
        let down = v1::SetNodeState { node_id: 103, state: NodeState::Down.into() };
        run(&mut state, Kind::SetNodeState(down)).unwrap();
        let load = v1::CompactorLoad { slots: 2, jobs: 1, ..v1::CompactorLoad::default() };
        // 104 reports no load, 103 is down, 101 is not a compactor, 170 is unknown.
        let loads = [101, 102, 103, 170].map(|node| (NodeId(node), load.clone())).into();
        let expected =
            v1::CompactorInfo { node_id: 102, address: "127.0.0.1:8001".into(), load: Some(load) };
        assert_eq!(compactors_up(&state, &loads), [expected]);
    }
}
