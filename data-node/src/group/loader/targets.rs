//! Which manifests are to be read, and when: versions wanted and had, pauses after failures.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use tidewater_common::ids::{ManifestVersion, RegionId};
use tokio::sync::Notify;
use tokio::time::Instant;

/// First and longest pause before a manifest that could not be read is tried again.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

#[derive(Debug, Clone, Copy, Default)]
struct Target {
    want: ManifestVersion,
    // `None` until the manifest was read once.
    have: Option<ManifestVersion>,
    loading: bool,
    // Since it was last read as far as wanted.
    failures: u32,
    not_before: Option<Instant>,
}

impl Target {
    fn is_open(&self) -> bool {
        self.have.is_none_or(|have| have < self.want)
    }

    fn failed(&mut self, now: Instant) -> u32 {
        let factor = 1_u32 << self.failures.min(16);
        self.failures = self.failures.saturating_add(1);
        self.not_before = Some(now + BACKOFF.0.saturating_mul(factor).min(BACKOFF.1));
        self.failures
    }
}

/// Versions wanted and loaded, per region. Locked for moments only.
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

    /// Waits until some manifest was read, or for `limit`.
    pub async fn some_loaded(&self, limit: Duration) {
        let _ = tokio::time::timeout(limit, self.loaded.notified()).await;
    }

    /// Whether the region's manifest is still to be read.
    pub fn is_open(&self, region: RegionId) -> bool {
        self.by_region.lock().get(&region).is_some_and(Target::is_open)
    }

    /// Waits until there is something else to read.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// A region whose manifest is to be read now; it is being loaded from here on. Those that have
    /// not failed come first.
    pub(super) fn begin(&self, now: Instant) -> Option<RegionId> {
        let mut targets = self.by_region.lock();
        let (id, target) = targets
            .iter_mut()
            .filter(|(_, target)| target.is_open() && !target.loading)
            .filter(|(_, target)| target.not_before.is_none_or(|when| when <= now))
            .min_by_key(|(id, target)| (target.failures, **id))?;
        target.loading = true;
        Some(*id)
    }

    /// When the next pause ends.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let targets = self.by_region.lock();
        let waiting = targets.values().filter(|target| target.is_open() && !target.loading);
        waiting.filter_map(|target| target.not_before).min()
    }

    /// A load has ended well; how many before it had not. One that did not bring the version that
    /// the log names, which is committed, saw a stale listing: it counts as failed.
    pub(super) fn loaded(&self, region: RegionId, now: Instant) -> u32 {
        let mut targets = self.by_region.lock();
        let Some(target) = targets.get_mut(&region) else { return 0 };
        target.loading = false;
        if target.is_open() {
            target.failed(now);
            return 0;
        }
        target.not_before = None;
        std::mem::take(&mut target.failures)
    }

    /// A load has failed; how many have, one after another.
    pub(super) fn failed(&self, region: RegionId, now: Instant) -> u32 {
        let mut targets = self.by_region.lock();
        let Some(target) = targets.get_mut(&region) else { return 0 };
        target.loading = false;
        target.failed(now)
    }
}
