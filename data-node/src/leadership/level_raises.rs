//! Raises of a group's feature level: its leader follows the level of the cluster. The cluster's level is raised
//! only when all nodes that may host a replica support it.

use std::time::Duration;

use tidewater_common::feature_level::FeatureLevel;
use tracing::{debug, info};

use super::OwnerContext;
use crate::group::batcher::propose_entry;
use crate::group::entry;

/// Pause after a raise that has failed.
const RETRY: Duration = Duration::from_secs(1);

/// Raises the group's level whenever the cluster's level is higher. Never ends.
pub(super) async fn run(context: &OwnerContext) {
    let mut cluster_level = context.cluster_level.clone();
    loop {
        let target = *cluster_level.borrow_and_update();
        if let Some(next) = next_level(context.shared.level(), target) {
            raise(context, next).await;
        } else if cluster_level.changed().await.is_err() {
            // The node is stopping.
            std::future::pending::<()>().await;
        }
    }
}

/// Returns the level to raise a group to: levels are raised one at a time.
fn next_level(level: FeatureLevel, cluster: FeatureLevel) -> Option<FeatureLevel> {
    (level < cluster).then(|| level.next())
}

async fn raise(context: &OwnerContext, level: FeatureLevel) {
    let group = context.shared.group;
    let entry = entry::level_raised(level);
    match propose_entry(&context.shared, &context.raft, entry).await {
        Ok(_) if context.shared.level() >= level => {
            info!(%group, %level, "feature level of the group raised")
        }
        Ok(outcomes) => {
            debug!(%group, %level, ?outcomes, "feature level of the group not raised; retrying");
            tokio::time::sleep(RETRY).await;
        }
        Err(problem) => {
            debug!(%group, %level, %problem, "failed to raise the feature level; retrying");
            tokio::time::sleep(RETRY).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn group_follows_the_cluster_one_level_at_a_time() {
        for (level, cluster, expected) in
            [(1, 1, None), (1, 2, Some(2)), (1, 4, Some(2)), (3, 4, Some(4)), (4, 2, None)]
        {
            let next = next_level(FeatureLevel::new(level), FeatureLevel::new(cluster));
            assert_eq!(next, expected.map(FeatureLevel::new), "{level} in a cluster at {cluster}");
        }
    }
}
