//! Events of the other members of the meta group, which send no heartbeats: they are down while they do not answer this
//! leader. A new leader records a member that does not answer again, with an event of its own.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tidewater_cluster_events::types::{NodeDown, NodeUp};
use tidewater_common::ids::NodeId;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::leader_term::LeaderTerm;
use super::problems::MemberHealth;

/// Interval of the checks.
const INTERVAL: Duration = Duration::from_secs(1);

/// Members that do not answer.
#[derive(Debug, Default)]
struct SilentMembers(BTreeSet<NodeId>);

/// Change of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MemberChange {
    Up(NodeId),
    Down(NodeId),
}

impl SilentMembers {
    /// Follows the health of the members; returns those that are silent for longer than the timeout from now on, and those
    /// that answer again. `leading_for`: age of the term, which counts for a member that has not answered in it.
    fn follow(
        &mut self,
        members: &[MemberHealth],
        leading_for: Duration,
        timeout: Duration,
    ) -> Vec<MemberChange> {
        self.0.retain(|known| members.iter().any(|member| member.node == *known));
        let mut changes = Vec::new();
        for member in members {
            let silent_for = member.silent_for.unwrap_or(leading_for);
            if silent_for > timeout {
                if self.0.insert(member.node) {
                    changes.push(MemberChange::Down(member.node));
                }
            } else if self.0.remove(&member.node) {
                changes.push(MemberChange::Up(member.node));
            }
        }
        changes
    }
}

impl LeaderTerm {
    /// Records members that stop to answer, and that answer again.
    pub(super) async fn record_member_events(self: Arc<Self>) {
        let begun = Instant::now();
        let mut silent = SilentMembers::default();
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let members = self.group.member_health();
            for change in silent.follow(&members, begun.elapsed(), self.timing.failure_timeout) {
                self.record_member_change(change);
            }
        }
    }

    fn record_member_change(&self, change: MemberChange) {
        let address = |node: NodeId| {
            let state = self.group.view.read();
            state.node(node).map(|node| node.address.clone()).unwrap_or_default()
        };
        let node_kind = "meta".to_owned();
        let recorder = &self.events.recorder;
        match change {
            MemberChange::Up(node) => {
                let event = NodeUp { node_id: node.get(), node_kind, address: address(node) };
                drop(recorder.record(&event));
            }
            MemberChange::Down(node) => {
                let event = NodeDown {
                    node_id: node.get(),
                    node_kind,
                    address: address(node),
                    cause: "it does not answer the meta leader".to_owned(),
                };
                drop(recorder.record(&event));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silent_members_are_recorded_at_edges() {
        let timeout = Duration::from_secs(5);
        let member = |node: u64, silent: Option<u64>| MemberHealth {
            node: NodeId(node),
            silent_for: silent.map(Duration::from_secs),
            lag: 0,
        };
        let up = |node| MemberChange::Up(NodeId(node));
        let down = |node| MemberChange::Down(NodeId(node));
        let mut silent = SilentMembers::default();
        for (leading, members, expected) in [
            (1, vec![member(2, None), member(3, Some(0))], vec![]),
            (5, vec![member(2, None), member(3, Some(1))], vec![]),
            (6, vec![member(2, None), member(3, Some(1))], vec![down(2)]),
            (7, vec![member(2, None), member(3, Some(6))], vec![down(3)]),
            (8, vec![member(2, Some(0)), member(3, Some(7))], vec![up(2)]),
            // A member that was removed, and added again.
            (9, vec![member(2, Some(0))], vec![]),
            (10, vec![member(2, Some(0)), member(3, Some(0))], vec![]),
        ] {
            let changes = silent.follow(&members, Duration::from_secs(leading), timeout);
            assert_eq!(changes, expected, "{leading}");
        }
    }
}
