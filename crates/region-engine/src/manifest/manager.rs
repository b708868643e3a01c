//! The low-level manifest of one region: follows it, commits to it.

mod checkpoint;
mod settle;

use std::sync::Arc;

use bytes::Bytes;
use tidewater_common::ids::ManifestVersion;

use self::settle::CommitOutcome;
use super::reader::ManifestReader;
use super::{Author, Change, Delta, ManifestState, Void, codec, replay};
use crate::env::RegionEnv;
use crate::error::EngineError;
use crate::layout::RegionDir;

/// One region's manifest as far as it has been read, and the commit loop on it.
///
/// A future of this type may be dropped at any await: what was put and not settled is kept, and
/// settled by the next call.
#[derive(Debug)]
pub struct RegionManifestManager {
    env: RegionEnv,
    reader: ManifestReader,
    state: Arc<ManifestState>,
    /// Whether the manifest has been read at all.
    loaded: bool,
    /// Newest checkpoint that is known.
    checkpointed: ManifestVersion,
    pending: Option<PendingDelta>,
    /// ManifestTail to be committed after whoever asked for them had been told that this is unknown, or
    /// had gone away: nobody else will tell the hooks.
    late: Vec<Arc<Delta>>,
}

/// A delta whose put was begun and whose outcome is unknown.
#[derive(Debug, Clone)]
struct PendingDelta {
    delta: Arc<Delta>,
    /// Put again and again: never other content for its version.
    bytes: Bytes,
}

impl RegionManifestManager {
    /// An unread manifest: no I/O.
    pub fn new(env: RegionEnv, dir: RegionDir) -> Self {
        let reader = ManifestReader {
            storage: env.storage.clone(),
            dir,
            options: env.options.manifest.clone(),
        };
        Self {
            env,
            reader,
            state: Arc::new(ManifestState::empty(dir)),
            loaded: false,
            checkpointed: ManifestVersion(0),
            pending: None,
            late: Vec::new(),
        }
    }

    /// What has been read so far.
    pub fn state(&self) -> &Arc<ManifestState> {
        &self.state
    }

    /// The newest checkpoint that was read or written; 0: none.
    pub(in crate::manifest) fn checkpointed(&self) -> ManifestVersion {
        self.checkpointed
    }

    /// Reads to the tail; settles a commit of unknown outcome first.
    pub async fn refresh(&mut self) -> Result<ManifestVersion, EngineError> {
        let settled = self.settle_pending().await?;
        self.late.extend(settled);
        self.read().await?;
        Ok(self.state.version)
    }

    /// Commits a change at the next version: the one low-level write. Logical writes go through
    /// [`super::ManifestContext`]; bookkeeping (fence, GC floor) comes here directly.
    ///
    /// After [`EngineError::Unknown`] the change may be committed: ask again with the same change
    /// (it is committed at most once), or `refresh` and look at the state. Every other error means
    /// that it is not, and will not be.
    pub(in crate::manifest) async fn update(
        &mut self,
        change: Change,
    ) -> Result<Arc<Delta>, EngineError> {
        if let Some(delta) = self.settle_pending().await? {
            if delta.change() == change {
                return Ok(delta);
            }
            self.late.push(delta);
        }
        if !self.loaded {
            self.read().await?;
        }
        for _ in 0..self.reader.options.commit_rounds.max(1) {
            let delta = self.draft(change.clone());
            if let Err(void) = replay::check(&self.state, &delta) {
                // A refusal counts only when it was decided at the tail.
                let decided_at = self.state.version;
                self.read().await?;
                if self.state.version == decided_at {
                    return Err(self.refusal(delta.author, void));
                }
                continue;
            }
            let bytes = codec::encode_delta(&delta);
            self.pending = Some(PendingDelta { delta: Arc::new(delta), bytes });
            if let Some(delta) = self.settle_pending().await? {
                // Dropped while it writes the checkpoint, it could not hand the delta to anybody.
                self.late.push(delta.clone());
                self.checkpoint_if_due().await;
                self.late.pop();
                return Ok(delta);
            }
            self.read().await?;
        }
        Err(EngineError::Contended {
            region: self.reader.dir.region_id,
            rounds: self.reader.options.commit_rounds,
        })
    }

