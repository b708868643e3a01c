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
}

impl Version {
    /// Before the manifest has been read.
    pub(crate) fn unread(flushed: Sequence) -> Self {
        Self { manifest: ManifestVersion(0), files: Vec::new(), flushed, since: Epoch(0) }
    }

    /// The version that follows from `before` by reading the manifest; `None` when it is not newer.
    /// The flushed sequence never goes back.
    pub(crate) fn after(before: &Self, state: &ManifestState) -> Option<Self> {
        if state.version <= before.manifest {
            return None;
        }
        Some(Self {
            manifest: state.version,
            files: state.files().cloned().map(Arc::new).collect(),
            flushed: before.flushed.max(state.flushed),
            since: before.since.max(state.since),
        })
    }
}
