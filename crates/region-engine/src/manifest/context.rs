//! The entry point of all logical manifest writes of a region.

use std::sync::Arc;

use parking_lot::RwLock;
use tidewater_common::ids::{GroupId, ManifestVersion, OwnerEpoch};
use tokio::sync::{Mutex, MutexGuard};

use super::state::RegionOwner;
use super::{
    ActionKind, Author, Change, Delta, ManifestState, RegionManifestManager, RequiredProgress,
    announced_as,
};
use crate::env::RegionEnv;
use crate::error::EngineError;
use crate::hooks::RegionHooks;
use crate::layout::RegionDir;

/// A region's manifest behind its write lock; the last state is readable without the lock.
#[derive(Debug)]
pub struct ManifestContext {
    manager: Mutex<RegionManifestManager>,
    state: RwLock<Arc<ManifestState>>,
    hooks: RegionHooks,
}

/// The write lock. It is held across calls to the object store on purpose: commits of one region
/// run one after another. Readers take [`ManifestContext::state`] and never wait.
#[derive(Debug)]
pub(crate) struct ManifestGuard<'a> {
    manager: MutexGuard<'a, RegionManifestManager>,
}

/// Receipt for a logical write: the caller fires it after dropping the write lock, so that no hook
/// runs under the lock.
#[derive(Debug)]
#[must_use = "drop the manifest lock, then fire the receipt"]
pub(crate) struct PendingManifestHook {
    hooks: RegionHooks,
    /// Region, actions and version. Those before the last are older deltas whose outcome was
    /// unknown until now.
    deltas: Vec<Arc<Delta>>,
    /// The state after all of them.
    state: Arc<ManifestState>,
}

impl ManifestContext {
    /// Creates a handle to an unread manifest; no I/O.
    pub fn new(env: RegionEnv, dir: RegionDir) -> Self {
        let hooks = RegionHooks::new(&env, dir);
        let manager = RegionManifestManager::new(env, dir);
        let state = RwLock::new(Arc::clone(manager.state()));
        Self { manager: Mutex::new(manager), state, hooks }
    }

    /// Returns the state that was read or committed last.
    pub fn state(&self) -> Arc<ManifestState> {
        Arc::clone(&self.state.read())
    }

