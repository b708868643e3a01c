//! A durable hook: a reader of the manifest calls it, one call after another, each until it
//! succeeds.

use std::sync::Arc;

use tidewater_common::ids::RegionId;

use super::error::HookError;
use super::event::HookEvent;
use super::payload::{RegionMetaActionList, RegionSnapshot};
use super::shield::ShieldedHook;
use crate::manifest::history::PastDelta;

/// A durable hook of a registry, behind its shield: calls have a time limit, panics are caught,
/// results are counted. It is never suspended: its caller backs off after a failure.
#[derive(Debug, Clone)]
pub struct DurableHook {
    hook: Arc<ShieldedHook>,
}

impl DurableHook {
    pub(super) fn new(hook: Arc<ShieldedHook>) -> Self {
        Self { hook }
    }

    /// Returns `true` if an operator has paused the hook: its caller waits until it is resumed.
    pub fn is_paused(&self) -> bool {
        self.hook.is_paused()
    }

    /// Delivers a version of a region's manifest.
    ///
    /// # Errors
    /// The hook failed, panicked, or timed out: the call may have taken effect or not.
    pub async fn manifest_updated(&self, past: &PastDelta) -> Result<(), HookError> {
        let actions = RegionMetaActionList::new(past.delta.clone());
        let event = HookEvent::ManifestUpdated { actions, manifest: past.manifest };
        self.deliver(past.delta.region, event).await
    }

    /// Delivers the snapshot from which the hook starts.
    pub async fn bootstrap(&self, snapshot: RegionSnapshot) -> Result<(), HookError> {
        self.deliver(snapshot.region(), HookEvent::Bootstrap(snapshot)).await
    }

    async fn deliver(&self, region: RegionId, event: HookEvent) -> Result<(), HookError> {
        self.hook.call_ignoring_suspension(region, Arc::new(event)).await
    }
}
