//! Loading of the manifest, and transfer of ownership.

use std::sync::Arc;

use tidewater_common::ids::{GroupId, ManifestVersion, OwnerEpoch};

use super::{Contents, Region};
use crate::EngineError;
use crate::manifest::{ActionKind, Author, Change, RegionOwner, RequiredProgress};
use crate::version::Version;

impl Region {
    /// Reads the manifest to its tail and installs the resulting version. Replicas call it repeatedly to
    /// follow the owner. Until a region that begins with the files of others has a manifest, the version
    /// shows these files, and its number is 0.
    ///
    /// # Errors
    /// [`EngineError::Removed`] if the region was dropped; [`EngineError::NotBorn`] if its parents' files
    /// cannot be used. Storage and damage errors, also of the parents' manifests, leave the region unchanged.
    pub async fn load(&self) -> Result<ManifestVersion, EngineError> {
        let result = self.read_manifest().await;
        self.notifier.deliver().await;
        result
    }

    async fn read_manifest(&self) -> Result<ManifestVersion, EngineError> {
        let version = self.read_version().await?;
        if self.manifest.state().is_removed() {
            return Err(EngineError::Removed { region: self.id() });
        }
        Ok(version)
    }

    /// Makes this replica the owner: reads the manifest to its tail, commits the fence, records schema
    /// and range if the manifest is new, and installs the new version. Idempotent. The first delta of a
    /// region that has parents precedes the fence, see [`Region::begin`].
    ///
    /// # Errors
    /// [`EngineError::Fenced`] if a later owner exists; see [`EngineError`] for others, after which the
    /// call can be retried.
    pub async fn take_ownership(
        &self,
        own: OwnerEpoch,
        group: GroupId,
    ) -> Result<ManifestVersion, EngineError> {
        self.take_over(own, group, RequiredProgress::default()).await
    }

    /// Makes this replica the owner of a region that another group releases, as [`Region::take_ownership`]. The move
    /// epoch of `own` is above that of the other group, and belongs to the first of both that fences it.
    ///
    /// # Errors
    /// Also [`EngineError::Refused`] with [`Void::OwnedByGroup`](crate::manifest::Void::OwnedByGroup) if the other
    /// group has kept the region, and with [`Void::ProgressMissing`](crate::manifest::Void::ProgressMissing) if its last
    /// rows or decisions are not in the manifest.
    pub async fn take_over(
        &self,
        own: OwnerEpoch,
        group: GroupId,
        required: RequiredProgress,
    ) -> Result<ManifestVersion, EngineError> {
        let result = self.fence_manifest(own, group, required).await;
        self.notifier.deliver().await;
        result
    }

    /// Owner that the manifest names, as of its last read.
    pub fn manifest_owner(&self) -> Option<RegionOwner> {
        self.manifest.state().owner
    }

    async fn fence_manifest(
        &self,
        own: OwnerEpoch,
        group: GroupId,
        required: RequiredProgress,
    ) -> Result<ManifestVersion, EngineError> {
        self.read_manifest().await?;
        if !self.is_born()? {
            // A fence at the first version would take the slot of the parents' files.
            self.record_first_delta().await?;
        }
        let current = self.manifest.state().owner;
        if current.map(|owner| (owner.epoch, owner.group)) != Some((own, group)) {
            self.note_fence(self.manifest.take_over(own, group, required).await)?;
        }
        let state = self.manifest.state();
        let shape = self.shape();
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
        let version = self.install_version();
        let mut contents = self.contents.lock();
        let phase = contents.phase.on_owned(own);
        self.set_phase(&mut contents, phase);
        contents.phase.check_owner(self.id())?;
        Ok(version)
    }

    /// Installs the version of the last manifest state that was read: drops the runs that are flushed and
    /// the obligations that are recorded, and updates the phase. Installs nothing while the region has no
    /// manifest that begins with its parents' files: it would show the rows in memory only.
    pub(super) fn install_version(&self) -> ManifestVersion {
        let is_born = matches!(self.is_born(), Ok(true));
        let state = self.manifest.state();
        let mut contents = self.contents.lock();
        if !is_born {
            return contents.version.manifest;
        }
        if let Some(version) = Version::after(&contents.version, &state) {
            self.replace_version(&mut contents, Arc::new(version));
        }
        contents.obligations.retain(|pending| pending.cause.sequence > state.done_through);
        let owner = state.owner.map(|owner| owner.epoch);
        let phase = contents.phase.on_loaded(owner, state.is_removed());
        self.set_phase(&mut contents, phase);
        if state.is_removed() {
            contents.runs.clear();
        }
        contents.version.manifest
    }

    /// Replaces the version and drops the runs that are flushed.
    pub(super) fn replace_version(&self, contents: &mut Contents, version: Arc<Version>) {
        contents.last_sequence = contents.last_sequence.max(version.flushed);
        let flushed = version.flushed.get();
        contents.version = version;
        let before = contents.runs.len();
        contents.runs.retain(|run| run.max_sequence() > flushed);
        if contents.runs.is_empty() {
            contents.unflushed_since_ms = None;
        } else if contents.runs.len() < before {
            contents.unflushed_since_ms = Some(self.env.clock.now_ms());
        }
    }

    /// Updates the phase if a commit found a later owner or a removed region. Passes the result through.
    pub(super) fn note_fence<T>(&self, result: Result<T, EngineError>) -> Result<T, EngineError> {
        match &result {
            Err(EngineError::Fenced { later, own, .. }) => {
                let mut contents = self.contents.lock();
                let phase = contents.phase.on_fenced(*later);
                self.set_phase(&mut contents, phase);
                tracing::warn!(
                    region = %self.spec.region_id, %own, %later,
                    "region was fenced by a later owner; this replica stops flushing it"
                );
            }
            Err(EngineError::Removed { .. }) => {
                self.install_version();
            }
            _ => {}
        }
        result
    }
}
