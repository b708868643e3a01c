//! The funnel that all logical manifest writes of a region go through.

use std::sync::Arc;

use parking_lot::RwLock;
use tidewater_common::ids::{GroupId, ManifestVersion, OwnerEpoch};
use tokio::sync::{Mutex, MutexGuard};

use super::state::RegionOwner;
use super::{
    ActionKind, Author, Change, Delta, ManifestState, RegionManifestManager, announced_as,
};
use crate::env::RegionEnv;
use crate::error::EngineError;
use crate::hooks::RegionHooks;
use crate::layout::RegionDir;

/// A region's manifest behind its write lock, with the last state open to everybody.
#[derive(Debug)]
pub struct ManifestContext {
    manager: Mutex<RegionManifestManager>,
    state: RwLock<Arc<ManifestState>>,
    hooks: RegionHooks,
}

/// The write lock. Waiting for the object store under it is what it is for: commits of one region
/// are one after another. Readers take [`ManifestContext::state`] and never wait.
#[derive(Debug)]
pub(crate) struct ManifestGuard<'a> {
    manager: MutexGuard<'a, RegionManifestManager>,
}

/// Receipt for a logical write: fired by the caller once it has dropped the write lock, so that no
/// hook runs under it.
#[derive(Debug)]
#[must_use = "drop the manifest lock, then fire the receipt"]
pub(crate) struct PendingManifestHook {
    hooks: RegionHooks,
    /// Region, actions and version. Those before the last are older ones whose outcome had been
    /// unknown until now.
    deltas: Vec<Arc<Delta>>,
    version: ManifestVersion,
}

impl ManifestContext {
    /// An unread manifest: no I/O.
    pub fn new(env: RegionEnv, dir: RegionDir) -> Self {
        let hooks = RegionHooks::new(&env.plugins, dir);
        let manager = RegionManifestManager::new(env, dir);
        let state = RwLock::new(Arc::clone(manager.state()));
        Self { manager: Mutex::new(manager), state, hooks }
    }

    /// What has been read or committed so far.
    pub fn state(&self) -> Arc<ManifestState> {
        Arc::clone(&self.state.read())
    }

    /// Takes the write lock, for sequences of several writes.
    pub(crate) async fn lock(&self) -> ManifestGuard<'_> {
        ManifestGuard { manager: self.manager.lock().await }
    }

    /// Reads to the tail (open, follow), and returns its version.
    pub async fn refresh(&self) -> Result<ManifestVersion, EngineError> {
        let mut guard = self.lock().await;
        let result = guard.manager.refresh().await;
        self.publish(&guard);
        let late = self.receipt(&mut guard, None);
        drop(guard);
        late.fire().await;
        result
    }

    /// Whether the outcome of a commit is unknown; [`refresh`](Self::refresh) asks again.
    pub(crate) async fn has_pending_commit(&self) -> bool {
        self.lock().await.manager.has_pending_commit()
    }

    /// [`refresh`](Self::refresh) for a manifest that has not been read yet; returns the newest
    /// checkpoint, 0 without one.
    pub(crate) async fn read_from_checkpoint(&self) -> Result<ManifestVersion, EngineError> {
        self.refresh().await?;
        Ok(self.lock().await.manager.checkpointed())
    }

    /// The common case: lock, write, unlock, fire. Returns the version committed.
    pub async fn update_manifest(&self, change: Change) -> Result<ManifestVersion, EngineError> {
        let mut guard = self.lock().await;
        let receipt = self.update_locked(&mut guard, change).await?;
        drop(guard);
        Ok(receipt.fire().await)
    }

    /// Bookkeeping (GC floor, drop, a child's first delta, housekeeping of staging areas): commits,
    /// fires nothing.
    pub(crate) async fn record(&self, change: Change) -> Result<ManifestVersion, EngineError> {
        let mut guard = self.lock().await;
        let result = guard.manager.update(change).await;
        self.publish(&guard);
        Ok(result?.version)
    }

    /// The one way in for logical writes. The caller drops the guard, then fires the receipt.
    pub(crate) async fn update_locked(
        &self,
        guard: &mut ManifestGuard<'_>,
        change: Change,
    ) -> Result<PendingManifestHook, EngineError> {
        let result = guard.manager.update(change).await;
        self.publish(guard);
        let delta = result?;
        Ok(self.receipt(guard, Some(delta)))
    }

    /// Makes `owner` the region's owner: reads to the tail and commits its fence there. Bookkeeping:
    /// fires nothing. Asking again is harmless.
    pub async fn fence(
        &self,
        owner: OwnerEpoch,
        group: GroupId,
    ) -> Result<ManifestVersion, EngineError> {
        let mut guard = self.lock().await;
        let result = guard.fence(owner, group).await;
        self.publish(&guard);
        result
    }

    /// Whether a version is committed, and by this author. The state does not say: the delta is read.
    ///
    /// # Errors
    /// [`EngineError::Unknown`] when it cannot be read.
    pub(crate) async fn is_committed_by(
        &self,
        version: ManifestVersion,
        author: Author,
    ) -> Result<bool, EngineError> {
        self.lock().await.manager.is_committed_by(version, author).await
    }

    fn receipt(
        &self,
        guard: &mut ManifestGuard<'_>,
        delta: Option<Arc<Delta>>,
    ) -> PendingManifestHook {
        let mut deltas = guard.manager.take_late();
        deltas.extend(delta);
        let version = guard.manager.state().version;
        PendingManifestHook { hooks: self.hooks.clone(), deltas, version }
    }

    fn publish(&self, guard: &ManifestGuard<'_>) {
        *self.state.write() = Arc::clone(guard.manager.state());
    }
}

