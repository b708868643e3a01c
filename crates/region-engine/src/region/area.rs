//! Staging areas: files and schemas that the manifest names and nobody sees, until the log publishes
//! them.
//!
//! All that can be refused is refused here, before the log decides: what it has decided must be
//! carried out. An area that the log may publish outlives its owner; its deadline tells when whoever
//! filled it has probably died.

use std::collections::BTreeSet;
use std::sync::Arc;

use tidewater_common::ids::{FileId, ManifestVersion, OwnerEpoch, SchemaVersion};
use tidewater_common::keys::KeyRange;
use tidewater_common::schema::{TableOptions, TableSchema};

use super::obligation::Obligation;
use super::{Region, RegionSpec};
use crate::EngineError;
use crate::bulk::{AdoptError, MAX_FILES, Unfit, inspect};
use crate::file_meta::FileMeta;
use crate::manifest::state::StagingArea;
use crate::manifest::{
    Action, ActionKind, AreaId, AreaOutcome, AreaStep, Author, Change, Edit, ManifestState, Void,
};
use crate::read::shape::TableShape;

/// A staging area, for operators and for whoever gives up those that are overdue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AreaStatus {
    /// The area.
    pub area: AreaId,
    /// Whether it outlives the region's owner.
    pub logged: bool,
    /// When it is to be given up, milliseconds since the Unix epoch.
    pub deadline_ms: u64,
    /// Whether that time has come, by this node's clock.
    pub overdue: bool,
    /// Files that are staged in it.
    pub files: usize,
}

/// What was staged, and against what it was checked: the log compares that before it publishes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Staged {
    /// The area.
    pub area: AreaId,
    /// Version of the schema.
    pub schema_version: SchemaVersion,
    /// The region's range.
    pub range: KeyRange,
    /// Files in the area.
    pub files: usize,
}

impl Region {
    /// The staging areas that are open, as far as the manifest has been read.
    pub fn areas(&self) -> Vec<AreaStatus> {
        let now_ms = self.env.clock.now_ms();
        let status = |(id, area): (&AreaId, &StagingArea)| AreaStatus {
            area: *id,
            logged: area.logged,
            deadline_ms: area.deadline_ms,
            overdue: area.deadline_ms <= now_ms,
            files: files_of(area).count(),
        };
        self.manifest.state().areas.iter().map(status).collect()
    }

    /// Begins a staging area without the log, which ends with this owner: for a program that has no
    /// log. Asking again is harmless.
    ///
    /// # Errors
    /// [`EngineError::NotOwner`], [`EngineError::Fenced`], [`EngineError::Refused`] when the id was
    /// used before, and those of a commit.
    pub async fn open_own_area(
        &self,
        area: AreaId,
        deadline_ms: u64,
    ) -> Result<ManifestVersion, EngineError> {
        let (own, state) = self.settled().await?;
        if state.areas.contains_key(&area) {
            return Ok(state.version);
        }
        let step = AreaStep::Open { logged: false, deadline_ms };
        let change = Change::new(Author::Owner(own), vec![ActionKind::Area { area, step }]);
        self.note_fence(self.manifest.update_manifest(change).await)
    }

    /// Names files that somebody else wrote into the region's directory as staged, in an area of
    /// their own, for the log to publish: checks all of each file first. Only the owner may. Asking
    /// again for the same files is harmless.
    ///
    /// # Errors
    /// [`AdoptError`] says which file is refused and why; nothing is staged then.
    pub async fn adopt(
        &self,
        area: AreaId,
        files: &[FileId],
        deadline_ms: u64,
    ) -> Result<Staged, AdoptError> {
        let (own, state) = self.settled().await?;
        let spec = self.spec.as_of(&state);
        if let Some(open) = state.areas.get(&area) {
            let same = files_of(open).map(|file| file.file_id).eq(files.iter().copied());
            return match same {
                true => Ok(staged(area, &spec, files.len())),
                false => Err(AdoptError::AreaTaken { area }),
            };
        }
        self.in_time(area, deadline_ms)?;
        let add = self.inspected(&state, &spec, files, 0).await?;
        self.name_staged(own, area, deadline_ms, Edit { add, ..Edit::default() }).await?;
        Ok(staged(area, &spec, files.len()))
    }

