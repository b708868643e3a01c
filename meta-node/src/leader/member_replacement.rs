//! Replacement of a member of the meta group: the leader takes one step after the other, so that the replacement goes on
//! after its client, or a leader, has ended.

use std::sync::Arc;
use std::time::Duration;

use tidewater_common::ids::NodeId;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::change_meta_member_request::Change;
use tidewater_proto::v1::{self, Reason, meta_command::Kind};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::leader_term::LeaderTerm;
use crate::catalog::MemberReplacement;

/// Interval of the checks for a replacement, and pause after a step.
const INTERVAL: Duration = Duration::from_millis(500);

/// Age of a learner's last answer up to which it is promoted: a few heartbeats.
const RECENT: Duration = Duration::from_secs(2);

/// Next step of a replacement.
#[derive(Debug, Clone, PartialEq)]
enum ReplacementStep {
    Change(Change),
    /// Transfer the leadership to this voter: the leader does not remove itself.
    Transfer(NodeId),
    /// It is complete or cancelled.
    End,
}

/// Returns the next step. The old member is removed after the new one is a voter, so that the group never has fewer
/// votes than before. A cancelled replacement removes the new node, unless it votes and the old one does not. The
/// membership must not be joint: the voters of `members` would be those before and after the change.
fn next_step(replacement: &MemberReplacement, members: &[v1::MetaMember]) -> ReplacementStep {
    let found = |id: NodeId| members.iter().find(|member| member.node_id == id.get());
    let removal = |member: &v1::MetaMember| {
        let others = members.iter().filter(|other| other.voter && other.node_id != member.node_id);
        match others.max_by_key(|other| other.matched_index) {
            Some(other) if member.leader => ReplacementStep::Transfer(NodeId(other.node_id)),
            _ => ReplacementStep::Change(Change::Remove(member.node_id)),
        }
    };
    let (old, new) = (found(replacement.old), found(replacement.new));
    let old_votes = old.is_some_and(|member| member.voter);
    match (old, new) {
        (_, Some(new)) if replacement.cancelled && (old_votes || !new.voter) => removal(new),
        (Some(_), None) if replacement.cancelled => ReplacementStep::End,
        (Some(_), None) => ReplacementStep::Change(Change::AddLearner(v1::MetaMember {
            node_id: replacement.new.get(),
            address: replacement.address.clone(),
            ..v1::MetaMember::default()
        })),
        (_, Some(new)) if !new.voter => ReplacementStep::Change(Change::Promote(new.node_id)),
        (Some(old), Some(_)) => removal(old),
        (None, _) => ReplacementStep::End,
    }
}

/// Progress of the new node between two steps: entries of the log that it has.
fn matched(replacement: &MemberReplacement, members: &[v1::MetaMember]) -> Option<u64> {
    let id = replacement.new.get();
    members.iter().find(|member| member.node_id == id).and_then(|member| member.matched_index)
}

impl LeaderTerm {
    /// Continues the replacement of a member until the term ends.
    pub(super) async fn continue_member_replacement(self: Arc<Self>) {
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut had = None;
        loop {
            ticks.tick().await;
            let replacement = self.group.view.read().member_replacement().cloned();
            let Some(replacement) = replacement else {
                self.observations.record_replacement(None, Instant::now());
                continue;
            };
            // A new leader may have yet to apply the end of the replacement, and another one finishes a joint membership.
            if self.group.linearize().await.is_err() || self.group.has_joint_membership() {
                continue;
            }
            if self.group.view.read().member_replacement() != Some(&replacement) {
                continue;
            }
            let members = self.group.members();
            let has = matched(&replacement, &members.members);
            let step = next_step(&replacement, &members.members);
            let error = self.take_step(&replacement, step.clone(), &members).await.err();
            if let Some(error) = &error {
                tracing::debug!(?step, %error, "replacement of a meta member deferred");
            } else {
                tracing::info!(?step, old = %replacement.old, new = %replacement.new, "replacing a meta member");
            }
            // A learner that receives the log is progress, although it cannot be promoted yet.
            let is_learning =
                matches!(step, ReplacementStep::Change(Change::Promote(_))) && has > had;
            let waits = error.filter(|_| !is_learning).map(|error| error.to_string());
            self.observations.record_replacement(waits, Instant::now());
            had = has;
        }
    }

