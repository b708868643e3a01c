//! The trait of hooks.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use tidewater_common::ids::{ManifestVersion, OwnerEpoch, RegionId};

use super::error::HookError;
use super::event::{HookEvent, RegionEvent};
use super::payload::{
    FilesRemoved, GcPass, ManifestKind, RegionMetaActionList, RegionRole, RegionSnapshot,
    SstFileInfo,
};
use crate::region::RegionSpec;

/// A hook as it is registered.
pub type RegionHookRef = Arc<dyn RegionHook>;

/// Observes regions. All methods default to no operation.
///
/// Calls are at most once: a crash between commit and call loses the call. Calls for one region may
/// overlap and arrive out of order when its operations do; a hook that needs an order uses the
/// manifest version. A call that exceeds the registry's time limit is cancelled.
///
/// A durable hook receives `on_manifest_updated` and `on_bootstrap` only: for every version of the
/// manifest, at least once, without a gap, and the first delivery of each in order of version. A
/// failed call is repeated.
#[async_trait]
pub trait RegionHook: Debug + Send + Sync + 'static {
    /// Returns the name: unique within a registry; hooks are called in order of name.
    fn name(&self) -> &str {
        std::any::type_name::<Self>()
    }

    /// Returns the number of accepted calls whose effect has not reached its destination.
    fn backlog(&self) -> u64 {
        0
    }

    /// Returns the number of accepted calls that were dropped later: they count as failures.
    fn lost(&self) -> u64 {
        0
    }

    /// Called for every event. The default calls the method that is named after the event. A hook that
    /// handles all events alike, or needs the region's table and incarnation, implements this method only.
    async fn on_event(&self, event: &RegionEvent) -> Result<(), HookError> {
        let region = event.region();
        match &event.event {
            HookEvent::SstFilesWritten { metadata, files } => {
                self.on_sst_files_written(region, metadata, files).await
            }
            HookEvent::ManifestUpdated { actions, manifest } => {
                self.on_manifest_updated(region, actions, actions.version(), *manifest).await
            }
            HookEvent::Opened { metadata } => self.on_region_opened(region, metadata).await,
            HookEvent::Closed { metadata } => self.on_region_closed(region, metadata).await,
            HookEvent::Dropped { metadata } => self.on_region_dropped(region, metadata).await,
            HookEvent::RoleChanged { old, new, epoch } => {
                self.on_region_role_changed(region, *old, *new, *epoch).await
            }
            HookEvent::FilesRemoved(removed) => self.on_files_removed(region, removed).await,
            HookEvent::Gc(pass) => self.on_region_gc(region, pass).await,
            HookEvent::Bootstrap(snapshot) => self.on_bootstrap(region, snapshot).await,
        }
    }

    /// Called when a flush or a compaction has written its data files; no manifest references them
    /// yet, and perhaps none ever will. The commit waits for this call, and proceeds whatever it
    /// returns. It does not wait for a probe of a suspended hook.
    async fn on_sst_files_written(
        &self,
        region: RegionId,
        metadata: &RegionSpec,
        files: &[SstFileInfo],
    ) -> Result<(), HookError> {
        let _ = (region, metadata, files);
        Ok(())
    }

    /// Called when a logical change of the manifest was committed as `version`. For every file that
    /// it adds and that a flush or a compaction wrote,
    /// [`on_sst_files_written`](Self::on_sst_files_written) was called first.
    async fn on_manifest_updated(
        &self,
        region: RegionId,
        actions: &RegionMetaActionList,
        version: ManifestVersion,
        manifest: ManifestKind,
    ) -> Result<(), HookError> {
        let _ = (region, actions, version, manifest);
        Ok(())
    }

    /// Called when a durable hook starts from this snapshot: on request, or because the deltas
    /// after those that it had received were deleted. Files that the snapshot does not contain are
    /// not live.
    async fn on_bootstrap(
        &self,
        region: RegionId,
        snapshot: &RegionSnapshot,
    ) -> Result<(), HookError> {
        let _ = (region, snapshot);
        Ok(())
    }

    /// Called when the region starts serving on this node.
    async fn on_region_opened(
        &self,
        region: RegionId,
        metadata: &RegionSpec,
    ) -> Result<(), HookError> {
        let _ = (region, metadata);
        Ok(())
    }

    /// Called when the region was closed on this node; its files are kept.
    async fn on_region_closed(
        &self,
        region: RegionId,
        metadata: &RegionSpec,
    ) -> Result<(), HookError> {
        let _ = (region, metadata);
        Ok(())
    }

    /// Called when the region was dropped; its files are not deleted yet.
    async fn on_region_dropped(
        &self,
        region: RegionId,
        metadata: &RegionSpec,
    ) -> Result<(), HookError> {
        let _ = (region, metadata);
        Ok(())
    }

    /// Called when this replica's role in the region has changed. `epoch`: the owner epoch known to
    /// the replica.
    async fn on_region_role_changed(
        &self,
        region: RegionId,
        old: RegionRole,
        new: RegionRole,
        epoch: OwnerEpoch,
    ) -> Result<(), HookError> {
        let _ = (region, old, new, epoch);
        Ok(())
    }

    /// Called when data objects of the region were deleted.
    async fn on_files_removed(
        &self,
        region: RegionId,
        removed: &FilesRemoved,
    ) -> Result<(), HookError> {
        let _ = (region, removed);
        Ok(())
    }

    /// Called when a garbage collection pass over the region has ended. After an error the call is
    /// repeated.
    async fn on_region_gc(&self, region: RegionId, pass: &GcPass) -> Result<(), HookError> {
        let _ = (region, pass);
        Ok(())
    }
}
