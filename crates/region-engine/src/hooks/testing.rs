//! Hooks for tests: a recorder and faulty hooks.

use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use tidewater_common::ids::{FileId, ManifestVersion, OwnerEpoch, RegionId};

use super::{
    FilesRemoved, GcPass, HookError, ManifestKind, RegionHook, RegionHookRef, RegionMetaActionList,
    RegionRole, SstFileInfo,
};
use crate::manifest::Action;
use crate::region::RegionSpec;

/// One call with its arguments.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum HookCall {
    Written(Vec<FileId>),
    Updated { version: ManifestVersion, manifest: ManifestKind, actions: Vec<Action> },
    Opened,
    Closed,
    Dropped,
    Role(RegionRole, RegionRole, OwnerEpoch),
    FilesRemoved(FilesRemoved),
    Gc(GcPass),
}

/// Records every call.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    name: String,
    calls: Mutex<Vec<HookCall>>,
    log: Option<Arc<Mutex<Vec<String>>>>,
}

impl Recorder {
    pub(crate) fn new(name: &str) -> Arc<Self> {
        Arc::new(Self { name: name.to_owned(), ..Self::default() })
    }

    /// Creates a recorder that also appends its name to a shared log of calls.
    pub(crate) fn with_log(name: &str, log: &Arc<Mutex<Vec<String>>>) -> RegionHookRef {
        Arc::new(Self { name: name.to_owned(), log: Some(log.clone()), ..Self::default() })
    }

    /// Takes the calls since the last `take`.
    pub(crate) fn take(&self) -> Vec<HookCall> {
        std::mem::take(&mut *self.calls.lock())
    }

    fn record(&self, call: HookCall) -> Result<(), HookError> {
        if let Some(log) = &self.log {
            log.lock().push(self.name.clone());
        }
        self.calls.lock().push(call);
        Ok(())
    }
}

#[async_trait]
impl RegionHook for Recorder {
    fn name(&self) -> &str {
        &self.name
    }

    async fn on_sst_files_written(
        &self,
        _region: RegionId,
        _metadata: &RegionSpec,
        files: &[SstFileInfo],
    ) -> Result<(), HookError> {
        for file in files {
            assert_eq!(file.sst.file_id, file.meta.file_id);
            assert_eq!(file.sst.footer.num_row_groups() as u32, file.meta.row_groups);
            assert_eq!(file.sst.footer.file_metadata().num_rows() as u64, file.meta.rows);
            assert!(file.sst.footer.offset_index().is_some(), "the footer lacks its page index");
        }
        self.record(HookCall::Written(files.iter().map(|file| file.sst.file_id).collect()))
    }

    async fn on_manifest_updated(
        &self,
        _region: RegionId,
        actions: &RegionMetaActionList,
        version: ManifestVersion,
        manifest: ManifestKind,
    ) -> Result<(), HookError> {
        self.record(HookCall::Updated { version, manifest, actions: actions.actions().to_vec() })
    }

    async fn on_region_opened(&self, _: RegionId, _: &RegionSpec) -> Result<(), HookError> {
        self.record(HookCall::Opened)
    }

    async fn on_region_closed(&self, _: RegionId, _: &RegionSpec) -> Result<(), HookError> {
        self.record(HookCall::Closed)
    }

    async fn on_region_dropped(&self, _: RegionId, _: &RegionSpec) -> Result<(), HookError> {
        self.record(HookCall::Dropped)
    }

    async fn on_region_role_changed(
        &self,
        _region: RegionId,
        old: RegionRole,
        new: RegionRole,
        epoch: OwnerEpoch,
    ) -> Result<(), HookError> {
        self.record(HookCall::Role(old, new, epoch))
    }

    async fn on_files_removed(
        &self,
        _region: RegionId,
        removed: &FilesRemoved,
    ) -> Result<(), HookError> {
        self.record(HookCall::FilesRemoved(removed.clone()))
    }

    async fn on_region_gc(&self, _region: RegionId, pass: &GcPass) -> Result<(), HookError> {
        self.record(HookCall::Gc(pass.clone()))
    }
}

/// Faults of a hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HookFault {
    Panics,
    Hangs,
    Fails,
}

/// A hook that shows its fault on every call.
#[derive(Debug)]
pub(crate) struct FaultyHook(pub(crate) &'static str, pub(crate) HookFault);

impl FaultyHook {
    async fn act(&self) -> Result<(), HookError> {
        match self.1 {
            HookFault::Panics => panic!("fault of the {} hook", self.0),
            HookFault::Hangs => std::future::pending().await,
            HookFault::Fails => Err(HookError::new("simulated failure")),
        }
    }
}

#[async_trait]
impl RegionHook for FaultyHook {
    fn name(&self) -> &str {
        self.0
    }

    async fn on_sst_files_written(
        &self,
        _: RegionId,
        _: &RegionSpec,
        _: &[SstFileInfo],
    ) -> Result<(), HookError> {
        self.act().await
    }

    async fn on_manifest_updated(
        &self,
        _: RegionId,
        _: &RegionMetaActionList,
        _: ManifestVersion,
        _: ManifestKind,
    ) -> Result<(), HookError> {
        self.act().await
    }

    async fn on_region_opened(&self, _: RegionId, _: &RegionSpec) -> Result<(), HookError> {
        self.act().await
    }

    async fn on_region_role_changed(
        &self,
        _: RegionId,
        _: RegionRole,
        _: RegionRole,
        _: OwnerEpoch,
    ) -> Result<(), HookError> {
        self.act().await
    }

    async fn on_region_gc(&self, _: RegionId, _: &GcPass) -> Result<(), HookError> {
        self.act().await
    }
}
