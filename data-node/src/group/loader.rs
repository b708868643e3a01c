//! Background loader of manifests. A *target* is the manifest version that a region has reached
//! according to the log. The loader reads the manifest, and the region drops its flushed runs.
//! Apply only sets targets, so it never waits for object storage.
//!
//! Regions do not wait for each other (A6): each has its own backoff after failures, and a load
//! that does not complete releases its slot to others. [`targets`] and [`slots`] decide; this loop
//! carries out.

mod slots;
mod targets;

use std::sync::Arc;

use futures::stream::{FuturesUnordered, StreamExt};
use tidewater_common::ids::{ManifestVersion, RegionId};
use tidewater_region_engine::EngineError;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use self::slots::LoadSlots;
pub use self::targets::ManifestTargets;
use super::shared::ReplicaState;

#[cfg(test)]
mod tests;

/// Runs until the replica stops.
pub async fn run(shared: Arc<ReplicaState>) {
    let mut slots = LoadSlots::default();
    let mut running = FuturesUnordered::new();
    loop {
        let now = Instant::now();
        while let Some(region) =
            slots.has_room(now).then(|| shared.targets.start_next(now)).flatten()
        {
            slots.begin(now);
            let shared = shared.clone();
            running.push(async move { (region, now, load(&shared, region).await) });
        }
        // The next event that allows another load: the end of a backoff, or a load that becomes
        // slow.
        let wake =
            if slots.has_room(now) { shared.targets.next_due() } else { slots.next_room(now) };
        tokio::select! {
            () = shared.stopping.cancelled() => return,
            () = shared.targets.wait_changed() => {}
            () = sleep_until(wake) => {}
            Some((region, begun, current)) = running.next(), if !running.is_empty() => {
                slots.end(begun);
                finish(&shared, region, current);
            }
        }
    }
}

async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake).await,
        None => std::future::pending().await,
    }
}

fn finish(shared: &ReplicaState, region: RegionId, loaded: Result<(), EngineError>) {
    let now = Instant::now();
    let bits = shared.env.ids.jitter_bits();
    let group = shared.group;
    match loaded {
        Ok(()) => {
            let failures = shared.targets.finish_load(region, now, bits);
            if shared.targets.is_open(region) {
                let error = "the stored manifest is older than the version in the log".to_owned();
                shared.failing_loads.record_failure(region, error, now);
            } else {
                shared.failing_loads.clear(region);
            }
            if failures > 0 {
                info!(%group, %region, failures, "region manifest is readable again");
            }
        }
        // One line at the first failure: heartbeats report how many regions are affected.
        Err(error) => {
            shared.failing_loads.record_failure(region, error.to_string(), now);
            match shared.targets.fail_load(region, now, bits) {
                1 => warn!(%group, %region, %error, "failed to read region manifest; retrying"),
                failures => {
                    debug!(%group, %region, %error, failures, "failed to read region manifest again")
                }
            }
        }
    }
}

async fn load(shared: &Arc<ReplicaState>, region: RegionId) -> Result<(), EngineError> {
    let Some(hosted) = shared.regions.get(region) else {
        shared.targets.remove(region);
        return Ok(());
    };
    let version = match hosted.region.load().await {
        Ok(version) => version,
        // A removed or closed region has nothing left to load.
        Err(EngineError::Closed { .. } | EngineError::Removed { .. }) => ManifestVersion(u64::MAX),
        Err(error) => return Err(error),
    };
    debug!(group = %shared.group, %region, %version, "manifest loaded");
    shared.record_loaded(region, &hosted.region, version);
    Ok(())
}
