//! The hooks of one region, and one function for each event.

use std::sync::Arc;

use tidewater_common::ids::{OwnerEpoch, RegionId, TableId};

use super::error::HookError;
use super::event::HookEvent;
use super::hook::RegionHook;
use super::payload::{
    FilesRemoved, GcPass, ManifestKind, RegionMetaActionList, RegionRole, SstFileInfo,
};
use super::plugins::Plugins;
use crate::layout::RegionDir;
use crate::manifest::Delta;
use crate::region::RegionSpec;

/// Calls every hook that sees the region, one after another in order of name. Must not be called
/// while a manifest's write lock is held.
#[derive(Debug, Clone)]
pub(crate) struct RegionHooks {
    plugins: Plugins,
    region: RegionId,
    table: TableId,
}

impl RegionHooks {
    /// Creates the caller of the hooks that see this region.
    pub(crate) fn new(plugins: &Plugins, dir: RegionDir) -> Self {
        Self { plugins: plugins.clone(), region: dir.region_id, table: dir.table_id }
    }

    /// Notifies hooks that data files were written and are about to be committed. Waits for the
    /// hooks; the commit proceeds whatever they return.
    pub(crate) async fn sst_files_written(
        &self,
        metadata: Arc<RegionSpec>,
        files: Arc<[SstFileInfo]>,
    ) {
        if !files.is_empty() {
            self.notify(HookEvent::SstFilesWritten { metadata, files }).await;
        }
    }

    /// Notifies hooks that a logical change was committed. The write lock has been released.
    pub(crate) async fn manifest_updated(&self, delta: Arc<Delta>, manifest: ManifestKind) {
        let actions = RegionMetaActionList::new(delta);
        self.notify(HookEvent::ManifestUpdated { actions, manifest }).await;
    }

    /// Notifies hooks that the region entered the active set.
    pub(crate) async fn opened(&self, metadata: Arc<RegionSpec>) {
        self.notify(HookEvent::Opened { metadata }).await;
    }

    /// Notifies hooks that the region left the active set; its files are kept.
    pub(crate) async fn closed(&self, metadata: Arc<RegionSpec>) {
        self.notify(HookEvent::Closed { metadata }).await;
    }

    /// Notifies hooks that the region left the active set permanently.
    pub(crate) async fn dropped(&self, metadata: Arc<RegionSpec>) {
        self.notify(HookEvent::Dropped { metadata }).await;
    }

    /// Notifies hooks that the replica's role in the region changed.
    pub(crate) async fn role_changed(&self, old: RegionRole, new: RegionRole, epoch: OwnerEpoch) {
        self.notify(HookEvent::RoleChanged { old, new, epoch }).await;
    }

    /// Notifies hooks that data objects were deleted.
    pub(crate) async fn files_removed(&self, removed: FilesRemoved) {
        self.notify(HookEvent::FilesRemoved(removed)).await;
    }

    /// Notifies hooks that a garbage collection pass has ended. Returns the first error of a hook:
    /// the notification is repeated.
    pub(crate) async fn region_gc(&self, pass: GcPass) -> Result<(), HookError> {
        self.call_all(HookEvent::Gc(pass)).await
    }

    async fn notify(&self, event: HookEvent) {
        // The shield has counted and logged failures; they change nothing here.
        let _ = self.call_all(event).await;
    }

    async fn call_all(&self, event: HookEvent) -> Result<(), HookError> {
        let event = Arc::new(event);
        let mut result = Ok(());
        for hook in self.plugins.hooks_of(self.table) {
            result = result.and(hook.call(self.region, event.clone()).await);
        }
        result
    }
}

impl HookEvent {
    /// Returns the name for operators and metrics.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::SstFilesWritten { .. } => "sst_files_written",
            Self::ManifestUpdated { .. } => "manifest_updated",
            Self::Opened { .. } => "region_opened",
            Self::Closed { .. } => "region_closed",
            Self::Dropped { .. } => "region_dropped",
            Self::RoleChanged { .. } => "region_role_changed",
            Self::FilesRemoved(_) => "files_removed",
            Self::Gc(_) => "region_gc",
            Self::Bootstrap(_) => "bootstrap",
        }
    }

    pub(super) async fn deliver(
        &self,
        hook: &dyn RegionHook,
        region: RegionId,
    ) -> Result<(), HookError> {
        match self {
            Self::SstFilesWritten { metadata, files } => {
                hook.on_sst_files_written(region, metadata, files).await
            }
            Self::ManifestUpdated { actions, manifest } => {
                hook.on_manifest_updated(region, actions, actions.version(), *manifest).await
            }
            Self::Opened { metadata } => hook.on_region_opened(region, metadata).await,
            Self::Closed { metadata } => hook.on_region_closed(region, metadata).await,
            Self::Dropped { metadata } => hook.on_region_dropped(region, metadata).await,
            Self::RoleChanged { old, new, epoch } => {
                hook.on_region_role_changed(region, *old, *new, *epoch).await
            }
            Self::FilesRemoved(removed) => hook.on_files_removed(region, removed).await,
            Self::Gc(pass) => hook.on_region_gc(region, pass).await,
            Self::Bootstrap(snapshot) => hook.on_bootstrap(region, snapshot).await,
        }
    }
}