    /// Whether the outcome of a put is unknown.
    pub(in crate::manifest) fn has_pending_commit(&self) -> bool {
        self.pending.is_some()
    }

    /// Deltas that were found to be committed, and were not handed to anybody.
    pub(in crate::manifest) fn take_late(&mut self) -> Vec<Arc<Delta>> {
        std::mem::take(&mut self.late)
    }

    /// Whether a version that has been read is this author's; [`EngineError::Unknown`] when its delta
    /// cannot be read.
    pub(in crate::manifest) async fn is_committed_by(
        &self,
        version: ManifestVersion,
        author: Author,
    ) -> Result<bool, EngineError> {
        let region = self.reader.dir.region_id;
        let unknown = |detail: String| EngineError::Unknown { region, version, detail };
        let read = self.reader.storage.get_opt(&self.reader.dir.delta(version)).await;
        let Some(bytes) = read.map_err(|error| unknown(error.to_string()))? else {
            return Ok(false);
        };
        let delta =
            self.reader.decode(version, &bytes).map_err(|error| unknown(error.to_string()))?;
        Ok(delta.author == author && self.state.names(version, delta.writer))
    }

    /// Settles what is pending; the delta if it is committed.
    async fn settle_pending(&mut self) -> Result<Option<Arc<Delta>>, EngineError> {
        let Some(pending) = self.pending.clone() else { return Ok(None) };
        let settled = settle::settle(&self.reader, &pending).await?;
        self.pending = None;
        match settled {
            CommitOutcome::Committed => {
                let mut state = (*self.state).clone();
                // The rules were asked on this very state before the put.
                let outcome = replay::apply(&mut state, &pending.delta);
                self.state = Arc::new(state);
                match outcome {
                    replay::ReplayOutcome::Applied => Ok(Some(pending.delta)),
                    replay::ReplayOutcome::Void(void) => {
                        Err(self.refusal(pending.delta.author, void))
                    }
                }
            }
            CommitOutcome::Lost => Ok(None),
        }
    }

    async fn read(&mut self) -> Result<(), EngineError> {
        let found = self.reader.tail(&self.state).await?;
        if let Some(at) = found.checkpoint {
            self.checkpointed = self.checkpointed.max(at);
        }
        for (delta, outcome) in &found.deltas {
            if let replay::ReplayOutcome::Void(reason) = outcome {
                tracing::info!(
                    region = %self.reader.dir.region_id,
                    version = %delta.version,
                    author = %delta.author,
                    %reason,
                    "a manifest delta is void"
                );
            }
        }
        if !self.loaded || found.state.version > self.state.version {
            self.state = Arc::new(found.state);
        }
        self.loaded = true;
        Ok(())
    }

    fn draft(&self, change: Change) -> Delta {
        Delta {
            region: self.reader.dir.region_id,
            version: self.state.version.next(),
            author: change.author,
            writer: self.env.ids.writer_id(),
            time_ms: self.env.clock.now_ms(),
            cause: change.cause,
            procedure: change.procedure,
            by_reference: change.by_reference,
            actions: change.actions,
        }
    }

    fn refusal(&self, author: Author, reason: Void) -> EngineError {
        let region = self.reader.dir.region_id;
        match (reason, author) {
            (Void::Fenced { own, later }, Author::Owner(_)) => {
                EngineError::Fenced { region, own, later }
            }
            (Void::Removed, _) => EngineError::Removed { region },
            (reason, _) => EngineError::Refused { region, reason },
        }
    }
}

#[cfg(test)]
mod tests;
