//! The hooks of one region, and one function for each event.

use std::sync::Arc;

use tidewater_common::ids::OwnerEpoch;

use super::error::HookError;
use super::event::{EventSource, HookEvent, RegionEvent};
use super::file_statistics::FileStatisticsReader;
use super::payload::{
    FilesRemoved, GcPass, ManifestKind, RegionMetaActionList, RegionRole, SstFileInfo,
};
use super::plugins::Plugins;
use crate::env::RegionEnv;
use crate::layout::RegionDir;
use crate::manifest::{Delta, ManifestState};
use crate::region::RegionSpec;

/// Calls every hook that sees the region, one after another in order of name. Must not be called
/// while a manifest's write lock is held.
#[derive(Debug, Clone)]
pub(crate) struct RegionHooks {
    plugins: Plugins,
    dir: RegionDir,
    statistics: Option<FileStatisticsReader>,
}

impl RegionHooks {
    /// Creates the caller of the hooks of `env` that see this region.
    pub(crate) fn new(env: &RegionEnv, dir: RegionDir) -> Self {
        let statistics = FileStatisticsReader::new(env.storage.clone(), env.footers.clone());
        let statistics = Some(statistics);
        Self { plugins: env.plugins.clone(), dir, statistics }
    }

    /// Creates a caller of the hooks of a registry, whose events have no statistics of files.
    #[cfg(test)]
    pub(super) fn without_files(plugins: &Plugins, dir: RegionDir) -> Self {
        Self { plugins: plugins.clone(), dir, statistics: None }
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

    /// Notifies hooks that a logical change was committed. The write lock has been released. `state`
    /// contains the change.
    pub(crate) async fn manifest_updated(
        &self,
        delta: Arc<Delta>,
        manifest: ManifestKind,
        state: &ManifestState,
    ) {
        if self.plugins.hooks_of(self.dir.table_id).is_empty() {
            return;
        }
        let schema = state.table.as_ref().map(|table| Arc::new(table.schema.clone()));
        let actions = RegionMetaActionList::new(delta, schema);
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
        let table = self.dir.table_id;
        let source = EventSource {
            dir: self.dir,
            table_name: self.plugins.table_name(table),
            statistics: self.statistics.clone(),
        };
        let event = Arc::new(RegionEvent { source, event });
        let mut result = Ok(());
        for hook in self.plugins.hooks_of(table) {
            result = result.and(hook.call(event.clone()).await);
        }
        result
    }
}
