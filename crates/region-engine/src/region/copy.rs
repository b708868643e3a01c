//! Copy of another region's files into an empty region, by reference: no object is copied.
//!
//! A file is protected from garbage collection once this region's manifest contains it. Between the read
//! of the source manifest and that commit, a compaction of the source may have removed the file, and
//! garbage collection may have begun to delete it. The source manifest is therefore read again
//! afterwards, and the copy restarts if a file is no longer live.

use tidewater_common::keys::KeyRange;

use super::Region;
use super::staging_area::{StagedFiles, files_of, staged_files};
use crate::EngineError;
use crate::bulk::error::NotShared;
use crate::bulk::{AdoptError, MAX_FILES};
use crate::env::RegionEnv;
use crate::file_meta::{FileMeta, FileRef};
use crate::hooks::Plugins;
use crate::layout::RegionDir;
use crate::manifest::{AreaId, Edit, ManifestContext, ManifestState};

/// Maximum number of attempts of a copy.
const MAX_ATTEMPTS: u32 = 5;

/// Files to copy.
struct CopyPlan {
    edit: Edit,
    /// References to the files in the source manifest.
    source_files: Vec<FileRef>,
}

impl Region {
    /// Stages references to the live files of another region in a new area, for the log to publish as
    /// copies, which keep their sequences. Requires ownership, and an empty region. Files that an earlier
    /// attempt staged are withdrawn first.
    ///
    /// # Errors
    /// [`AdoptError::NotShared`] with the reason; [`EngineError::Removed`] of the source region;
    /// [`EngineError::Unstable`] if the source region changes too fast.
    pub async fn copy_from(
        &self,
        source: RegionDir,
        deadline_ms: u64,
    ) -> Result<StagedFiles, AdoptError> {
        if source.region_id >= self.id() {
            return Err(not_shared(source, NotShared::NotLower));
        }
        let source_manifest = manifest_of(&self.env, source);
        for _ in 0..MAX_ATTEMPTS {
            self.withdraw_copies(source).await?;
            let (own, state) = self.recorded_state().await?;
            source_manifest.refresh().await?;
            let plan = self.plan_copy(source, &source_manifest.state(), &state)?;
            let area = AreaId(self.env.ids.random());
            self.check_deadline(area, deadline_ms)?;
            let files = plan.edit.add.len();
            let max_epoch = plan.edit.add.iter().map(FileMeta::max_epoch).max();
            self.stage_edit(own, area, deadline_ms, plan.edit).await?;
            source_manifest.refresh().await?;
            let now = source_manifest.state();
            check_not_removed(source, &now)?;
            if plan.source_files.iter().all(|file| now.live.contains_key(file)) {
                let staged = staged_files(area, &self.spec.as_of(&state), files);
                return Ok(StagedFiles { max_epoch: max_epoch.unwrap_or_default(), ..staged });
            }
            tracing::info!(
                region = %self.id(), from = %source,
                "source region changed during the copy; retrying"
            );
        }
        self.withdraw_copies(source).await?;
        Err(EngineError::Unstable { region: source.region_id, rounds: MAX_ATTEMPTS }.into())
    }

    /// Withdraws the areas with files of other regions, unless the log has decided about them.
    async fn withdraw_copies(&self, source: RegionDir) -> Result<(), AdoptError> {
        if !self.obligations().is_empty() {
            return Err(not_shared(source, NotShared::NotEmpty));
        }
        let (_, state) = self.recorded_state().await?;
        for (area, content) in &state.areas {
            if files_of(content).any(|file| file.origin != self.dir) {
                self.withdraw_area(*area).await?;
            }
        }
        Ok(())
    }

    fn plan_copy(
        &self,
        source: RegionDir,
        source_state: &ManifestState,
        own_state: &ManifestState,
    ) -> Result<CopyPlan, AdoptError> {
        check_not_removed(source, source_state)?;
        let spec = self.spec.as_of(own_state);
        let Some(table) = &source_state.table else {
            return Err(not_shared(source, NotShared::ManifestEmpty));
        };
        let same = table.schema.columns() == spec.schema.columns()
            && table.schema.primary_key() == spec.schema.primary_key()
            && table.schema.time_column() == spec.schema.time_column()
            && table.options.write_mode == spec.options.write_mode
            && table.options.hash == spec.options.hash;
        if !same {
            return Err(not_shared(source, NotShared::OtherTable));
        }
        // A part of the rows is in other regions once the source is divided.
        let has_range = |range: &KeyRange| range.intersection(&spec.range) == spec.range;
        if !source_state.range.as_ref().is_some_and(has_range) {
            return Err(not_shared(source, NotShared::OtherRange));
        }
        let written = {
            let contents = self.contents.lock();
            !contents.runs.is_empty() || contents.version.flushed > self.base
        };
        if written || !own_state.live.is_empty() {
            return Err(not_shared(source, NotShared::NotEmpty));
        }
        let shown = |file: &&FileMeta| file.clipped(&spec.range).shown_keys().is_some();
        let files: Vec<&FileMeta> = source_state.files().filter(shown).collect();
        if files.len() > MAX_FILES {
            return Err(AdoptError::TooMany { files: files.len() });
        }
        let found = files.iter().map(|file| file.max_sequence()).max().unwrap_or_default();
        if found > self.base {
            return Err(not_shared(source, NotShared::AboveBase { found, base: self.base }));
        }
        let add = files.iter().map(|file| file.clipped(&spec.range)).collect();
        let edit = Edit {
            add,
            since: Some(source_state.since),
            expired: source_state.expired.iter().copied().collect(),
            ..Edit::default()
        };
        let source_files = files.iter().map(|file| file.reference()).collect();
        Ok(CopyPlan { edit, source_files })
    }
}

/// Returns the manifest of another region for reading only. No hooks are attached.
pub(super) fn manifest_of(env: &RegionEnv, dir: RegionDir) -> ManifestContext {
    ManifestContext::new(env.clone().with_plugins(Plugins::default()), dir)
}

fn check_not_removed(dir: RegionDir, state: &ManifestState) -> Result<(), EngineError> {
    if state.is_removed() {
        return Err(EngineError::Removed { region: dir.region_id });
    }
    Ok(())
}

fn not_shared(source: RegionDir, reason: NotShared) -> AdoptError {
    AdoptError::NotShared { from: source.region_id, reason }
}
