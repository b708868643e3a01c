//! Changes of a group's voters, which take two entries: a *joint* membership of the old and the new
//! voters, then the new voters alone.
//!
//! Under a joint membership, everything needs a quorum of the old voters and one of the new ones.
//! Openraft takes both steps in the future of whoever asks, so a call that is dropped and a leader
//! that dies can leave the group there for good. Hence [`change`], which no caller cuts off, and
//! [`Unfinished`], by which whoever leads takes the second step of a change that another left.

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

/// A joint membership that stands for longer is one whose change was cut off: the second step
/// follows the first at once.
const CUT_OFF: Duration = Duration::from_secs(2);
/// How long the second step may take, until it is looked at again.
const FINISH: Duration = Duration::from_secs(1);

/// Why a membership was not changed, or was not seen to be.
pub type ChangeError = RaftError<TypeConfig, ClientWriteError<TypeConfig>>;

/// Carries out a change on the membership `on`, and removes voters that it takes out; gives where
/// the new membership stands in the log. Goes on when the caller goes away.
///
/// # Errors
/// [`ClientWriteError::PreconditionFailed`]: the membership is another one, or became one while the
/// change was under way. [`Fatal::Stopped`]: the group stops here, and the outcome is unknown.
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

/// Whether a membership is joint: between the two steps of a change.
pub fn is_joint(membership: &Membership) -> bool {
    membership.get_joint_config().len() > 1
}

/// The voters that a membership is on its way to; all of them when it is not joint.
pub fn future_voters(membership: &Membership) -> BTreeSet<u64> {
    membership.get_joint_config().last().cloned().unwrap_or_default()
}

/// The change that makes a joint membership one of its future voters alone, and changes nothing
/// else.
pub fn finish() -> ChangeMembers<u64, Member> {
    ChangeMembers::AddVoterIds(BTreeSet::new())
}

/// The joint membership of a group, and since when it was seen to stand. For whoever leads.
#[derive(Debug, Default)]
pub struct Unfinished {
    seen: Option<(LogId, Instant)>,
}

impl Unfinished {
    /// Takes the second step of a change that was cut off; does nothing anywhere else. To be called
    /// again and again: what fails is tried again by the next call.
    pub async fn finish<SM>(&mut self, group: GroupId, raft: &Raft<SM>)
    where
        SM: RaftStateMachine<TypeConfig>,
    {
        // What is not applied here is one that whoever asked for it still waits for.
        let applied = raft.metrics().borrow_watched().last_applied;
        let joint = standing(&raft.server_metrics().borrow_watched());
        let joint = joint.filter(|on| applied.is_some_and(|applied| applied >= *on));
        let Some(on) = self.due(joint, Instant::now()) else { return };
        tracing::warn!(%group, membership = %on, "finishing a change of members that was cut off");
        let condition = Precondition::LastMembershipLogId { last_membership_log_id: Some(on) };
        // One entry: nothing is left half-way when this is dropped.
        let finished = raft.change_membership_if(finish(), false, [condition]);
        match tokio::time::timeout(FINISH, finished).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                tracing::warn!(%group, %error, "a change of members could not be finished");
            }
            Err(_) => tracing::warn!(%group, "a change of members was not finished in time"),
        }
    }

    /// The membership to finish, once it has stood for long enough.
    fn due(&mut self, joint: Option<LogId>, now: Instant) -> Option<LogId> {
        let since = match (joint?, self.seen) {
            (joint, Some((seen, since))) if joint == seen => since,
            (joint, _) => {
                self.seen = Some((joint, now));
                now
            }
        };
        joint.filter(|_| now.duration_since(since) >= CUT_OFF)
    }
}

/// Where the joint membership stands under which this leader works. One that is not committed is
/// still on its way, and openraft would refuse the next.
fn standing(metrics: &RaftServerMetrics<TypeConfig>) -> Option<LogId> {
    let effective = &metrics.membership_config;
    let committed = effective.log_id() == metrics.committed_membership_config.log_id();
    let ours = metrics.state == ServerState::Leader && committed;
    (ours && is_joint(effective.membership())).then_some(*effective.log_id()).flatten()
}
