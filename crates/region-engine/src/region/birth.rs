//! Birth of a region that begins with the files of its parents: a child of a split, the result of a merge.
//!
//! Three states follow each other:
//!
//! - *Unborn*: the log has the region, its manifest is empty. Reads use the parents' files as of their seals,
//!   clipped to the region's range. The parents' manifests protect these files from garbage collection.
//! - *Born*: the first delta is committed. It references the same files, so that reads show the same rows. No
//!   other delta is ever the first one of such a region: an owner commits it before its fence.
//! - *Independent*: compactions have replaced the parents' files.
//!
//! The parents are removed only after all of their children are born (S9).

use std::sync::Arc;

use tidewater_common::ids::{ManifestVersion, RegionId, Sequence};

use super::Region;
use super::copy::manifest_of;
use super::first_delta::Beginning;
use crate::EngineError;
use crate::layout::RegionDir;
use crate::version::Version;

/// A sealed region with whose files another region begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parent {
    /// Directory of the parent. Its id is lower than that of the region.
    pub dir: RegionDir,
    /// Manifest version at which the parent was sealed: its files are those of this version.
    pub sealed_at: ManifestVersion,
    /// Greatest sequence of a row that the log had for the parent when the region began. Rows above the
    /// parent's flushed sequence are in the memtable with which the region began.
    pub last_sequence: Sequence,
}

/// Reason why a region cannot begin with the files of a parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParentProblem {
    /// References go from lower ids to higher ones only, the order in which garbage is marked.
    #[error("its id is not lower")]
    NotLower,
    /// Table, schema or options differ from those of the region or of another parent.
    #[error("its table, schema or options differ")]
    OtherTable,
    /// It was never written to the store.
    #[error("its manifest is empty")]
    ManifestEmpty,
    /// It was removed before the region began.
    #[error("it has been removed")]
    Removed,
    /// Its files may not be those with which the region begins.
    #[error(
        "it is not sealed since version {expected}{}",
        found.map_or_else(String::new, |found| format!(", but since version {found}"))
    )]
    NotSealed {
        /// Version of the seal that the log has recorded.
        expected: ManifestVersion,
        /// Version of the seal in the manifest; `None`: the region is not sealed.
        found: Option<ManifestVersion>,
    },
    /// Its rows above the flushed sequence would be lost: another parent is flushed further.
    #[error("it is flushed up to sequence {flushed}, but has rows up to sequence {last}")]
    NotFlushed {
        /// Its flushed sequence.
        flushed: Sequence,
        /// Greatest sequence of its rows.
        last: Sequence,
    },
    /// The manifest of the region exists, and its first delta does not reference this parent.
    #[error("the manifest of the region does not begin with its files")]
    OtherBeginning,
}

impl Region {
    /// Commits the first delta of a region that has parents, unless it is committed: schema, options and range,
    /// and references to the parents' files. Any replica may call it. Concurrent callers are safe: the first
    /// delta wins. Hooks are notified of the region when it is opened. For a region without parents it only
    /// reads the manifest.
    ///
    /// # Errors
    /// [`EngineError::NotBorn`] with the parent that does not fit, and errors of reading and of a commit, after
    /// which the call can be retried.
    pub async fn begin(&self) -> Result<ManifestVersion, EngineError> {
        let result = self.record_first_delta().await;
        self.notifier.deliver().await;
        result
    }

    /// Shows the parents' files at once, without I/O, if these replicas of the parents have read their seals.
    /// `parents`: in the order of the spec. Returns false otherwise: the region serves reads after
    /// [`Region::load`].
    pub fn show_files_of(&self, parents: &[&Self]) -> bool {
        let dirs = parents.iter().map(|parent| parent.dir);
        if !dirs.eq(self.spec.parents.iter().map(|parent| parent.dir)) {
            return false;
        }
        let states: Vec<_> = parents.iter().map(|parent| parent.manifest.state()).collect();
        let Ok(beginning) = Beginning::of(&self.spec, &states) else { return false };
        self.install_beginning(&beginning);
        *self.beginning.lock() = Some(beginning);
        self.notifier.deliver_in_background();
        true
    }

    /// Commits the first delta if the manifest is empty, and installs the version.
    pub(super) async fn record_first_delta(&self) -> Result<ManifestVersion, EngineError> {
        if let Some(beginning) = self.read_beginning().await? {
            let change = beginning.into_change(&self.spec);
            match self.manifest.record(change).await {
                // Another caller has committed the first delta.
                Err(EngineError::Refused { .. }) if self.is_born()? => {}
                recorded => {
                    recorded?;
                }
            }
        }
        Ok(self.install_version())
    }

    /// Reads the manifest, and while it is empty, those of the parents; installs the resulting version.
    pub(super) async fn read_version(&self) -> Result<ManifestVersion, EngineError> {
        match self.read_beginning().await? {
            Some(beginning) => Ok(self.install_beginning(&beginning)),
            None => Ok(self.install_version()),
        }
    }

    /// Returns true if the region has its own manifest, as last read, or never had parents.
    ///
    /// # Errors
    /// [`EngineError::NotBorn`] if the manifest exists without the parents' files: it would hide their rows.
    pub(super) fn is_born(&self) -> Result<bool, EngineError> {
        let Some(parent) = self.spec.parents.first() else { return Ok(true) };
        let state = self.manifest.state();
        if state.version.get() == 0 {
            return Ok(false);
        }
        let ids = self.spec.parents.iter().map(|parent| parent.dir.region_id);
        if ids.eq(state.parents.iter().copied()) {
            return Ok(true);
        }
        Err(self.not_born(parent.dir.region_id, ParentProblem::OtherBeginning))
    }

    /// Reads the manifest to its tail, and while it is empty, the parents' manifests. `None`: the region is
    /// born.
    pub(super) async fn read_beginning(&self) -> Result<Option<Beginning>, EngineError> {
        self.manifest.refresh().await?;
        if self.is_born()? {
            *self.beginning.lock() = None;
            return Ok(None);
        }
        // The log has replaced the parents: their seals are final.
        if let Some(known) = self.beginning.lock().clone() {
            return Ok(Some(known));
        }
        let problem = match self.read_parents().await {
            Ok(beginning) => return Ok(Some(beginning)),
            Err(problem) => problem,
        };
        // Parents are removed after their children are born: another replica may have committed the first
        // delta since the manifest was read.
        self.manifest.refresh().await?;
        if self.is_born()? { Ok(None) } else { Err(problem) }
    }

    async fn read_parents(&self) -> Result<Beginning, EngineError> {
        let mut states = Vec::with_capacity(self.spec.parents.len());
        for parent in &self.spec.parents {
            let manifest = manifest_of(&self.env, parent.dir);
            manifest.refresh().await?;
            states.push(manifest.state());
        }
        let beginning = Beginning::of(&self.spec, &states);
        beginning.map_err(|(parent, problem)| self.not_born(parent.dir.region_id, problem))
    }

    /// Installs the parents' files, unless a version of the region's own manifest is installed.
    pub(super) fn install_beginning(&self, beginning: &Beginning) -> ManifestVersion {
        let mut contents = self.contents.lock();
        if let Some(version) = Version::from_first_edit(&contents.version, &beginning.edit) {
            self.replace_version(&mut contents, Arc::new(version));
            let phase = contents.phase.on_loaded(None, false);
            self.set_phase(&mut contents, phase);
        }
        contents.version.manifest
    }

    fn not_born(&self, parent: RegionId, problem: ParentProblem) -> EngineError {
        EngineError::NotBorn { region: self.id(), parent, problem }
    }
}
