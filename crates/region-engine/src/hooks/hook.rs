//! The trait.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use tidewater_common::ids::{ManifestVersion, OwnerEpoch, RegionId};

use super::error::HookError;
use super::payload::{
    FilesRemoved, GcPass, ManifestKind, RegionMetaActionList, RegionRole, RegionSnapshot,
    SstFileInfo,
};
use crate::region::RegionSpec;

/// A hook as it is registered.
pub type RegionHookRef = Arc<dyn RegionHook>;

/// Observes regions. Every method does nothing unless it is written.
///
/// Calls are at most once: a crash between commit and call loses the call. Calls for one region may
/// overlap and come out of order when its operations do; whoever needs an order takes the manifest
/// version. A call that takes longer than the registry's time limit is given up.
///
/// A durable hook gets `on_manifest_updated` and `on_bootstrap` only: for every version of the
/// manifest, at least once, without a gap, for the first time in order of version. A call that it
/// fails is made again.
#[async_trait]
pub trait RegionHook: Debug + Send + Sync + 'static {
    /// Unique within a registry; hooks are called in order of name.
    fn name(&self) -> &str {
        std::any::type_name::<Self>()
    }

    /// Calls that were taken and whose effect has not reached its destination.
    fn backlog(&self) -> u64 {
        0
    }

    /// Calls that were taken and then given up: they count as failures.
    fn lost(&self) -> u64 {
        0
    }

    /// A flush or a compaction has written its data files; no manifest names them yet, and perhaps
    /// none ever will. The commit waits for this call, and is made whatever it returns. It does not
    /// wait for a hook that was suspended and is tried again.
    async fn on_sst_files_written(
        &self,
        region: RegionId,
        metadata: &RegionSpec,
        files: &[SstFileInfo],
    ) -> Result<(), HookError> {
        let _ = (region, metadata, files);
        Ok(())
    }

    /// A logical change of the manifest was committed as `version`. For every file that it adds and
    /// that a flush or a compaction wrote, [`on_sst_files_written`](Self::on_sst_files_written) came
    /// first.
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

    /// A durable hook begins with this snapshot: because it was asked for, or because the deltas
    /// after those that it had seen are gone. Files that the snapshot does not name are not live.
    async fn on_bootstrap(
        &self,
        region: RegionId,
        snapshot: &RegionSnapshot,
    ) -> Result<(), HookError> {
        let _ = (region, snapshot);
        Ok(())
    }

    /// The region serves on this node from here on.
    async fn on_region_opened(
        &self,
        region: RegionId,
        metadata: &RegionSpec,
    ) -> Result<(), HookError> {
        let _ = (region, metadata);
        Ok(())
    }

    /// The region was put down on this node; its files are kept.
    async fn on_region_closed(
        &self,
        region: RegionId,
        metadata: &RegionSpec,
    ) -> Result<(), HookError> {
        let _ = (region, metadata);
        Ok(())
    }

    /// The region was dropped for good; its files are not deleted yet.
    async fn on_region_dropped(
        &self,
        region: RegionId,
        metadata: &RegionSpec,
    ) -> Result<(), HookError> {
        let _ = (region, metadata);
        Ok(())
    }

    /// This replica's part in the region has changed. `epoch` is the owner's that it knows of.
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

    /// Data objects of the region have been deleted.
    async fn on_files_removed(
        &self,
        region: RegionId,
        removed: &FilesRemoved,
    ) -> Result<(), HookError> {
        let _ = (region, removed);
        Ok(())
    }

    /// A garbage collection pass over the region has come to its end. After an error the pass is
    /// made again.
    async fn on_region_gc(&self, region: RegionId, pass: &GcPass) -> Result<(), HookError> {
        let _ = (region, pass);
        Ok(())
    }
}
