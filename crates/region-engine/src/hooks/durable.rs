//! A hook that is told by whoever reads the manifest: one call after another, each until it succeeds.

use std::sync::Arc;

use tidewater_common::ids::RegionId;

use super::calls::HookEvent;
use super::error::HookError;
use super::payload::{RegionMetaActionList, RegionSnapshot};
use super::shield::ShieldedHook;
use crate::manifest::history::PastDelta;

/// A durable hook of a registry, behind its shield: calls have a time limit, panics are caught,
/// results are counted. It is never suspended: whoever calls it waits after a failure.
#[derive(Debug, Clone)]
pub struct DurableHook {
    shielded: Arc<ShieldedHook>,
}

impl DurableHook {
    pub(super) fn new(shielded: Arc<ShieldedHook>) -> Self {
        Self { shielded }
    }

    /// Whether somebody asked that it be left out: calls wait until it is resumed.
    pub fn is_paused(&self) -> bool {
        self.shielded.is_paused()
    }

    /// Tells it of a version of a region's manifest.
    ///
    /// # Errors
    /// It failed, panicked, or was late: what it was told may have taken effect or not.
    pub async fn manifest_updated(&self, past: &PastDelta) -> Result<(), HookError> {
        let actions = RegionMetaActionList::new(past.delta.clone());
        let event = HookEvent::ManifestUpdated { actions, manifest: past.manifest };
        self.tell(past.delta.region, event).await
    }

    /// Tells it where it begins.
    ///
    /// # Errors
    /// As [`manifest_updated`](Self::manifest_updated).
    pub async fn bootstrap(&self, snapshot: RegionSnapshot) -> Result<(), HookError> {
        self.tell(snapshot.region(), HookEvent::Bootstrap(snapshot)).await
    }

    async fn tell(&self, region: RegionId, event: HookEvent) -> Result<(), HookError> {
        self.shielded.insist(region, Arc::new(event)).await
    }
}
