//! Events of cursors that begin to lag.

use std::sync::Arc;

use tidewater_common::ids::ManifestVersion;
use tidewater_hook_kinds::HookVersion;
use tidewater_region_engine::env::RegionEnv;
use tidewater_region_engine::layout::RegionDir;
use tidewater_region_engine::manifest::history::{History, history};
use tracing::debug;

use super::lagging::LagBegin;
use crate::node_events::NodeEvents;

/// Records cursors that begin to lag. A new leader of a group takes each cursor that lags for one that begins to: all leaders
/// derive the same event from the version with which the lag began, as long as the cursor has not moved.
pub(super) async fn record_lags(env: RegionEnv, events: Arc<NodeEvents>, lags: Vec<LagBegin>) {
    for lag in lags {
        let time_ms = match lag.version {
            Some(version) => time_of_version(&env, lag.dir, version).await,
            None => None,
        };
        let begin = lag.version.zip(time_ms).map(|(version, time_ms)| HookVersion {
            hook: &lag.hook,
            generation: lag.generation,
            dir: lag.dir,
            version,
            time_ms,
        });
        events.record_lagging_hook(lag.dir, &lag.hook, lag.pending, lag.cause.as_deref(), begin);
    }
}

/// Returns the time of a version; `None`: it was deleted, or the manifest cannot be read.
async fn time_of_version(env: &RegionEnv, dir: RegionDir, version: ManifestVersion) -> Option<u64> {
    let before = ManifestVersion(version.get().saturating_sub(1));
    match history(env, dir, before, 1).await {
        Ok(History::Deltas(past)) => {
            let delta = &past.first()?.delta;
            (delta.version == version).then_some(delta.time_ms)
        }
        Ok(History::Current | History::Ended | History::Lagged) => None,
        Err(error) => {
            debug!(region = %dir.region_id, %version, %error, "failed to read the time of a version");
            None
        }
    }
}
