//! Follows manifests in the background: a *target* is the version that the log says a region has
//! reached; the loader reads the manifest, whereupon the region drops the runs that are flushed.
//! Apply only sets targets, so it never waits for object storage.
//!
//! No region waits for another (A6): each has its own pauses after failures, and a load that does
//! not end leaves its slot to others. [`targets`] and [`slots`] decide, this loop carries out.

mod slots;
mod targets;

use std::sync::Arc;

use futures::stream::{FuturesUnordered, StreamExt};
use tidewater_common::ids::{ManifestVersion, RegionId};
use tidewater_region_engine::EngineError;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use self::slots::Slots;
pub use self::targets::Targets;
use super::shared::Shared;

#[cfg(test)]
mod tests;

/// Runs until the replica stops.
pub async fn run(shared: Arc<Shared>) {
    let mut slots = Slots::default();
    let mut running = FuturesUnordered::new();
    loop {
        let now = Instant::now();
        while let Some(region) = slots.room(now).then(|| shared.targets.begin(now)).flatten() {
            slots.begin(now);
            let shared = shared.clone();
            running.push(async move { (region, now, load(&shared, region).await) });
        }
        // Whichever comes first makes something startable: a pause ends, a load turns out slow.
        let wake = if slots.room(now) { shared.targets.next_due() } else { slots.next_room(now) };
        tokio::select! {
            () = shared.stopping.cancelled() => return,
            () = shared.targets.changed() => {}
            () = sleep_until(wake) => {}
            Some((region, begun, current)) = running.next(), if !running.is_empty() => {
                slots.end(begun);
                settle(&shared, region, current);
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

fn settle(shared: &Shared, region: RegionId, loaded: Result<(), EngineError>) {
    let now = Instant::now();
    let group = shared.group;
    match loaded {
        Ok(()) => {
            let failures = shared.targets.loaded(region, now);
            if failures > 0 {
                info!(%group, %region, failures, "the region's manifest can be read again");
            }
        }
        // One line when it begins to fail: the heartbeats say for how many regions it lasts.
        Err(error) => match shared.targets.failed(region, now) {
            1 => warn!(%group, %region, %error, "cannot read a region's manifest: trying again"),
            failures => debug!(%group, %region, %error, failures, "cannot read a manifest yet"),
        },
    }
}

async fn load(shared: &Arc<Shared>, region: RegionId) -> Result<(), EngineError> {
    let Some(hosted) = shared.regions.get(region) else {
        shared.targets.forget(region);
        return Ok(());
    };
    let version = match hosted.region.load().await {
        Ok(version) => version,
        // There is nothing more to follow.
        Err(EngineError::Closed { .. } | EngineError::Removed { .. }) => ManifestVersion(u64::MAX),
        Err(error) => return Err(error),
    };
    debug!(group = %shared.group, %region, %version, "manifest loaded");
    shared.reached(region, &hosted.region, version);
    Ok(())
}