impl ManifestGuard<'_> {
    async fn fence(
        &mut self,
        owner: OwnerEpoch,
        group: GroupId,
    ) -> Result<ManifestVersion, EngineError> {
        self.manager.refresh().await?;
        if self.manager.state().owner == Some(RegionOwner { epoch: owner, group })
            && !self.manager.state().is_removed()
        {
            return Ok(self.manager.state().version);
        }
        let fence = ActionKind::Fence { owner, group };
        let delta = self.manager.update(Change::new(Author::Owner(owner), vec![fence])).await?;
        Ok(delta.version)
    }
}

impl PendingManifestHook {
    /// Calls the hooks; returns the version that was committed.
    pub(crate) async fn fire(self) -> ManifestVersion {
        for delta in self.deltas {
            if let Some(manifest) = announced_as(&delta) {
                self.hooks.manifest_updated(delta, manifest).await;
            }
        }
        self.version
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::samples::*;
    use crate::storage::testing::{Fault, FaultyStore};

    fn context(store: &FaultyStore) -> ManifestContext {
        ManifestContext::new(env(store.storage()), DIR)
    }

    #[tokio::test]
    async fn a_logical_write_is_seen_by_readers_and_followers() {
        let store = FaultyStore::new();
        let (owned, follower) = (context(&store), context(&store));
        assert_eq!(owned.fence(owner(1), GROUP).await.unwrap(), ManifestVersion(1));
        assert_eq!(owned.update_manifest(create(1)).await.unwrap(), ManifestVersion(2));
        assert_eq!(owned.state().version, ManifestVersion(2));
        assert_eq!(follower.state().version, ManifestVersion(0));
        assert_eq!(follower.refresh().await.unwrap(), ManifestVersion(2));
        assert_eq!(follower.state(), owned.state());
    }

    #[tokio::test]
    async fn several_writes_under_one_lock_give_a_receipt_each() {
        let store = FaultyStore::new();
        let context = context(&store);
        context.fence(owner(1), GROUP).await.unwrap();
        let mut guard = context.lock().await;
        let first = context.update_locked(&mut guard, create(1)).await.unwrap();
        let second = context.update_locked(&mut guard, flush(1, 1)).await.unwrap();
        drop(guard);
        assert_eq!(first.fire().await, ManifestVersion(2));
        assert_eq!(second.fire().await, ManifestVersion(3));
    }

    #[tokio::test]
    async fn fencing_again_commits_nothing() {
        let store = FaultyStore::new();
        let context = context(&store);
        for _ in 0..3 {
            assert_eq!(context.fence(owner(2), GROUP).await.unwrap(), ManifestVersion(1));
        }
        let error = context.fence(owner(1), GROUP).await.unwrap_err();
        assert!(matches!(error, EngineError::Fenced { .. }), "{error}");
    }

    #[tokio::test]
    async fn what_was_read_before_a_failure_is_published() {
        let store = FaultyStore::new();
        let (old, new) = (context(&store), context(&store));
        old.fence(owner(1), GROUP).await.unwrap();
        new.fence(owner(2), GROUP).await.unwrap();
        let error = old.update_manifest(flush(1, 1)).await.unwrap_err();
        assert!(matches!(error, EngineError::Fenced { .. }), "{error}");
        assert_eq!(old.state().version, ManifestVersion(2));
        store.plan(|_| Fault::ErrorBefore);
        assert!(matches!(old.refresh().await, Err(EngineError::Storage(_))));
        assert_eq!(old.state().version, ManifestVersion(2));
    }
}
