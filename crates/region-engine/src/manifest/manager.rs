//! Follows the manifest of one region and commits to it.

mod checkpoint;
mod settle;

use std::sync::Arc;

use bytes::Bytes;
use tidewater_common::ids::{ManifestVersion, RegionId};

use self::settle::CommitOutcome;
use super::reader::ManifestReader;
use super::{Author, Change, Delta, ManifestState, Void, codec, replay};
use crate::env::RegionEnv;
use crate::error::EngineError;
use crate::layout::RegionDir;
use crate::storage::MAX_OBJECT_BYTES;

/// One region's manifest as read so far, and the commit loop on it.
///
/// A future of this type may be dropped at any await: a delta that was put but not resolved is
/// kept, and the next call resolves it.
#[derive(Debug)]
pub struct RegionManifestManager {
    env: RegionEnv,
    reader: ManifestReader,
    state: Arc<ManifestState>,
    /// `true` once the manifest has been read.
    loaded: bool,
    /// Newest known checkpoint.
    checkpointed: ManifestVersion,
    pending: Option<PendingDelta>,
    /// Deltas found to be committed after their caller had received an unknown outcome or had
    /// disconnected: hooks have not been notified of them yet.
    late: Vec<Arc<Delta>>,
}

/// A delta whose put was started and whose outcome is unknown.
#[derive(Debug, Clone)]
struct PendingDelta {
    delta: Arc<Delta>,
    /// The same bytes are put on every retry: a version never gets other content.
    bytes: Bytes,
}

impl RegionManifestManager {
    /// Creates a manager of an unread manifest; no I/O.
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

    /// Returns the state read so far.
    pub fn state(&self) -> &Arc<ManifestState> {
        &self.state
    }

    /// Returns the newest checkpoint that was read or written; 0: none.
    pub(in crate::manifest) fn checkpointed(&self) -> ManifestVersion {
        self.checkpointed
    }

    /// Reads to the tail; first resolves a commit of unknown outcome. Fails when the store has lost a
    /// version that was read before: a commit above it would leave a gap that no reader passes.
    pub async fn refresh(&mut self) -> Result<ManifestVersion, EngineError> {
        let late = self.resolve_pending().await?;
        self.late.extend(late);
        self.read().await?;
        Ok(self.state.version)
    }

    /// Commits a change at the next version: the one low-level write. Logical writes go through
    /// [`super::ManifestContext`]; bookkeeping (fence, GC floor) calls it directly.
    ///
    /// After [`EngineError::Unknown`] the change may be committed: call again with the same change
    /// (it is committed at most once), or `refresh` and inspect the state. Every other error means
    /// that the change is not committed and will not be.
    pub(in crate::manifest) async fn update(
        &mut self,
        change: Change,
    ) -> Result<Arc<Delta>, EngineError> {
        if let Some(delta) = self.resolve_pending().await? {
            if delta.change() == change {
                return Ok(delta);
            }
            self.late.push(delta);
        }
        // A delta's time must not come from a clock that differs: garbage collection would keep its
        // removed files until then.
        self.env.check_clock(self.reader.dir.region_id)?;
        if !self.loaded {
            self.read().await?;
        }
        for _ in 0..self.reader.options.commit_rounds.max(1) {
            let delta = self.draft(change.clone());
            if let Err(void) = replay::check(&self.state, &delta) {
                // A refusal is valid only if it was decided at the tail.
                let decided_at = self.state.version;
                self.read().await?;
                if self.state.version == decided_at {
                    return Err(self.refusal(delta.author, void));
                }
                continue;
            }
            let bytes = codec::encode_delta(&delta);
            check_size(self.reader.dir.region_id, bytes.len())?;
            self.pending = Some(PendingDelta { delta: Arc::new(delta), bytes });
            if let Some(delta) = self.resolve_pending().await? {
                // If this future is dropped while the checkpoint is written, the delta never
                // reaches the caller; `late` keeps it.
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

    /// Returns `true` while the outcome of a put is unknown.
    pub(in crate::manifest) fn has_pending_commit(&self) -> bool {
        self.pending.is_some()
    }

    /// Takes the deltas that were found to be committed and were not returned to a caller.
    pub(in crate::manifest) fn take_late(&mut self) -> Vec<Arc<Delta>> {
        std::mem::take(&mut self.late)
    }

    /// Returns `true` if a version that has been read is this author's; [`EngineError::Unknown`]
    /// when its delta cannot be read.
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

    /// Resolves the pending delta; returns it if it is committed.
    async fn resolve_pending(&mut self) -> Result<Option<Arc<Delta>>, EngineError> {
        let Some(pending) = self.pending.clone() else { return Ok(None) };
        let outcome = settle::resolve(&self.reader, &pending).await?;
        self.pending = None;
        match outcome {
            CommitOutcome::Committed => {
                let mut state = (*self.state).clone();
                // The rules were checked against this same state before the put.
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
                    "manifest delta is void"
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

/// Checks that a delta can be read after it is committed.
fn check_size(region: RegionId, bytes: usize) -> Result<(), EngineError> {
    if bytes as u64 <= MAX_OBJECT_BYTES {
        return Ok(());
    }
    let detail =
        format!("region {region}: a manifest delta of {bytes} bytes is above {MAX_OBJECT_BYTES}");
    Err(EngineError::Internal { detail })
}

#[cfg(test)]
mod tests;
