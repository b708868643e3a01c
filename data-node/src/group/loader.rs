//! Follows manifests in the background: a *target* is the version that the log says a region has
//! reached; the loader reads the manifest, whereupon the region drops the runs that are flushed.
//! Apply only sets targets, so it never waits for object storage.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, StreamExt};
use parking_lot::Mutex;
use tidewater_common::ids::{ManifestVersion, RegionId};
use tidewater_region_engine::EngineError;
use tokio::sync::Notify;
use tracing::{debug, warn};

use super::shared::Shared;

/// Manifests read at the same time, per group.
const CONCURRENCY: usize = 4;
/// First and longest wait before a manifest that could not be read is tried again.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

#[derive(Debug, Clone, Copy, Default)]
struct Target {
    want: ManifestVersion,
    // `None` until the manifest was read once.
    have: Option<ManifestVersion>,
}

impl Target {
    fn is_open(&self) -> bool {
        self.have.is_none_or(|have| have < self.want)
    }
}

/// Versions wanted and loaded, per region.
#[derive(Debug, Default)]
pub struct Targets {
    by_region: Mutex<BTreeMap<RegionId, Target>>,
    changed: Notify,
    loaded: Notify,
}

impl Targets {
    /// Wants the manifest at this version or later; 0: whatever there is.
    pub fn want(&self, region: RegionId, version: ManifestVersion) {
        let mut targets = self.by_region.lock();
        let target = targets.entry(region).or_default();
        target.want = target.want.max(version);
        drop(targets);
        self.changed.notify_one();
    }

    /// The manifest was read, or written, up to this version.
    pub fn reached(&self, region: RegionId, version: ManifestVersion) {
        if let Some(target) = self.by_region.lock().get_mut(&region) {
            target.have = target.have.max(Some(version));
        }
        self.loaded.notify_waiters();
    }

    /// Reads a manifest again though its target is reached.
    pub fn reload(&self, region: RegionId) {
        if let Some(target) = self.by_region.lock().get_mut(&region) {
            target.have = None;
        }
        self.changed.notify_one();
    }

    /// The region is no longer hosted.
    pub fn forget(&self, region: RegionId) {
        self.by_region.lock().remove(&region);
    }

    /// All regions are gone.
    pub fn clear(&self) {
        self.by_region.lock().clear();
    }

    fn open(&self) -> Vec<RegionId> {
        let targets = self.by_region.lock();
        targets.iter().filter(|(_, target)| target.is_open()).map(|(id, _)| *id).collect()
    }

    /// Waits until some manifest was read, or for `limit`.
    pub async fn some_loaded(&self, limit: Duration) {
        let _ = tokio::time::timeout(limit, self.loaded.notified()).await;
    }
}

/// Runs until the replica stops.
pub async fn run(shared: Arc<Shared>) {
    let mut wait = BACKOFF.0;
    loop {
        let open = shared.targets.open();
        if open.is_empty() {
            tokio::select! {
                () = shared.stopping.cancelled() => return,
                () = shared.targets.changed.notified() => continue,
            }
        }
        let failed = tokio::select! {
            () = shared.stopping.cancelled() => return,
            failed = load_all(&shared, open) => failed,
        };
        if !failed {
            wait = BACKOFF.0;
            continue;
        }
        tokio::select! {
            () = shared.stopping.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
        wait = (wait * 2).min(BACKOFF.1);
    }
}

/// Whether any manifest could not be read.
async fn load_all(shared: &Arc<Shared>, regions: Vec<RegionId>) -> bool {
    stream::iter(regions)
        .map(|region| load(shared, region))
        .buffer_unordered(CONCURRENCY)
        .fold(false, |failed, one| async move { failed || one })
        .await
}

async fn load(shared: &Arc<Shared>, region: RegionId) -> bool {
    let Some(hosted) = shared.regions.get(region) else {
        shared.targets.forget(region);
        return false;
    };
    match hosted.region.load().await {
        Ok(version) => {
            debug!(group = %shared.group, %region, %version, "manifest loaded");
            shared.reached(region, &hosted.region, version);
            // A version that the log names is committed, so a listing that does not show it is
            // stale: it is read again.
            shared.targets.by_region.lock().get(&region).is_some_and(Target::is_open)
        }
        Err(EngineError::Closed { .. } | EngineError::Removed { .. }) => {
            shared.reached(region, &hosted.region, ManifestVersion(u64::MAX));
            false
        }
        Err(error) => {
            warn!(group = %shared.group, %region, %error, "cannot read a region's manifest");
            true
        }
    }
}
