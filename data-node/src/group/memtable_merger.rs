//! Merges memtable runs in the background, so that a read merges at most a few runs.

use std::sync::Arc;
use std::time::Duration;

use tidewater_region_engine::EngineError;
use tracing::warn;

use super::shared::ReplicaState;

/// Interval of checks without a notification.
const TICK: Duration = Duration::from_secs(1);

/// Runs until the replica stops.
pub async fn run(shared: Arc<ReplicaState>) {
    loop {
        tokio::select! {
            () = shared.stopping.cancelled() => return,
            () = shared.merges.notified() => {}
            () = tokio::time::sleep(TICK) => {}
        }
        for hosted in shared.regions.all() {
            if !hosted.region.is_merge_due() {
                continue;
            }
            match hosted.region.merge_runs().await {
                Ok(()) | Err(EngineError::Closed { .. } | EngineError::Removed { .. }) => {}
                Err(error) => warn!(
                    group = %shared.group,
                    region = %hosted.descriptor.region_id,
                    %error,
                    "failed to merge memtable runs"
                ),
            }
        }
    }
}
