//! Staging areas: files and schemas that are in the manifest, but invisible to reads until the log
//! publishes them.
//!
//! All checks are made when content is staged, before the log decides: a publication that is in the log
//! cannot be refused. An area that the log may publish outlives the region's owner. After its deadline,
//! the client that filled it is assumed dead and the area may be abandoned.

use std::collections::BTreeSet;
use std::sync::Arc;

use tidewater_common::ids::{Epoch, FileId, ManifestVersion, OwnerEpoch, SchemaVersion};
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

/// Status of a staging area, for operators and for the task that abandons overdue areas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StagingAreaStatus {
    /// Id of the staging area.
    pub area: AreaId,
    /// True if a log entry opened the area, so that it outlives the region's owner.
    pub logged: bool,
    /// Time after which the area may be abandoned, milliseconds since the Unix epoch.
    pub deadline_ms: u64,
    /// True if the deadline has passed by this node's clock.
    pub overdue: bool,
    /// Number of files staged in the area.
    pub files: usize,
}

/// Result of staging files: the schema version and range against which they were checked. The log
/// compares both with the region before it publishes the area.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StagedFiles {
    /// Id of the staging area.
    pub area: AreaId,
    /// Version of the schema that the files match.
    pub schema_version: SchemaVersion,
    /// Key range of the region.
    pub range: KeyRange,
    /// Number of files in the area.
    pub files: usize,
    /// Greatest epoch of a row that keeps its epoch: of copies.
    pub max_epoch: Epoch,
}

impl Region {
    /// Open staging areas, as of the last read of the manifest.
    pub fn staging_areas(&self) -> Vec<StagingAreaStatus> {
        let now_ms = self.env.clock.now_ms();
        let status = |(id, area): (&AreaId, &StagingArea)| StagingAreaStatus {
            area: *id,
            logged: area.logged,
            deadline_ms: area.deadline_ms,
            overdue: area.deadline_ms <= now_ms,
            files: files_of(area).count(),
        };
        self.manifest.state().areas.iter().map(status).collect()
    }

    /// Opens a staging area without a log entry, for programs that have no log. The area is dropped when
    /// the owner changes. Idempotent.
    ///
    /// # Errors
    /// [`EngineError::NotOwner`], [`EngineError::Fenced`], [`EngineError::Refused`] if the id was used
    /// before, and errors of a commit.
    pub async fn open_unlogged_area(
        &self,
        area: AreaId,
        deadline_ms: u64,
    ) -> Result<ManifestVersion, EngineError> {
        let (own, state) = self.recorded_state().await?;
        if state.areas.contains_key(&area) {
            return Ok(state.version);
        }
        self.manifest.refresh().await?;
        let step = AreaStep::Open { logged: false, deadline_ms };
        let change = Change::new(Author::Owner(own), vec![ActionKind::Area { area, step }]);
        self.note_fence(self.manifest.update_manifest(change).await)
    }

    /// Checks files that a client wrote into the region's directory, then stages them in a new area for
    /// the log to publish. Requires ownership. Idempotent for the same area and files.
    ///
    /// # Errors
    /// [`AdoptError`] names the file that is refused and the reason; no file is staged then.
    pub async fn adopt(
        &self,
        area: AreaId,
        files: &[FileId],
        deadline_ms: u64,
    ) -> Result<StagedFiles, AdoptError> {
        let (own, state) = self.recorded_state().await?;
        let spec = self.spec.as_of(&state);
        if let Some(open) = state.areas.get(&area) {
            let same = files_of(open).map(|file| file.file_id).eq(files.iter().copied());
            if !same {
                return Err(AdoptError::AreaTaken { area });
            }
            return Ok(staged_files(area, &spec, files.len()));
        }
        self.check_deadline(area, deadline_ms)?;
        let add = self.inspect_files(&state, &spec, files, 0).await?;
        self.stage_edit(own, area, deadline_ms, Edit { add, ..Edit::default() }).await?;
        Ok(staged_files(area, &spec, files.len()))
    }

    /// Records pending obligations, then returns true if an area was published, by this or an earlier
    /// owner. Callers use it to retry a publication of unknown outcome, and to verify that the area
    /// still existed when the log's decision was recorded.
    ///
    /// # Errors
    /// [`AdoptError::Abandoned`] if the area was abandoned, and errors of a commit.
    pub async fn check_published(&self, area: AreaId) -> Result<bool, AdoptError> {
        let (_, state) = self.recorded_state().await?;
        match state.closed_areas.get(&area) {
            None => Ok(false),
            Some(AreaOutcome::Published) => Ok(true),
            Some(AreaOutcome::Abandoned) => Err(AdoptError::Abandoned { area }),
        }
    }

    /// Stages files that a client wrote in an open staging area. Files that are already staged in it are
    /// left unchanged.
    ///
    /// # Errors
    /// As [`Region::adopt`]; [`EngineError::Refused`] if the area is not open.
    pub async fn stage_files(
        &self,
        area: AreaId,
        files: &[FileId],
    ) -> Result<StagedFiles, AdoptError> {
        let (own, state) = self.recorded_state().await?;
        let open = self.open_area_before_deadline(&state, area)?;
        let spec = self.spec_with_staged(&state, open);
        let present: BTreeSet<FileId> = files_of(open).map(|file| file.file_id).collect();
        let new: Vec<FileId> =
            files.iter().copied().filter(|file| !present.contains(file)).collect();
        if !new.is_empty() {
            let add = self.inspect_files(&state, &spec, &new, present.len()).await?;
            let edit = ActionKind::Edit(Edit { add, ..Edit::default() });
            self.stage(own, area, edit).await?;
        }
        Ok(staged_files(area, &spec, present.len() + new.len()))
    }

