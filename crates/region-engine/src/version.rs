//! Version of a region: its files at one manifest version, pinned by reads.

use std::sync::Arc;

use tidewater_common::ids::{Epoch, ManifestVersion, Sequence};

use crate::file_meta::FileMeta;
use crate::manifest::{Edit, ExpiryMarks, ManifestState};

/// Files and flushed sequence of a region, always replaced together: every row at or below the sequence
/// is in one of the files, or truncated.
#[derive(Debug, Clone)]
pub(crate) struct Version {
    pub(crate) manifest: ManifestVersion,
    pub(crate) files: Vec<Arc<FileMeta>>,
    pub(crate) flushed: Sequence,
    /// Reads below this epoch fail: compaction may have dropped versions at or below it.
    pub(crate) since: Epoch,
    /// Every row at or below it is truncated; never greater than `flushed`.
    pub(crate) truncated: Sequence,
    /// Rows that commits have expired for good.
    pub(crate) expired: ExpiryMarks,
}

impl Version {
    /// Returns the version of a region whose manifest has not been read.
    pub(crate) fn unread(flushed: Sequence) -> Self {
        Self {
            manifest: ManifestVersion(0),
            files: Vec::new(),
            flushed,
            since: Epoch(0),
            truncated: Sequence(0),
            expired: ExpiryMarks::default(),
        }
    }

    /// Returns the version of a manifest state that was read after `before`; `None` if it is not newer.
    /// The flushed sequence never decreases.
    pub(crate) fn after(before: &Self, state: &ManifestState) -> Option<Self> {
        if state.version <= before.manifest {
            return None;
        }
        // The log may have truncated rows before the manifest records it.
        let truncated = before.truncated.max(state.truncated);
        Some(Self {
            manifest: state.version,
            files: state
                .files()
                .filter(|file| file.max_sequence() > truncated)
                .cloned()
                .map(Arc::new)
                .collect(),
            flushed: before.flushed.max(state.flushed).max(truncated),
            since: before.since.max(state.since),
            truncated,
            expired: state.expired.clone(),
        })
    }

    /// Returns the version of a region whose manifest does not exist yet, read after `before`: it shows the
    /// files that its first delta will adopt. `None` once a version of the region's own manifest was read.
    pub(crate) fn from_first_edit(before: &Self, first: &Edit) -> Option<Self> {
        if before.manifest.get() > 0 {
            return None;
        }
        let truncated = before.truncated;
        let mut expired = ExpiryMarks::default();
        first.expired.iter().for_each(|mark| expired.add(*mark));
        let files = first.add.iter().filter(|file| file.max_sequence() > truncated);
        Some(Self {
            manifest: before.manifest,
            files: files.cloned().map(Arc::new).collect(),
            flushed: before.flushed.max(first.flushed.unwrap_or_default()).max(truncated),
            since: before.since.max(first.since.unwrap_or_default()),
            truncated,
            expired,
        })
    }

    /// Returns this version without the rows at or below a sequence.
    pub(crate) fn truncated(&self, sequence: Sequence) -> Self {
        let files = self.files.iter().filter(|file| file.max_sequence() > sequence).cloned();
        Self {
            manifest: self.manifest,
            files: files.collect(),
            flushed: self.flushed.max(sequence),
            since: self.since,
            truncated: self.truncated.max(sequence),
            expired: self.expired.clone(),
        }
    }
}
