//! Reading the manifest, and becoming the owner.

use std::sync::Arc;

use tidewater_common::ids::{GroupId, ManifestVersion, OwnerEpoch};

use super::Region;
use crate::EngineError;
use crate::manifest::{ActionKind, Author, Change};
use crate::version::Version;

impl Region {
    /// Reads the manifest to its tail and swaps to what it says; also how a replica follows.
    ///
    /// # Errors
    /// [`EngineError::Removed`] when the region was dropped; storage and damage errors leave the
    /// region as it was.
    pub async fn load(&self) -> Result<ManifestVersion, EngineError> {
        let result = self.read_manifest().await;
        self.announcer.deliver().await;
        result
    }

    async fn read_manifest(&self) -> Result<ManifestVersion, EngineError> {
        let version = self.manifest.refresh().await?;
        self.swap();
        if self.manifest.state().is_removed() {
            return Err(EngineError::Removed { region: self.id() });
        }
        Ok(version)
    }

    /// Makes this replica the owner: reads the manifest to its tail, commits the fence there,
    /// records schema and range if the manifest is new, and swaps. Asking again is harmless.
    ///
    /// # Errors
    /// [`EngineError::Fenced`] when a later owner has come first; see [`EngineError`] for others,
    /// after all of which it may be asked again.
    pub async fn take_ownership(
        &self,
        own: OwnerEpoch,
        group: GroupId,
    ) -> Result<ManifestVersion, EngineError> {
        let result = self.fence_manifest(own, group).await;
        self.announcer.deliver().await;
        result
    }

    async fn fence_manifest(
        &self,
        own: OwnerEpoch,
        group: GroupId,
    ) -> Result<ManifestVersion, EngineError> {
        self.read_manifest().await?;
        let current = self.manifest.state().owner;
        if current.map(|owner| (owner.epoch, owner.group)) != Some((own, group)) {
            self.note_fence(self.manifest.fence(own, group).await)?;
        }
        let (state, shape) = (self.manifest.state(), self.shape());
        let mut actions = Vec::new();
        if state.table.is_none() {
            actions.push(ActionKind::Alter {
                schema: Box::new(shape.schema.clone()),
                options: shape.options.clone(),
            });
        }
        if state.range.is_none() {
            actions.push(ActionKind::PartitionExprChange { range: self.spec.range.clone() });
        }
        if !actions.is_empty() {
            let change = Change::new(Author::Owner(own), actions);
            self.note_fence(self.manifest.update_manifest(change).await)?;
        }
        let version = self.swap();
        let mut contents = self.contents.lock();
        let phase = contents.phase.owned(own);
        self.enter(&mut contents, phase);
        contents.phase.check_owner(self.id())?;
        Ok(version)
    }

    /// Marks the region dropped in its manifest; final. Only its owner may.
    ///
    /// # Errors
    /// [`EngineError::NotOwner`], [`EngineError::Fenced`], and those of a commit.
    pub async fn remove(&self) -> Result<(), EngineError> {
        let result = self.record_removal().await;
        self.announcer.deliver().await;
        result
    }

    async fn record_removal(&self) -> Result<(), EngineError> {
        let _flushing = self.flushing.lock().await;
        let own = match self.contents.lock().phase.check_owner(self.id()) {
            Err(EngineError::Removed { .. }) => return Ok(()),
            owner => owner?,
        };
        let change = Change::new(Author::Owner(own), vec![ActionKind::Remove]);
        self.note_fence(self.manifest.record(change).await)?;
        self.swap();
        Ok(())
    }

    /// Swaps to what has been read of the manifest, drops what it shows flushed.
    pub(super) fn swap(&self) -> ManifestVersion {
        let state = self.manifest.state();
        let mut contents = self.contents.lock();
        if let Some(version) = Version::after(&contents.version, &state) {
            contents.last_sequence = contents.last_sequence.max(version.flushed);
            let flushed = version.flushed.get();
            contents.version = Arc::new(version);
            let before = contents.runs.len();
            contents.runs.retain(|run| run.max_sequence() > flushed);
            if contents.runs.is_empty() {
                contents.unflushed_since_ms = None;
            } else if contents.runs.len() < before {
                contents.unflushed_since_ms = Some(self.env.clock.now_ms());
            }
        }
        contents.obligations.retain(|pending| pending.cause.sequence > state.done_through);
        let owner = state.owner.map(|owner| owner.epoch);
        let phase = contents.phase.loaded(owner, state.is_removed());
        self.enter(&mut contents, phase);
        if state.is_removed() {
            contents.runs.clear();
        }
        self.account(&contents);
        contents.version.manifest
    }

    /// Takes note when a commit found a later owner.
    pub(super) fn note_fence<T>(&self, result: Result<T, EngineError>) -> Result<T, EngineError> {
        match &result {
            Err(EngineError::Fenced { later, own, .. }) => {
                let mut contents = self.contents.lock();
                let phase = contents.phase.fenced(*later);
                self.enter(&mut contents, phase);
                tracing::warn!(
                    region = %self.spec.region_id, %own, %later,
                    "a later owner has taken the region over; this one stops flushing it"
                );
            }
            Err(EngineError::Removed { .. }) => {
                self.swap();
            }
            _ => {}
        }
        result
    }
}
