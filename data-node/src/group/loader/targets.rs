//! Manifests to read and their schedule: wanted and loaded versions, backoff after failures.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use tidewater_common::backoff::Backoff;
use tidewater_common::ids::{ManifestVersion, RegionId};
use tokio::sync::Notify;
use tokio::time::Instant;

/// Backoff after failed reads of a manifest.
const BACKOFF: Backoff =
    Backoff { first: Duration::from_millis(250), longest: Duration::from_secs(5) };

#[derive(Debug, Clone, Copy, Default)]
struct ManifestTarget {
    want: ManifestVersion,
    // `None` until the manifest has been read once.
    have: Option<ManifestVersion>,
    loading: bool,
    // Failed reads since the wanted version was last reached.
    failures: u32,
    not_before: Option<Instant>,
}

impl ManifestTarget {
    fn is_open(&self) -> bool {
        self.have.is_none_or(|have| have < self.want)
    }

    fn record_failure(&mut self, now: Instant, bits: u64) -> u32 {
        self.failures = self.failures.saturating_add(1);
        self.not_before = Some(now + BACKOFF.wait(self.failures, None, bits));
        self.failures
    }
}

/// Wanted and loaded manifest versions by region. Locked for map operations only.
#[derive(Debug, Default)]
pub struct ManifestTargets {
    by_region: Mutex<BTreeMap<RegionId, ManifestTarget>>,
    changed: Notify,
    loaded: Notify,
}

impl ManifestTargets {
    /// Requests the manifest at this version or later; 0: at any version.
    pub fn request(&self, region: RegionId, version: ManifestVersion) {
        let mut targets = self.by_region.lock();
        let target = targets.entry(region).or_default();
        target.want = target.want.max(version);
        drop(targets);
        self.changed.notify_one();
    }

    /// Records that the manifest was read, or written, up to this version.
    pub fn record_loaded(&self, region: RegionId, version: ManifestVersion) {
        if let Some(target) = self.by_region.lock().get_mut(&region) {
            target.have = target.have.max(Some(version));
        }
        self.loaded.notify_waiters();
    }

    /// Requests another read of a manifest whose target is reached.
    pub fn reload(&self, region: RegionId) {
        if let Some(target) = self.by_region.lock().get_mut(&region) {
            target.have = None;
        }
        self.changed.notify_one();
    }

    /// Removes a region that is no longer hosted.
    pub fn remove(&self, region: RegionId) {
        self.by_region.lock().remove(&region);
    }

    /// Removes all regions.
    pub fn clear(&self) {
        self.by_region.lock().clear();
    }

    /// Waits until any manifest was read, at most for `limit`.
    pub async fn wait_any_loaded(&self, limit: Duration) {
        let _ = tokio::time::timeout(limit, self.loaded.notified()).await;
    }

    /// Returns whether the region's manifest has yet to be read.
    pub fn is_open(&self, region: RegionId) -> bool {
        self.by_region.lock().get(&region).is_some_and(ManifestTarget::is_open)
    }

    /// Waits for a change of the targets.
    pub(super) async fn wait_changed(&self) {
        self.changed.notified().await;
    }

    /// Marks a region whose manifest is to be read now as loading and returns it. Regions without
    /// failures come first.
    pub(super) fn start_next(&self, now: Instant) -> Option<RegionId> {
        let mut targets = self.by_region.lock();
        let (id, target) = targets
            .iter_mut()
            .filter(|(_, target)| target.is_open() && !target.loading)
            .filter(|(_, target)| target.not_before.is_none_or(|when| when <= now))
            .min_by_key(|(id, target)| (target.failures, **id))?;
        target.loading = true;
        Some(*id)
    }

    /// Time at which the next backoff ends.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let targets = self.by_region.lock();
        let waiting = targets.values().filter(|target| target.is_open() && !target.loading);
        waiting.filter_map(|target| target.not_before).min()
    }

    /// Records a successful load and returns the number of failures before it. A load without the
    /// committed version that the log names read a stale listing: it counts as failed,
    /// and random `bits` spread the backoff.
    pub(super) fn finish_load(&self, region: RegionId, now: Instant, bits: u64) -> u32 {
        let mut targets = self.by_region.lock();
        let Some(target) = targets.get_mut(&region) else { return 0 };
        target.loading = false;
        if target.is_open() {
            target.record_failure(now, bits);
            return 0;
        }
        target.not_before = None;
        std::mem::take(&mut target.failures)
    }

    /// Records a failed load and returns the number of consecutive failures. Random `bits` spread the
    /// backoff.
    pub(super) fn fail_load(&self, region: RegionId, now: Instant, bits: u64) -> u32 {
        let mut targets = self.by_region.lock();
        let Some(target) = targets.get_mut(&region) else { return 0 };
        target.loading = false;
        target.record_failure(now, bits)
    }
}
