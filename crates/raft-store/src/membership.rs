//! Changes of a group's voters, which take two entries: a *joint* membership of the old and the new
//! voters, then the new voters alone.
//!
//! Under a joint membership, every decision needs a quorum of the old voters and one of the new
//! voters. Openraft takes both steps in the caller's future, so a dropped call or a leader that
//! crashes can leave the group in the joint membership. Hence [`change`] continues when its caller
//! is dropped, and [`JointMembershipFinisher`] lets the leader take the second step of an
//! interrupted change.

use std::collections::BTreeSet;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, Fatal, RaftError};
use openraft::metrics::RaftServerMetrics;
use openraft::raft::Precondition;
use openraft::storage::RaftStateMachine;
use openraft::{ChangeMembers, ServerState};
use tidewater_common::ids::GroupId;
use tokio::time::Instant;

use crate::types::{LogId, Member, Membership, Raft, TypeConfig};

#[cfg(test)]
mod tests;

/// Age at which a joint membership counts as interrupted: the second step normally follows the
/// first immediately.
const INTERRUPTED_AFTER: Duration = Duration::from_secs(2);
/// Timeout of the second step; the next call retries it.
const FINISH_TIMEOUT: Duration = Duration::from_secs(1);

/// Reason why a membership was not changed, or why the outcome is unknown.
pub type ChangeError = RaftError<TypeConfig, ClientWriteError<TypeConfig>>;

/// Changes the membership `on`, and removes voters that the change takes out. Returns the log id of
/// the new membership. Continues when the caller is dropped.
///
/// # Errors
/// [`ClientWriteError::PreconditionFailed`]: the membership is another one, or was changed
/// concurrently. [`Fatal::Stopped`]: the group stops on this node, and the outcome is unknown.
pub async fn change<SM>(
    raft: &Raft<SM>,
    change: ChangeMembers<u64, Member>,
    on: Option<LogId>,
) -> Result<LogId, ChangeError>
where
    SM: RaftStateMachine<TypeConfig>,
{
    let raft = raft.clone();
    let changing = tokio::spawn(async move {
        let condition = Precondition::LastMembershipLogId { last_membership_log_id: on };
        raft.change_membership_if(change, false, [condition]).await
    });
    match changing.await {
        Ok(changed) => changed.map(|response| response.log_id),
        Err(_) => Err(RaftError::Fatal(Fatal::Stopped)),
    }
}

/// Returns whether a membership is joint: between the two steps of a change.
pub fn is_joint(membership: &Membership) -> bool {
    membership.get_joint_config().len() > 1
}

/// Returns the voters after a joint membership is finished; all voters when it is not joint.
pub fn future_voters(membership: &Membership) -> BTreeSet<u64> {
    membership.get_joint_config().last().cloned().unwrap_or_default()
}

/// Returns the change that turns a joint membership into one of its future voters alone, and
/// changes nothing else.
pub fn leave_joint() -> ChangeMembers<u64, Member> {
    ChangeMembers::AddVoterIds(BTreeSet::new())
}

/// Completes joint membership changes that another leader or a dropped call left behind. Used by
/// the leader; remembers the joint membership and when it was first seen.
#[derive(Debug, Default)]
pub struct JointMembershipFinisher {
    seen: Option<(LogId, Instant)>,
}

impl JointMembershipFinisher {
    /// Takes the second step of an interrupted change; otherwise does nothing. Call it
    /// periodically: the next call retries a failed attempt.
    pub async fn finish<SM>(&mut self, group: GroupId, raft: &Raft<SM>)
    where
        SM: RaftStateMachine<TypeConfig>,
    {
        // The caller of a membership that is not applied yet still waits for it.
        let applied = raft.metrics().borrow_watched().last_applied;
        let joint = joint_in_effect(&raft.server_metrics().borrow_watched());
        let joint = joint.filter(|on| applied.is_some_and(|applied| applied >= *on));
        let Some(on) = self.due(joint, Instant::now()) else { return };
        tracing::warn!(%group, membership = %on, "finishing an interrupted membership change");
        let condition = Precondition::LastMembershipLogId { last_membership_log_id: Some(on) };
        // One entry: dropping this future leaves nothing half-done.
        let finished = raft.change_membership_if(leave_joint(), false, [condition]);
        match tokio::time::timeout(FINISH_TIMEOUT, finished).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                tracing::warn!(%group, %error, "failed to finish a membership change; retrying");
            }
            Err(_) => tracing::warn!(%group, "timed out finishing a membership change; retrying"),
        }
    }

    /// Returns the membership to finish, once it is old enough.
    fn due(&mut self, joint: Option<LogId>, now: Instant) -> Option<LogId> {
        let since = match (joint?, self.seen) {
            (joint, Some((seen, since))) if joint == seen => since,
            (joint, _) => {
                self.seen = Some((joint, now));
                now
            }
        };
        joint.filter(|_| now.duration_since(since) >= INTERRUPTED_AFTER)
    }
}

/// Log id of the joint membership that is in effect on this leader. One that is not committed is
/// still in progress, and openraft would refuse the next change.
fn joint_in_effect(metrics: &RaftServerMetrics<TypeConfig>) -> Option<LogId> {
    let effective = &metrics.membership_config;
    let committed = effective.log_id() == metrics.committed_membership_config.log_id();
    let ours = metrics.state == ServerState::Leader && committed;
    (ours && is_joint(effective.membership())).then_some(*effective.log_id()).flatten()
}
