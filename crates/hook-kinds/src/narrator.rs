//! A hook that makes a record of every call and gives it to an outlet.

use std::fmt::Debug;

use async_trait::async_trait;
use tidewater_common::ids::{ManifestVersion, OwnerEpoch, RegionId};
use tidewater_region_engine::RegionSpec;
use tidewater_region_engine::hooks::{
    FilesRemoved, GcPass, HookError, HookHome, ManifestKind, RegionHook, RegionMetaActionList,
    RegionRole, RegionSnapshot, SstFileInfo,
};

use crate::record::Record;

/// Where records go.
#[async_trait]
pub(crate) trait Outlet: Debug + Send + Sync + 'static {
    /// Takes a record, or says why it cannot.
    async fn put(&self, record: Record) -> Result<(), HookError>;

    /// Records taken that have not reached their destination.
    fn backlog(&self) -> u64 {
        0
    }

    /// Records taken and given up.
    fn lost(&self) -> u64 {
        0
    }
}

/// See the module's head.
#[derive(Debug)]
pub(crate) struct Narrator<O> {
    name: String,
    home: HookHome,
    outlet: O,
}

impl<O: Outlet> Narrator<O> {
    pub(crate) fn new(name: &str, home: HookHome, outlet: O) -> Self {
        Self { name: name.to_owned(), home, outlet }
    }

    fn record(&self, event: &'static str, region: RegionId) -> Record {
        Record::new(&self.name, self.home, event, region)
    }
}

#[async_trait]
impl<O: Outlet> RegionHook for Narrator<O> {
    fn name(&self) -> &str {
        &self.name
    }

    fn backlog(&self) -> u64 {
        self.outlet.backlog()
    }

    fn lost(&self) -> u64 {
        self.outlet.lost()
    }

    async fn on_sst_files_written(
        &self,
        region: RegionId,
        _metadata: &RegionSpec,
        files: &[SstFileInfo],
    ) -> Result<(), HookError> {
        self.outlet.put(self.record("sst_files_written", region).with_written(files)).await
    }

    async fn on_manifest_updated(
        &self,
        region: RegionId,
        actions: &RegionMetaActionList,
        _version: ManifestVersion,
        manifest: ManifestKind,
    ) -> Result<(), HookError> {
        let record = self.record("manifest_updated", region).with_update(actions, manifest);
        self.outlet.put(record).await
    }

    async fn on_bootstrap(
        &self,
        region: RegionId,
        snapshot: &RegionSnapshot,
    ) -> Result<(), HookError> {
        self.outlet.put(self.record("bootstrap", region).with_snapshot(snapshot)).await
    }

    async fn on_region_opened(&self, region: RegionId, _: &RegionSpec) -> Result<(), HookError> {
        self.outlet.put(self.record("region_opened", region)).await
    }

    async fn on_region_closed(&self, region: RegionId, _: &RegionSpec) -> Result<(), HookError> {
        self.outlet.put(self.record("region_closed", region)).await
    }

    async fn on_region_dropped(&self, region: RegionId, _: &RegionSpec) -> Result<(), HookError> {
        self.outlet.put(self.record("region_dropped", region)).await
    }

    async fn on_region_role_changed(
        &self,
        region: RegionId,
        old: RegionRole,
        new: RegionRole,
        epoch: OwnerEpoch,
    ) -> Result<(), HookError> {
        let record = self.record("region_role_changed", region).with_roles(old, new, epoch);
        self.outlet.put(record).await
    }

    async fn on_files_removed(
        &self,
        region: RegionId,
        removed: &FilesRemoved,
    ) -> Result<(), HookError> {
        self.outlet.put(self.record("files_removed", region).with_removed(removed)).await
    }

    async fn on_region_gc(&self, region: RegionId, pass: &GcPass) -> Result<(), HookError> {
        self.outlet.put(self.record("region_gc", region).with_pass(pass)).await
    }
}