    /// Whether an area was published, by whoever owned the region then: for whoever asks again since
    /// the outcome was not told, and to be sure that what the log has decided was there to be done.
    ///
    /// # Errors
    /// [`AdoptError::Abandoned`] when it was given up instead, and those of a commit.
    pub async fn published(&self, area: AreaId) -> Result<bool, AdoptError> {
        let (_, state) = self.settled().await?;
        match state.closed_areas.get(&area) {
            None => Ok(false),
            Some(AreaOutcome::Published) => Ok(true),
            Some(AreaOutcome::Abandoned) => Err(AdoptError::Abandoned { area }),
        }
    }

    /// Stages files that somebody else wrote in a staging area; those that are in it already are
    /// left as they are.
    ///
    /// # Errors
    /// As [`Region::adopt`]; [`EngineError::Refused`] when the area is not open.
    pub async fn stage_files(&self, area: AreaId, files: &[FileId]) -> Result<Staged, AdoptError> {
        let (own, state) = self.settled().await?;
        let open = self.open_in_time(&state, area)?;
        let spec = self.described_in(&state, open);
        let there: BTreeSet<FileId> = files_of(open).map(|file| file.file_id).collect();
        let new: Vec<FileId> = files.iter().copied().filter(|file| !there.contains(file)).collect();
        if !new.is_empty() {
            let add = self.inspected(&state, &spec, &new, there.len()).await?;
            let edit = ActionKind::Edit(Edit { add, ..Edit::default() });
            self.stage(own, area, edit).await?;
        }
        Ok(staged(area, &spec, there.len() + new.len()))
    }

    /// Stages a schema and options in a staging area: files that are staged from here on are checked
    /// against them.
    ///
    /// # Errors
    /// [`EngineError::BadRows`] when they do not fit each other, [`EngineError::Refused`] when the
    /// area is not open or the schema is not newer than the region's, [`AdoptError::Overdue`], and
    /// those of a commit.
    pub async fn stage_alter(
        &self,
        area: AreaId,
        schema: TableSchema,
        options: TableOptions,
    ) -> Result<(), AdoptError> {
        TableShape::new(schema.clone(), options.clone())?;
        let (own, state) = self.settled().await?;
        let before = self.described_in(&state, self.open_in_time(&state, area)?);
        if before.schema == schema && before.options == options {
            return Ok(());
        }
        if before.schema.version() >= schema.version() {
            let reason = Void::SchemaNotNewer { version: schema.version() };
            return Err(EngineError::Refused { region: self.id(), reason }.into());
        }
        self.stage(own, area, ActionKind::Alter { schema: Box::new(schema), options }).await
    }

    /// Takes back an area of which the log knows nothing; one that is not open is left as it is.
    ///
    /// # Errors
    /// [`AdoptError::Decided`] when the log publishes it, and those of a commit.
    pub async fn withdraw(&self, area: AreaId) -> Result<(), AdoptError> {
        let decided = self.obligations().iter().any(|pending| match &pending.obligation {
            Obligation::Publish(publication) => publication.area == area,
            _ => false,
        });
        if decided {
            return Err(AdoptError::Decided { area });
        }
        let (own, state) = self.settled().await?;
        if state.areas.contains_key(&area) {
            let abandon = ActionKind::Area { area, step: AreaStep::Abandon };
            let change = Change::new(Author::Owner(own), vec![abandon]);
            self.note_fence(self.manifest.record(change).await)?;
        }
        Ok(())
    }

