//! Changes of a region's key range: the seal before a split or merge, and how their children begin.

use tidewater_common::ids::{ManifestVersion, Sequence};
use tidewater_common::keys::KeyRange;

use super::Region;
use super::copy::{manifest_of, not_removed, refused};
use crate::EngineError;
use crate::bulk::AdoptError;
use crate::bulk::error::NotShared;
use crate::layout::RegionDir;
use crate::manifest::{ActionKind, Author, Change, Edit, ProcedureStep};

impl Region {
    /// Records another key range; the empty one seals the region: nothing is added to its manifest
    /// any more, until the range is set back. Only the owner may. Asking again is harmless. Returns
    /// a version that has it.
    ///
    /// Reads go by the range that the region was taken up with, and are not changed.
    ///
    /// # Errors
    /// [`EngineError::NotOwner`], [`EngineError::Fenced`], [`EngineError::Refused`] for a step that
    /// comes too late, and those of a commit.
    pub async fn set_range(
        &self,
        range: KeyRange,
        step: Option<ProcedureStep>,
    ) -> Result<ManifestVersion, EngineError> {
        // No flush is under way, and no obligation is left behind a seal that would refuse it.
        let _flushing = self.flushing.lock().await;
        self.contents.lock().phase.check_owner(self.id())?;
        self.manifest.refresh().await?;
        self.swap();
        self.settle_obligations().await?;
        let own = self.contents.lock().phase.check_owner(self.id())?;
        let state = self.manifest.state();
        if state.range.as_ref() == Some(&range) {
            return Ok(state.version);
        }
        let kind = ActionKind::PartitionExprChange { range };
        let mut change = Change::new(Author::Owner(own), vec![kind]);
        change.procedure = step;
        let version = self.note_fence(self.manifest.update_manifest(change).await)?;
        self.swap();
        Ok(version)
    }

    /// Writes the first delta of a split's or merge's child: schema, options, range, and the files
    /// of its parents, by reference, as far as they lie in the range. Whoever owns the group may, and
    /// several may at once: the first one counts. Hooks learn of a child by its opening.
    ///
    /// # Errors
    /// [`AdoptError::NotShared`] for a parent that is not sealed, has no lower id, or is of another
    /// table; [`EngineError::Removed`] for one that is gone; those of a commit.
    pub async fn begin_from(&self, parents: &[RegionDir]) -> Result<ManifestVersion, AdoptError> {
        let begun = self.manifest.refresh().await?;
        if begun.get() > 0 {
            self.swap();
            return Ok(begun);
        }
        let mut edit = Edit::default();
        let mut flushed = Sequence(0);
        for parent in parents {
            if parent.region_id >= self.id() {
                return Err(refused(*parent, NotShared::NotLower));
            }
            let theirs = manifest_of(&self.env, *parent);
            theirs.refresh().await?;
            let state = theirs.state();
            not_removed(*parent, &state)?;
            let Some(table) = &state.table else {
                return Err(refused(*parent, NotShared::ManifestEmpty));
            };
            if !state.is_sealed() {
                return Err(refused(*parent, NotShared::NotSealed));
            }
            if parent.table_id != self.dir.table_id || table.schema != self.spec.schema {
                return Err(refused(*parent, NotShared::OtherTable));
            }
            let clipped = state.files().map(|file| file.clipped(&self.spec.range));
            edit.add.extend(clipped.filter(|file| file.shown_keys().is_some()));
            edit.since = edit.since.max(Some(state.since));
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
            // Somebody else was first.
            Err(EngineError::Refused { .. }) if self.manifest.state().version.get() > 0 => {
                self.manifest.state().version
            }
            recorded => recorded?,
        };
        self.swap();
        Ok(version)
    }
}
