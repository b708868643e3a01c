//! Changes of a region's key range: the seal before a split or merge, and the first delta of a child.

use tidewater_common::ids::{ManifestVersion, Sequence};
use tidewater_common::keys::KeyRange;

use super::Region;
use super::copy::{check_not_removed, manifest_of, not_shared};
use crate::EngineError;
use crate::bulk::AdoptError;
use crate::bulk::error::NotShared;
use crate::layout::RegionDir;
use crate::manifest::{ActionKind, Author, Change, Edit, ProcedureStep};

impl Region {
    /// Records another key range and returns a manifest version that contains it. The empty range seals
    /// the region: nothing is added to its manifest until the range is restored. Requires ownership.
    /// Idempotent.
    ///
    /// Reads use the range with which the region was opened, and are not affected.
    ///
    /// # Errors
    /// [`EngineError::NotOwner`], [`EngineError::Fenced`], [`EngineError::Refused`] for a stale
    /// procedure step, and errors of a commit.
    pub async fn set_range(
        &self,
        range: KeyRange,
        step: Option<ProcedureStep>,
    ) -> Result<ManifestVersion, EngineError> {
        // No flush is in progress, and no obligation stays pending that the seal would refuse.
        let _flushing = self.flushing.lock().await;
        self.contents.lock().phase.check_owner(self.id())?;
        self.manifest.refresh().await?;
        self.install_version();
        self.record_pending_obligations().await?;
        let own = self.contents.lock().phase.check_owner(self.id())?;
        let state = self.manifest.state();
        if state.range.as_ref() == Some(&range) {
            return Ok(state.version);
        }
        let kind = ActionKind::PartitionExprChange { range };
        let mut change = Change::new(Author::Owner(own), vec![kind]);
        change.procedure = step;
        let version = self.note_fence(self.manifest.update_manifest(change).await)?;
        self.install_version();
        Ok(version)
    }

    /// Writes the first delta of the child of a split or merge: schema, options, range, and references to
    /// the parents' files, clipped to the range. The owner of the group calls it. Concurrent callers are
    /// safe: the first delta wins. Hooks are notified of a child when it is opened.
    ///
    /// # Errors
    /// [`AdoptError::NotShared`] for a parent that is not sealed, has no lower id, or belongs to another
    /// table; [`EngineError::Removed`] for a removed parent; errors of a commit.
    pub async fn begin_from(&self, parents: &[RegionDir]) -> Result<ManifestVersion, AdoptError> {
        let current = self.manifest.refresh().await?;
        if current.get() > 0 {
            self.install_version();
            return Ok(current);
        }
        let mut edit = Edit::default();
        let mut flushed = Sequence(0);
        for parent in parents {
            if parent.region_id >= self.id() {
                return Err(not_shared(*parent, NotShared::NotLower));
            }
            let manifest = manifest_of(&self.env, *parent);
            manifest.refresh().await?;
            let state = manifest.state();
            check_not_removed(*parent, &state)?;
            let Some(table) = &state.table else {
                return Err(not_shared(*parent, NotShared::ManifestEmpty));
            };
            if !state.is_sealed() {
                return Err(not_shared(*parent, NotShared::NotSealed));
            }
            if parent.table_id != self.dir.table_id || table.schema != self.spec.schema {
                return Err(not_shared(*parent, NotShared::OtherTable));
            }
            let clipped = state.files().map(|file| file.clipped(&self.spec.range));
            edit.add.extend(clipped.filter(|file| file.shown_keys().is_some()));
            edit.since = edit.since.max(Some(state.since));
            edit.expired.extend(state.expired.iter().copied());
            flushed = flushed.max(state.flushed);
        }
        edit.flushed = Some(flushed);
        let actions = vec![
            ActionKind::Alter {
                schema: Box::new(self.spec.schema.clone()),
                options: self.spec.options.clone(),
            },
            ActionKind::PartitionExprChange { range: self.spec.range.clone() },
            ActionKind::Edit(edit),
        ];
        let mut change = Change::new(Author::System, actions);
        change.by_reference = parents.first().map(|parent| parent.region_id);
        let version = match self.manifest.record(change).await {
            // Another caller committed the first delta.
            Err(EngineError::Refused { .. }) if self.manifest.state().version.get() > 0 => {
                self.manifest.state().version
            }
            recorded => recorded?,
        };
        self.install_version();
        Ok(version)
    }
}
