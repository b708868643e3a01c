//! Hook that converts every call to a record and passes it to a sink.

use std::fmt::Debug;

use async_trait::async_trait;
use tidewater_common::ids::{ManifestVersion, OwnerEpoch, RegionId};
use tidewater_region_engine::RegionSpec;
use tidewater_region_engine::hooks::{
    FilesRemoved, GcPass, HookError, HookHome, ManifestKind, RegionHook, RegionMetaActionList,
    RegionRole, RegionSnapshot, SstFileInfo,
};

use crate::record::Record;

/// Destination of records.
#[async_trait]
pub(crate) trait RecordSink: Debug + Send + Sync + 'static {
    /// Accepts a record, or returns why it cannot.
    async fn put(&self, record: Record) -> Result<(), HookError>;

    /// Number of accepted records that have not reached their destination.
    fn backlog(&self) -> u64 {
        0
    }

    /// Number of accepted records that were dropped.
    fn lost(&self) -> u64 {
        0
    }
}

/// Hook that passes a record of every call to a [`RecordSink`].
#[derive(Debug)]
pub(crate) struct RecordHook<S> {
    name: String,
    home: HookHome,
    sink: S,
}

impl<S: RecordSink> RecordHook<S> {
    pub(crate) fn new(name: &str, home: HookHome, sink: S) -> Self {
        Self { name: name.to_owned(), home, sink }
    }

    fn record(&self, event: &'static str, region: RegionId) -> Record {
        Record::new(&self.name, self.home, event, region)
    }
}

#[async_trait]
impl<S: RecordSink> RegionHook for RecordHook<S> {
    fn name(&self) -> &str {
        &self.name
    }

    fn backlog(&self) -> u64 {
        self.sink.backlog()
    }

    fn lost(&self) -> u64 {
        self.sink.lost()
    }

    async fn on_sst_files_written(
        &self,
        region: RegionId,
        _metadata: &RegionSpec,
        files: &[SstFileInfo],
    ) -> Result<(), HookError> {
        self.sink.put(self.record("sst_files_written", region).with_written(files)).await
    }

    async fn on_manifest_updated(
        &self,
        region: RegionId,
        actions: &RegionMetaActionList,
        _version: ManifestVersion,
        manifest: ManifestKind,
    ) -> Result<(), HookError> {
        let record = self.record("manifest_updated", region).with_update(actions, manifest);
        self.sink.put(record).await
    }

    async fn on_bootstrap(
        &self,
        region: RegionId,
        snapshot: &RegionSnapshot,
    ) -> Result<(), HookError> {
        self.sink.put(self.record("bootstrap", region).with_snapshot(snapshot)).await
    }

    async fn on_region_opened(&self, region: RegionId, _: &RegionSpec) -> Result<(), HookError> {
        self.sink.put(self.record("region_opened", region)).await
    }

    async fn on_region_closed(&self, region: RegionId, _: &RegionSpec) -> Result<(), HookError> {
        self.sink.put(self.record("region_closed", region)).await
    }

    async fn on_region_dropped(&self, region: RegionId, _: &RegionSpec) -> Result<(), HookError> {
        self.sink.put(self.record("region_dropped", region)).await
    }

    async fn on_region_role_changed(
        &self,
        region: RegionId,
        old: RegionRole,
        new: RegionRole,
        epoch: OwnerEpoch,
    ) -> Result<(), HookError> {
        let record = self.record("region_role_changed", region).with_roles(old, new, epoch);
        self.sink.put(record).await
    }

    async fn on_files_removed(
        &self,
        region: RegionId,
        removed: &FilesRemoved,
    ) -> Result<(), HookError> {
        self.sink.put(self.record("files_removed", region).with_removed(removed)).await
    }

    async fn on_region_gc(&self, region: RegionId, pass: &GcPass) -> Result<(), HookError> {
        self.sink.put(self.record("region_gc", region).with_pass(pass)).await
    }
}