    /// Stages a schema and options in a staging area. Files that are staged later are checked against
    /// them.
    ///
    /// # Errors
    /// [`EngineError::BadRows`] if schema and options do not match, [`EngineError::Refused`] if the area
    /// is not open or the schema is not newer than the region's, [`AdoptError::Overdue`], and errors of
    /// a commit.
    pub async fn stage_alter(
        &self,
        area: AreaId,
        schema: TableSchema,
        options: TableOptions,
    ) -> Result<(), AdoptError> {
        TableShape::new(schema.clone(), options.clone())?;
        let (own, state) = self.recorded_state().await?;
        let open = self.open_area_before_deadline(&state, area)?;
        let before = self.spec_with_staged(&state, open);
        if before.schema == schema && before.options == options {
            return Ok(());
        }
        if before.schema.version() >= schema.version() {
            let reason = Void::SchemaNotNewer { version: schema.version() };
            return Err(EngineError::Refused { region: self.id(), reason }.into());
        }
        self.stage(own, area, ActionKind::Alter { schema: Box::new(schema), options }).await
    }

    /// Abandons an area that the log does not know. Has no effect if the area is not open.
    ///
    /// # Errors
    /// [`AdoptError::Decided`] if the log publishes the area, and errors of a commit.
    pub async fn withdraw_area(&self, area: AreaId) -> Result<(), AdoptError> {
        let decided = self.obligations().iter().any(|pending| match &pending.obligation {
            Obligation::Publish(publication) => publication.area == area,
            _ => false,
        });
        if decided {
            return Err(AdoptError::Decided { area });
        }
        let (own, state) = self.recorded_state().await?;
        if state.areas.contains_key(&area) {
            let abandon = ActionKind::Area { area, step: AreaStep::Abandon };
            let change = Change::new(Author::Owner(own), vec![abandon]);
            self.note_fence(self.manifest.record(change).await)?;
        }
        Ok(())
    }

    /// Records all pending obligations, then returns the owner and the manifest state.
    pub(super) async fn recorded_state(
        &self,
    ) -> Result<(OwnerEpoch, Arc<ManifestState>), EngineError> {
        self.record_obligations().await?;
        let own = self.contents.lock().phase.check_owner(self.id())?;
        Ok((own, self.manifest.state()))
    }

    /// Opens an area and stages an edit in it, in one delta. Hooks are not notified of this bookkeeping.
    pub(super) async fn stage_edit(
        &self,
        own: OwnerEpoch,
        area: AreaId,
        deadline_ms: u64,
        edit: Edit,
    ) -> Result<(), EngineError> {
        self.manifest.refresh().await?;
        // Logged: the log may publish the area under any owner.
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

    pub(super) fn check_deadline(&self, area: AreaId, deadline_ms: u64) -> Result<(), AdoptError> {
        if deadline_ms <= self.env.clock.now_ms() {
            return Err(AdoptError::Overdue { area });
        }
        Ok(())
    }

    fn open_area_before_deadline<'a>(
        &self,
        state: &'a ManifestState,
        area: AreaId,
    ) -> Result<&'a StagingArea, AdoptError> {
        let Some(open) = state.areas.get(&area) else {
            let reason = Void::AreaNotOpen { area };
            return Err(EngineError::Refused { region: self.id(), reason }.into());
        };
        self.check_deadline(area, open.deadline_ms)?;
        Ok(open)
    }

    /// Returns the spec of the region after a publication of the area.
    fn spec_with_staged(&self, state: &ManifestState, area: &StagingArea) -> RegionSpec {
        let mut spec = self.spec.as_of(state);
        for action in &area.actions {
            if let ActionKind::Alter { schema, options } = &action.kind {
                spec.schema = (**schema).clone();
                spec.options = options.clone();
            }
        }
        spec
    }

    /// Inspects files to stage in an area that already has `present` files.
    async fn inspect_files(
        &self,
        state: &ManifestState,
        spec: &RegionSpec,
        files: &[FileId],
        present: usize,
    ) -> Result<Vec<FileMeta>, AdoptError> {
        // Not an error of the files, whose keys are outside of the empty range.
        self.check_not_sealed()?;
        let count = files.len() + present;
        if count > MAX_FILES {
            return Err(AdoptError::TooMany { files: count });
        }
        let shape = Arc::new(TableShape::new(spec.schema.clone(), spec.options.clone())?);
        let mut known: BTreeSet<FileId> = known_files(state).collect();
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

/// Ids of all files that the manifest contains or has recently removed.
fn known_files(state: &ManifestState) -> impl Iterator<Item = FileId> {
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

pub(super) fn staged_files(area: AreaId, spec: &RegionSpec, files: usize) -> StagedFiles {
    StagedFiles {
        area,
        schema_version: spec.schema.version(),
        range: spec.range.clone(),
        files,
        max_epoch: Epoch(0),
    }
}