    /// Owner and state, once the manifest shows all that the log has decided.
    pub(super) async fn settled(&self) -> Result<(OwnerEpoch, Arc<ManifestState>), EngineError> {
        self.settle().await?;
        let own = self.contents.lock().phase.check_owner(self.id())?;
        Ok((own, self.manifest.state()))
    }

    /// Opens an area and names files in it, in one delta: bookkeeping, of which hooks are not told.
    pub(super) async fn name_staged(
        &self,
        own: OwnerEpoch,
        area: AreaId,
        deadline_ms: u64,
        edit: Edit,
    ) -> Result<(), EngineError> {
        // The log may publish it under whatever owner.
        let step = AreaStep::Open { logged: true, deadline_ms };
        let mut change = Change::new(Author::Owner(own), vec![ActionKind::Area { area, step }]);
        change.actions.push(Action::staged(area, ActionKind::Edit(edit)));
        self.note_fence(self.manifest.record(change).await)?;
        Ok(())
    }

    async fn stage(
        &self,
        own: OwnerEpoch,
        area: AreaId,
        kind: ActionKind,
    ) -> Result<(), AdoptError> {
        let mut change = Change::new(Author::Owner(own), Vec::new());
        change.actions.push(Action::staged(area, kind));
        self.note_fence(self.manifest.update_manifest(change).await)?;
        Ok(())
    }

    pub(super) fn in_time(&self, area: AreaId, deadline_ms: u64) -> Result<(), AdoptError> {
        match deadline_ms <= self.env.clock.now_ms() {
            true => Err(AdoptError::Overdue { area }),
            false => Ok(()),
        }
    }

    fn open_in_time<'a>(
        &self,
        state: &'a ManifestState,
        area: AreaId,
    ) -> Result<&'a StagingArea, AdoptError> {
        let Some(open) = state.areas.get(&area) else {
            let reason = Void::AreaNotOpen { area };
            return Err(EngineError::Refused { region: self.id(), reason }.into());
        };
        self.in_time(area, open.deadline_ms)?;
        Ok(open)
    }

    /// What the region will be once the area is published.
    fn described_in(&self, state: &ManifestState, area: &StagingArea) -> RegionSpec {
        let mut spec = self.spec.as_of(state);
        for action in &area.actions {
            if let ActionKind::Alter { schema, options } = &action.kind {
                (spec.schema, spec.options) = ((**schema).clone(), options.clone());
            }
        }
        spec
    }

    async fn inspected(
        &self,
        state: &ManifestState,
        spec: &RegionSpec,
        files: &[FileId],
        beside: usize,
    ) -> Result<Vec<FileMeta>, AdoptError> {
        let count = files.len() + beside;
        if count > MAX_FILES {
            return Err(AdoptError::TooMany { files: count });
        }
        let shape = Arc::new(TableShape::new(spec.schema.clone(), spec.options.clone())?);
        let mut known: BTreeSet<FileId> = named(state).collect();
        let mut found = Vec::with_capacity(files.len());
        for file in files {
            if !known.insert(*file) {
                return Err(AdoptError::Unfit { file: *file, reason: Unfit::Known });
            }
            found.push(inspect(&self.env, self.dir, &shape, &spec.range, *file).await?);
        }
        Ok(found)
    }
}

/// Every file that the manifest names, or has named lately.
fn named(state: &ManifestState) -> impl Iterator<Item = FileId> {
    let references = state.live.keys().chain(state.removed.keys()).map(|file| file.file_id);
    let staged = state.areas.values().flat_map(files_of).map(|file| file.file_id);
    references.chain(staged)
}

pub(super) fn files_of(area: &StagingArea) -> impl Iterator<Item = &FileMeta> {
    area.actions.iter().flat_map(|action| match &action.kind {
        ActionKind::Edit(edit) => edit.add.as_slice(),
        _ => &[],
    })
}

pub(super) fn staged(area: AreaId, spec: &RegionSpec, files: usize) -> Staged {
    Staged { area, schema_version: spec.schema.version(), range: spec.range.clone(), files }
}