    /// Checks that a learner has answered recently. The vote of one that is down could leave the group without a quorum.
    fn check_answers(&self, learner: NodeId) -> Result<(), Refusal> {
        let health = self.group.member_health();
        let silent = health.iter().find(|of| of.node == learner).and_then(|of| of.silent_for);
        if silent.is_some_and(|silent| silent <= RECENT) {
            return Ok(());
        }
        let text = format!("node {learner} does not answer: it is promoted when it does");
        Err(Refusal::new(Reason::MembershipBusy, text))
    }

    async fn take_step(
        &self,
        replacement: &MemberReplacement,
        step: ReplacementStep,
        on: &v1::ListMetaMembersResponse,
    ) -> Result<(), Refusal> {
        match step {
            ReplacementStep::Change(change) => {
                if matches!(change, Change::Promote(_)) {
                    self.check_answers(replacement.new)?;
                }
                let request = v1::ChangeMetaMemberRequest {
                    membership_term: on.membership_term,
                    membership_index: on.membership_index,
                    change: Some(change),
                };
                self.group.change_member(request).await.map(drop)
            }
            ReplacementStep::Transfer(to) => self.group.transfer_to(to).await,
            ReplacementStep::End => {
                let end = v1::EndMemberReplacement {
                    old_node_id: replacement.old.get(),
                    new_node_id: replacement.new.get(),
                };
                self.command(Kind::EndMemberReplacement(end)).await
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(node_id: u64, voter: bool, leader: bool) -> v1::MetaMember {
        v1::MetaMember {
            node_id,
            voter,
            leader,
            matched_index: Some(node_id),
            ..Default::default()
        }
    }

    fn step(cancelled: bool, members: &[v1::MetaMember]) -> ReplacementStep {
        let replacement =
            MemberReplacement { old: NodeId(2), new: NodeId(4), address: "m:4".into(), cancelled };
        next_step(&replacement, members)
    }

    fn remove(id: u64) -> ReplacementStep {
        ReplacementStep::Change(Change::Remove(id))
    }

    #[test]
    fn replacement_removes_the_old_member_last() {
        let (one, two) = (member(1, true, true), member(2, true, false));
        let added = step(false, &[one.clone(), two.clone()]);
        assert!(
            matches!(added, ReplacementStep::Change(Change::AddLearner(new)) if new.address == "m:4")
        );
        let learner = [one.clone(), two.clone(), member(4, false, false)];
        assert_eq!(step(false, &learner), ReplacementStep::Change(Change::Promote(4)));
        let promoted = [one.clone(), two, member(4, true, false)];
        assert_eq!(step(false, &promoted), remove(2));
        // An interrupted removal leaves a learner.
        let demoted = [one.clone(), member(2, false, false), member(4, true, false)];
        assert_eq!(step(false, &demoted), remove(2));
        let replaced = [one.clone(), member(4, true, false)];
        assert_eq!(step(false, &replaced), ReplacementStep::End);
        let learner = [one, member(4, false, false)];
        assert_eq!(step(false, &learner), ReplacementStep::Change(Change::Promote(4)));
    }

    #[test]
    fn leader_transfers_its_leadership_before_its_removal() {
        let members = [member(1, true, false), member(2, true, true), member(4, true, false)];
        assert_eq!(step(false, &members), ReplacementStep::Transfer(NodeId(4)));
        let members = [member(1, true, false), member(2, true, false), member(4, true, true)];
        assert_eq!(step(true, &members), ReplacementStep::Transfer(NodeId(2)));
    }

    #[test]
    fn cancelled_replacement_removes_the_new_member() {
        let (one, two) = (member(1, true, true), member(2, true, false));
        assert_eq!(step(true, &[one.clone(), two.clone()]), ReplacementStep::End);
        let learners = [one.clone(), member(2, false, false), member(4, false, false)];
        assert_eq!(step(true, &learners), remove(4));
        for voter in [false, true] {
            let members = [one.clone(), two.clone(), member(4, voter, false)];
            assert_eq!(step(true, &members), remove(4));
        }
        // The old member was removed before.
        let demoted = [one.clone(), member(2, false, false), member(4, true, false)];
        assert_eq!(step(true, &demoted), remove(2));
        assert_eq!(step(true, &[one, member(4, true, false)]), ReplacementStep::End);
    }
}
