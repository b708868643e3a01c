//! The hooks of one region, and one function for each event.

use std::sync::Arc;

use tidewater_common::ids::{OwnerEpoch, RegionId, TableId};

use super::error::HookError;
use super::hook::RegionHook;
use super::payload::{
    FilesRemoved, GcPass, ManifestKind, RegionMetaActionList, RegionRole, RegionSnapshot,
    SstFileInfo,
};
use super::plugins::Plugins;
use crate::layout::RegionDir;
use crate::manifest::Delta;
use crate::region::RegionSpec;

/// Calls every hook that sees the region, one after another in order of name. Never call it with a
/// manifest's write lock held.
#[derive(Debug, Clone)]
pub(crate) struct RegionHooks {
    plugins: Plugins,
    region: RegionId,
    table: TableId,
}

/// What hooks are told.
#[derive(Debug)]
pub(super) enum HookEvent {
    SstFilesWritten { metadata: Arc<RegionSpec>, files: Arc<[SstFileInfo]> },
    ManifestUpdated { actions: RegionMetaActionList, manifest: ManifestKind },
    Opened { metadata: Arc<RegionSpec> },
    Closed { metadata: Arc<RegionSpec> },
    Dropped { metadata: Arc<RegionSpec> },
    RoleChanged { old: RegionRole, new: RegionRole, epoch: OwnerEpoch },
    FilesRemoved(FilesRemoved),
    Gc(GcPass),
    Bootstrap(RegionSnapshot),
}

impl RegionHooks {
    /// The hooks that see this region.
    pub(crate) fn new(plugins: &Plugins, dir: RegionDir) -> Self {
        Self { plugins: plugins.clone(), region: dir.region_id, table: dir.table_id }
    }

    /// Data files were written, and are about to be committed. Waits for the hooks; whatever they
    /// answer, the commit goes on.
    pub(crate) async fn sst_files_written(
        &self,
        metadata: Arc<RegionSpec>,
        files: Arc<[SstFileInfo]>,
    ) {
        if !files.is_empty() {
            self.tell(HookEvent::SstFilesWritten { metadata, files }).await;
        }
    }

    /// A logical change was committed, and the write lock given back.
    pub(crate) async fn manifest_updated(&self, delta: Arc<Delta>, manifest: ManifestKind) {
        let actions = RegionMetaActionList::new(delta);
        self.tell(HookEvent::ManifestUpdated { actions, manifest }).await;
    }

    /// The region entered the active set.
    pub(crate) async fn opened(&self, metadata: Arc<RegionSpec>) {
        self.tell(HookEvent::Opened { metadata }).await;
    }

    /// The region left the active set; its files are kept.
    pub(crate) async fn closed(&self, metadata: Arc<RegionSpec>) {
        self.tell(HookEvent::Closed { metadata }).await;
    }

    /// The region left the active set for good.
    pub(crate) async fn dropped(&self, metadata: Arc<RegionSpec>) {
        self.tell(HookEvent::Dropped { metadata }).await;
    }

    /// The replica's part in the region changed.
    pub(crate) async fn role_changed(&self, old: RegionRole, new: RegionRole, epoch: OwnerEpoch) {
        self.tell(HookEvent::RoleChanged { old, new, epoch }).await;
    }

    /// Data objects were deleted.
    pub(crate) async fn files_removed(&self, removed: FilesRemoved) {
        self.tell(HookEvent::FilesRemoved(removed)).await;
    }

    /// A garbage collection pass has ended. The first error of a hook: the pass is made again.
    pub(crate) async fn region_gc(&self, pass: GcPass) -> Result<(), HookError> {
        self.tell_all(HookEvent::Gc(pass)).await
    }

    async fn tell(&self, event: HookEvent) {
        // The shield has counted and logged what went wrong: it changes nothing here.
        let _ = self.tell_all(event).await;
    }

    async fn tell_all(&self, event: HookEvent) -> Result<(), HookError> {
        let event = Arc::new(event);
        let mut result = Ok(());
        for hook in self.plugins.of(self.table) {
            result = result.and(hook.call(self.region, event.clone()).await);
        }
        result
    }
}

impl HookEvent {
    /// As operators read it.
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
