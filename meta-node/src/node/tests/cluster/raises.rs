//! Raises of the feature level without the pauses between the raises of a leader.

use std::time::Duration;

use tidewater_common::feature_level::FeatureLevel;
use tidewater_proto::v1::{self, meta_command::Kind};
use tokio::time::{Instant, sleep};

use super::{LIMIT, MetaCluster};

impl MetaCluster {
    /// Raises the cluster to a level. All nodes must support it.
    pub(in crate::node::tests) async fn raise_to(&self, level: FeatureLevel) {
        let deadline = Instant::now() + LIMIT;
        loop {
            let leader = self.leader().await;
            let group = self.nodes[&leader].meta.slot().get().unwrap().group;
            let state = group.view.read();
            let next = state.header().feature_level.next();
            if next > level {
                return;
            }
            let supporting = state
                .nodes()
                .map(|node| v1::SupportingNode { node_id: node.id.get(), boot: node.boot.get() });
            let raise = v1::RaiseFeatureLevel { level: next.get(), nodes: supporting.collect() };
            // A node may have registered meanwhile, and the leader may have changed.
            if let Err(problem) = group.propose(Kind::RaiseFeatureLevel(raise)).await {
                assert!(Instant::now() < deadline, "the level is not raised: {problem}");
                sleep(Duration::from_millis(20)).await;
            }
        }
    }
}
