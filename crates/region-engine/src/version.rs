//! What a read pins: the files of a region at one manifest version.

use std::sync::Arc;

use tidewater_common::ids::{Epoch, ManifestVersion, Sequence};

use crate::file_meta::FileMeta;
use crate::manifest::ManifestState;

/// Files and flushed sequence belong together: every row at or below the sequence lies in one of
/// the files, or is forgotten.
#[derive(Debug, Clone)]
pub(crate) struct Version {
    pub(crate) manifest: ManifestVersion,
    pub(crate) files: Vec<Arc<FileMeta>>,
    pub(crate) flushed: Sequence,
    /// Reads below this epoch are refused: versions at or below it may have been merged away.
    pub(crate) since: Epoch,
    /// Every row at or below it is forgotten; at or below `flushed`.
    pub(crate) truncated: Sequence,
}

impl Version {
    /// Before the manifest has been read.
    pub(crate) fn unread(flushed: Sequence) -> Self {
        let (manifest, truncated) = (ManifestVersion(0), Sequence(0));
        Self { manifest, files: Vec::new(), flushed, since: Epoch(0), truncated }
    }

    /// The version that follows from `before` by reading the manifest; `None` when it is not newer.
    /// The flushed sequence never goes back.
    pub(crate) fn after(before: &Self, state: &ManifestState) -> Option<Self> {
        if state.version <= before.manifest {
            return None;
        }
        // The log may have truncated what the manifest does not know to be gone yet.
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
        })
    }

    /// The same without the rows at or below a sequence.
    pub(crate) fn truncated(&self, sequence: Sequence) -> Self {
        let files = self.files.iter().filter(|file| file.max_sequence() > sequence).cloned();
        Self {
            manifest: self.manifest,
            files: files.collect(),
            flushed: self.flushed.max(sequence),
            since: self.since,
            truncated: self.truncated.max(sequence),
        }
    }
}