    /// Takes the write lock, for sequences of several writes.
    pub(crate) async fn lock(&self) -> ManifestGuard<'_> {
        ManifestGuard { manager: self.manager.lock().await }
    }

    /// Reads to the tail (to open or follow a region) and returns its version.
    pub async fn refresh(&self) -> Result<ManifestVersion, EngineError> {
        let mut guard = self.lock().await;
        let result = guard.manager.refresh().await;
        self.publish(&guard);
        let pending = self.receipt(&mut guard, None);
        drop(guard);
        pending.fire().await;
        result
    }

    /// Returns `true` while the outcome of a commit is unknown; [`refresh`](Self::refresh) tries to
    /// resolve it.
    pub(crate) async fn has_pending_commit(&self) -> bool {
        self.lock().await.manager.has_pending_commit()
    }

    /// Like [`refresh`](Self::refresh), for a manifest that has not been read yet; returns the
    /// version of the newest checkpoint, 0 without one.
    pub(crate) async fn read_from_checkpoint(&self) -> Result<ManifestVersion, EngineError> {
        self.refresh().await?;
        Ok(self.lock().await.manager.checkpointed())
    }

    /// Locks, writes, unlocks and fires the receipt: the common case. Returns the committed
    /// version.
    pub async fn update_manifest(&self, change: Change) -> Result<ManifestVersion, EngineError> {
        let mut guard = self.lock().await;
        let receipt = self.update_locked(&mut guard, change).await?;
        drop(guard);
        Ok(receipt.fire().await)
    }

    /// Commits bookkeeping (GC floor, drop, a child's first delta, maintenance of staging areas);
    /// notifies no hooks.
    pub(crate) async fn record(&self, change: Change) -> Result<ManifestVersion, EngineError> {
        let mut guard = self.lock().await;
        let result = guard.manager.update(change).await;
        self.publish(&guard);
        Ok(result?.version)
    }

    /// Commits one logical write; the only path for logical writes. The caller drops the guard,
    /// then fires the receipt.
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

    /// Makes `owner` the region's owner: reads to the tail and commits its fence there.
    /// Bookkeeping: notifies no hooks. Idempotent.
    #[cfg(test)]
    pub async fn fence(
        &self,
        owner: OwnerEpoch,
        group: GroupId,
    ) -> Result<ManifestVersion, EngineError> {
        self.take_over(owner, group, RequiredProgress::default()).await
    }

    /// Makes `owner` the region's owner, if the manifest has at least the `required` progress: reads to the tail and
    /// commits its fence there. Bookkeeping: notifies no hooks. Idempotent.
    ///
    /// # Errors
    /// [`EngineError::Fenced`] by a later owner; [`EngineError::Refused`] if another group owns the region, or the progress
    /// is missing.
    pub async fn take_over(
        &self,
        owner: OwnerEpoch,
        group: GroupId,
        required: RequiredProgress,
    ) -> Result<ManifestVersion, EngineError> {
        let mut guard = self.lock().await;
        let result = guard.fence(owner, group, required).await;
        self.publish(&guard);
        result
    }

    /// Returns `true` if the version is committed by this author. The state lacks authors: the
    /// delta is read.
    ///
    /// # Errors
    /// [`EngineError::Unknown`] when the delta cannot be read.
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
        let state = Arc::clone(guard.manager.state());
        PendingManifestHook { hooks: self.hooks.clone(), deltas, state }
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
        required: RequiredProgress,
    ) -> Result<ManifestVersion, EngineError> {
        self.manager.refresh().await?;
        if self.manager.state().owner == Some(RegionOwner { epoch: owner, group })
            && !self.manager.state().is_removed()
        {
            return Ok(self.manager.state().version);
        }
        let fence = ActionKind::Fence { owner, group, required };
        let delta = self.manager.update(Change::new(Author::Owner(owner), vec![fence])).await?;
        Ok(delta.version)
    }
}

impl PendingManifestHook {
    /// Calls the hooks and returns the committed version.
    pub(crate) async fn fire(self) -> ManifestVersion {
        for delta in self.deltas {
            if let Some(manifest) = announced_as(&delta) {
                self.hooks.manifest_updated(delta, manifest, &self.state).await;
            }
        }
        self.state.version
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
    async fn logical_write_is_visible_to_readers_and_followers() {
        let store = FaultyStore::new();
        let owned = context(&store);
        let follower = context(&store);
        assert_eq!(owned.fence(owner(1), GROUP).await.unwrap(), ManifestVersion(1));
        assert_eq!(owned.update_manifest(create(1)).await.unwrap(), ManifestVersion(2));
        assert_eq!(owned.state().version, ManifestVersion(2));
        assert_eq!(follower.state().version, ManifestVersion(0));
        assert_eq!(follower.refresh().await.unwrap(), ManifestVersion(2));
        assert_eq!(follower.state(), owned.state());
    }

    #[tokio::test]
    async fn writes_under_one_lock_return_separate_receipts() {
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
    async fn repeated_fence_commits_nothing() {
        let store = FaultyStore::new();
        let context = context(&store);
        for _ in 0..3 {
            assert_eq!(context.fence(owner(2), GROUP).await.unwrap(), ManifestVersion(1));
        }
        let error = context.fence(owner(1), GROUP).await.unwrap_err();
        assert!(matches!(error, EngineError::Fenced { .. }), "{error}");
    }

    #[tokio::test]
    async fn failed_commit_publishes_the_state_it_read() {
        let store = FaultyStore::new();
        let old = context(&store);
        let new = context(&store);
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
