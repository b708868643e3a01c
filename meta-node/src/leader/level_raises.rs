//! Raises of the feature level: the leader asks the members of the meta group for their releases, and raises
//! the level once all nodes support the next one.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tidewater_common::feature_level::FeatureLevel;
use tidewater_common::ids::NodeId;
use tidewater_proto::v1::{self, meta_command::Kind};
use tidewater_rpc::{Channels, ConnectPolicy};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::leader_term::LeaderTerm;
use super::levels::LevelStatus;
use super::releases::{ReportedRelease, ask_member};

/// Interval of the questions to the members, and of the decisions on a raise.
const INTERVAL: Duration = Duration::from_secs(1);

impl LeaderTerm {
    /// Raises the level whenever that is due, until the term ends.
    pub(super) async fn raise_levels(self: Arc<Self>) {
        let channels = Channels::new(ConnectPolicy::CONTROL);
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.ask_members(&channels).await;
            let Some(raise) = self.due_raise() else { continue };
            let level = raise.level;
            match self.command(Kind::RaiseFeatureLevel(raise)).await {
                Ok(()) => tracing::info!(level, "feature level of the cluster raised"),
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

    /// Asks all members at the same time. A member that does not answer keeps its last report for some seconds.
    async fn ask_members(&self, channels: &Channels) {
        let own = self.group.node_id;
        let releases = &self.observations.releases;
        releases.record(own, ReportedRelease::own(self.group.max_level), Instant::now());
        let members = self.group.members().members.into_iter();
        let others = members.filter(|member| member.node_id != own.get());
        let asked = others.map(|member| async move {
            let node = NodeId(member.node_id);
            let channel = channels.to(&member.address)?;
            ask_member(channel, &member.address, node).await.map(|reported| (node, reported))
        });
        for answer in join_all(asked).await {
            match answer {
                Ok((node, reported)) => releases.record(node, reported, Instant::now()),
                Err(error) => tracing::debug!(%error, "a meta node has not described itself"),
            }
        }
    }
}
