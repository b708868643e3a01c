//! A durable hook: a reader of the manifest calls it, one call after another, each until it
//! succeeds.

use std::sync::Arc;

use super::error::HookError;
use super::event::{EventSource, HookEvent, RegionEvent};
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

    /// Delivers a version of the manifest of the region in `source`.
    ///
    /// # Errors
    /// The hook failed, panicked, or timed out: the call may have taken effect or not.
    pub async fn manifest_updated(
        &self,
        source: &EventSource,
        past: &PastDelta,
    ) -> Result<(), HookError> {
        let actions = RegionMetaActionList::new(past.delta.clone(), past.schema.clone());
        let event = HookEvent::ManifestUpdated { actions, manifest: past.manifest };
        self.deliver(source, event).await
    }

    /// Delivers the snapshot of the region in `source` from which the hook starts.
    ///
    /// # Errors
    /// As [`Self::manifest_updated`].
    pub async fn bootstrap(
        &self,
        source: &EventSource,
        snapshot: RegionSnapshot,
    ) -> Result<(), HookError> {
        self.deliver(source, HookEvent::Bootstrap(snapshot)).await
    }

    async fn deliver(&self, source: &EventSource, event: HookEvent) -> Result<(), HookError> {
        let event = RegionEvent { source: source.clone(), event };
        self.hook.call_ignoring_suspension(Arc::new(event)).await
    }
}
