//! Copies another region's files into an empty one, by reference: no object is copied.
//!
//! A file is safe from garbage collection once this region's manifest names it. Between reading the
//! other manifest and naming the file, a compaction there may have removed it, and a collection may
//! have begun to delete it; so the other manifest is read again, and what is gone is taken back.

use super::Region;
use super::area::{Staged, files_of, staged};
use crate::EngineError;
use crate::bulk::error::NotShared;
use crate::bulk::{AdoptError, MAX_FILES};
use crate::env::RegionEnv;
use crate::file_meta::{FileMeta, FileRef};
use crate::hooks::Plugins;
use crate::layout::RegionDir;
use crate::manifest::{AreaId, Edit, ManifestContext, ManifestState};

/// How often a copy starts over before it gives up.
const ROUNDS: u32 = 5;

/// What is to be copied.
struct Found {
    edit: Edit,
    /// As the other region names them.
    theirs: Vec<FileRef>,
}

impl Region {
    /// Names the live files of another region as staged, in an area of their own, for the log to
    /// publish as copies: they keep their sequences. Only the owner of an empty region may. What an
    /// earlier attempt has staged is taken back first.
    ///
    /// # Errors
    /// [`AdoptError::NotShared`] says why not; [`EngineError::Removed`] of the other region;
    /// [`EngineError::Unstable`] when the other region changes too fast.
    pub async fn copy_from(
        &self,
        source: RegionDir,
        deadline_ms: u64,
    ) -> Result<Staged, AdoptError> {
        if source.region_id >= self.id() {
            return Err(refused(source, NotShared::NotLower));
        }
        let theirs = manifest_of(&self.env, source);
        for _ in 0..ROUNDS {
            self.withdraw_copies(source).await?;
            let (own, state) = self.settled().await?;
            theirs.refresh().await?;
            let found = self.to_copy(source, &theirs.state(), &state)?;
            let area = AreaId(self.env.ids.random());
            self.in_time(area, deadline_ms)?;
            let files = found.edit.add.len();
            self.name_staged(own, area, deadline_ms, found.edit).await?;
            theirs.refresh().await?;
            let now = theirs.state();
            not_removed(source, &now)?;
            if found.theirs.iter().all(|file| now.live.contains_key(file)) {
                return Ok(staged(area, &self.spec.as_of(&state), files));
            }
            tracing::info!(region = %self.id(), from = %source, "the copy starts over");
        }
        self.withdraw_copies(source).await?;
        Err(EngineError::Unstable { region: source.region_id, rounds: ROUNDS }.into())
    }

    /// Takes back what was staged of other regions' files, unless the log has decided about it.
    async fn withdraw_copies(&self, source: RegionDir) -> Result<(), AdoptError> {
        if !self.obligations().is_empty() {
            return Err(refused(source, NotShared::NotEmpty));
        }
        let (_, state) = self.settled().await?;
        for (area, content) in &state.areas {
            if files_of(content).any(|file| file.origin != self.dir) {
                self.withdraw(*area).await?;
            }
        }
        Ok(())
    }

    fn to_copy(
        &self,
        source: RegionDir,
        theirs: &ManifestState,
        ours: &ManifestState,
    ) -> Result<Found, AdoptError> {
        not_removed(source, theirs)?;
        let spec = self.spec.as_of(ours);
        let Some(table) = &theirs.table else {
            return Err(refused(source, NotShared::ManifestEmpty));
        };
        let same = table.schema.columns() == spec.schema.columns()
            && table.schema.primary_key() == spec.schema.primary_key()
            && table.schema.time_column() == spec.schema.time_column()
            && table.options.write_mode == spec.options.write_mode
            && table.options.hash == spec.options.hash;
        if !same {
            return Err(refused(source, NotShared::OtherTable));
        }
        let written = {
            let contents = self.contents.lock();
            !contents.runs.is_empty() || contents.version.flushed > self.base
        };
        if written || !ours.live.is_empty() {
            return Err(refused(source, NotShared::NotEmpty));
        }
        let shown = |file: &&FileMeta| file.clipped(&spec.range).shown_keys().is_some();
        let files: Vec<&FileMeta> = theirs.files().filter(shown).collect();
        if files.len() > MAX_FILES {
            return Err(AdoptError::TooMany { files: files.len() });
        }
        let found = files.iter().map(|file| file.max_sequence()).max().unwrap_or_default();
        if found > self.base {
            return Err(refused(source, NotShared::AboveBase { found, base: self.base }));
        }
        let add = files.iter().map(|file| file.clipped(&spec.range)).collect();
        let edit = Edit { add, since: Some(theirs.since), ..Edit::default() };
        Ok(Found { edit, theirs: files.iter().map(|file| file.reference()).collect() })
    }
}

/// Another region's manifest, which is read and never written: no hook is told of it.
pub(super) fn manifest_of(env: &RegionEnv, dir: RegionDir) -> ManifestContext {
    ManifestContext::new(env.clone().with_plugins(Plugins::default()), dir)
}

pub(super) fn not_removed(dir: RegionDir, state: &ManifestState) -> Result<(), EngineError> {
    match state.is_removed() {
        true => Err(EngineError::Removed { region: dir.region_id }),
        false => Ok(()),
    }
}

pub(super) fn refused(source: RegionDir, reason: NotShared) -> AdoptError {
    AdoptError::NotShared { from: source.region_id, reason }
}
