//! Raises of the feature level: the leader asks the members of the meta group for their releases, and raises
//! the level once all nodes support the next one.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tidewater_common::feature_level::FeatureLevel;
use tidewater_common::ids::NodeId;
use tidewater_proto::v1::{self, Reason, meta_command::Kind};
use tidewater_rpc::{Channels, ConnectPolicy};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::leader_term::LeaderTerm;
use super::levels::LevelStatus;
use super::problems::MemberHealth;
use super::releases::{ReportedRelease, ask_member};

/// Interval of the questions to the members, and of the decisions on a raise.
const INTERVAL: Duration = Duration::from_secs(1);

/// Maximum number of entries that a member lacks while the level is raised.
const MAX_LAG: u64 = 1_000;

/// Returns whether a member has nearly all entries of the log.
fn keeps_up(health: &[MemberHealth], node: NodeId) -> bool {
    health.iter().any(|member| member.node == node && member.lag <= MAX_LAG)
}

impl LeaderTerm {
    /// Raises the level whenever that is due, until the term ends.
    pub(super) async fn raise_levels(self: Arc<Self>) {
        let channels = Channels::new(ConnectPolicy::CONTROL);
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.ask_members(&channels).await;
            // No node joins between the decision and the raise.
            let _joining = self.group.joining.lock().await;
            let Some(raise) = self.due_raise() else { continue };
            let level = raise.level;
            match self.command(Kind::RaiseFeatureLevel(raise)).await {
                Ok(()) => tracing::info!(level, "feature level of the cluster raised"),
                // The next round asks it.
                Err(error) if error.reason == Reason::ReleaseUnsupported => {
                    tracing::info!(level, %error, "a node has started since it was asked for its feature level");
                }
                Err(error) => tracing::warn!(level, %error, "failed to raise the feature level"),
            }
        }
    }

    fn due_raise(&self) -> Option<v1::RaiseFeatureLevel> {
        let recent = self.observations.releases.recent(Instant::now());
        let state = self.group.view.read();
        state.header().cluster_id?;
        LevelStatus::new(&state, &recent, FeatureLevel::HIGHEST).due_raise()
    }

    /// Asks all members at the same time. Removes the report of a member that does not answer, since it may start
    /// with another release, and of a member that lags: started with an earlier release before it receives the
    /// raise, it would not apply it.
    async fn ask_members(&self, channels: &Channels) {
        let own = self.group.node_id;
        let releases = &self.observations.releases;
        releases.record(own, ReportedRelease::own(self.group.max_level), Instant::now());
        let members = self.group.members().members.into_iter();
        let others = members.filter(|member| member.node_id != own.get());
        let asked = others.map(|member| async move {
            let ask = async {
                let channel = channels.to(&member.address)?;
                ask_member(channel, &member.address, NodeId(member.node_id)).await
            };
            (NodeId(member.node_id), ask.await)
        });
        let answers = join_all(asked).await;
        let health = self.group.member_health();
        for (node, answer) in answers {
            match answer {
                Ok(reported) if keeps_up(&health, node) => {
                    releases.record(node, reported, Instant::now());
                }
                Ok(_) => releases.remove(node),
                Err(error) => {
                    tracing::debug!(%node, %error, "a meta node has not described itself");
                    releases.remove(node);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn member_that_lags_does_not_keep_up() {
        let member = |node, lag| MemberHealth { node: NodeId(node), silent_for: None, lag };
        let health = [member(2, MAX_LAG), member(3, MAX_LAG + 1)];
        assert_eq!([2, 3, 4].map(|node| keeps_up(&health, NodeId(node))), [true, false, false]);
    }
}
