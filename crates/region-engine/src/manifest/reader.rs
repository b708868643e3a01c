//! Reads a manifest to its tail.
//!
//! Tail and newest checkpoint come from a listing, never from a not-found on the next version; the
//! hint only selects the start of the listing. After deltas have been read the manifest is listed
//! again: a delta that a checkpoint covers by then is valid only if that checkpoint names its
//! writer id, because cleaning may have freed its slot for a delayed put.

use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use tidewater_common::ids::ManifestVersion;

use super::codec::{self, CodecError};
use super::listing::{Listing, ReadPlan};
use super::replay::{self, ReplayOutcome};
use super::{Delta, ManifestOptions, ManifestState};
use crate::error::EngineError;
use crate::layout::RegionDir;
use crate::storage::{Storage, StorageError};

/// Maximum bytes of the hint: a version as text.
const MAX_HINT_BYTES: u64 = 64;

/// Reads one region's manifest.
#[derive(Debug, Clone)]
pub(super) struct ManifestReader {
    pub(super) storage: Storage,
    pub(super) dir: RegionDir,
    pub(super) options: ManifestOptions,
}

/// A manifest as read to its tail.
#[derive(Debug, Clone)]
pub(super) struct ManifestTail {
    /// The state at the tail.
    pub(super) state: ManifestState,
    /// The checkpoint at which reading began.
    pub(super) checkpoint: Option<ManifestVersion>,
    /// The deltas that were read, with their outcomes.
    pub(super) deltas: Vec<(Delta, ReplayOutcome)>,
}

/// Result of one read attempt.
enum ReadAttempt {
    Done(ManifestTail),
    /// The manifest changed during the read: continue from this state.
    Again {
        from: ManifestState,
        missing: Option<ManifestVersion>,
    },
}

impl ManifestReader {
    /// Reads from `state` (which may be empty) to the tail.
    pub(super) async fn tail(&self, state: &ManifestState) -> Result<ManifestTail, EngineError> {
        let mut from = state.clone();
        let mut gap = None;
        for round in 1..=self.options.read_rounds.max(1) {
            match self.attempt(from).await? {
                ReadAttempt::Done(found) => return Ok(found),
                ReadAttempt::Again { from: next, missing } => {
                    from = next;
                    gap = missing;
                }
            }
            self.storage.back_off(self.options.backoff, round).await;
        }
        Err(self.unsettled(gap))
    }

    /// Returns the error of a read that did not complete: a delta is missing, or the manifest
    /// changed in every round.
    pub(super) fn unsettled(&self, gap: Option<ManifestVersion>) -> EngineError {
        match gap {
            Some(version) => EngineError::Damaged {
                object: self.storage.name(&self.dir.delta(version)),
                detail: "it is missing although this or a later version was committed".to_owned(),
            },
            None => EngineError::Unstable {
                region: self.dir.region_id,
                rounds: self.options.read_rounds,
            },
        }
    }

    async fn attempt(&self, from: ManifestState) -> Result<ReadAttempt, EngineError> {
        let listing = self.first_listing(from.version).await?;
        let (mut state, checkpoint, through) =
            match listing.plan(from.version, 4 * self.options.checkpoint_every) {
                ReadPlan::Current => {
                    let tail = ManifestTail { state: from, checkpoint: None, deltas: Vec::new() };
                    return Ok(ReadAttempt::Done(tail));
                }
                // A listing of several pages is no snapshot, and cleaning may run concurrently.
                ReadPlan::Missing { version } => {
                    return Ok(ReadAttempt::Again { from, missing: Some(version) });
                }
                ReadPlan::Deltas { through } => (from.clone(), None, through),
                ReadPlan::Checkpoint { at, through } => match self.checkpoint(at).await? {
                    Some(state) => (state, Some(at), through),
                    None => return Ok(ReadAttempt::Again { from, missing: None }),
                },
            };
        let first = state.version.next();
        let Some(deltas) = self.deltas(first, through).await? else {
            return Ok(ReadAttempt::Again { from, missing: None });
        };
        if let Some(newer) = self.disowned(first, &deltas).await? {
            return Ok(ReadAttempt::Again { from: newer, missing: None });
        }
        let deltas = deltas
            .into_iter()
            .map(|delta| {
                let outcome = replay::apply(&mut state, &delta);
                (delta, outcome)
            })
            .collect();
        Ok(ReadAttempt::Done(ManifestTail { state, checkpoint, deltas }))
    }

    /// Lists the versions from `from` on, which shows whether that version is still there; for a reader that has not started, from the hint if that
    /// listing has a checkpoint.
    async fn first_listing(&self, from: ManifestVersion) -> Result<Listing, EngineError> {
        if from.get() > 0 {
            return self.list(from).await;
        }
        if let Some(hint) = self.hint().await? {
            let listing = self.list(hint).await?;
            if listing.newest_checkpoint().is_some() {
                return Ok(listing);
            }
        }
        self.list(ManifestVersion(0)).await
    }

    /// Lists versions from `from` on.
    pub(super) async fn list(&self, from: ManifestVersion) -> Result<Listing, EngineError> {
        let objects = self.storage.list(&self.dir.manifest(), Some(&self.dir.before(from))).await?;
        Ok(Listing::of(objects.iter().map(|object| &object.location)))
    }

    /// Reads the hint to the last checkpoint. An unreadable hint counts as none.
    async fn hint(&self) -> Result<Option<ManifestVersion>, EngineError> {
        let read = self.storage.get_opt_within(&self.dir.last_checkpoint(), MAX_HINT_BYTES).await;
        let bytes = match read {
            Err(StorageError::TooLarge { .. }) => None,
            read => read?,
        };
        let text = bytes.as_deref().and_then(|bytes| std::str::from_utf8(bytes).ok());
        Ok(text.and_then(|text| text.trim().parse().ok()).map(ManifestVersion))
    }

    /// Reads a checkpoint; `None` when it does not exist.
    pub(super) async fn checkpoint(
        &self,
        version: ManifestVersion,
    ) -> Result<Option<ManifestState>, EngineError> {
        let path = self.dir.checkpoint(version);
        let Some(bytes) = self.storage.get_opt(&path).await? else { return Ok(None) };
        let state = self.named(&path, codec::decode_checkpoint(&bytes))?;
        if state.dir != self.dir || state.version != version {
            let detail = format!("it contains {} at version {}", state.dir, state.version);
            return Err(CodecError::Damaged(detail).of(self.storage.name(&path)));
        }
        Ok(Some(state))
    }

    /// Reads a delta; `None` when its slot is empty.
    pub(super) async fn delta(
        &self,
        version: ManifestVersion,
    ) -> Result<Option<Delta>, EngineError> {
        let path = self.dir.delta(version);
        let Some(bytes) = self.storage.get_opt(&path).await? else { return Ok(None) };
        self.decode(version, &bytes).map(Some)
    }

    /// Decodes a delta from the bytes in a version's slot.
    pub(super) fn decode(
        &self,
        version: ManifestVersion,
        bytes: &[u8],
    ) -> Result<Delta, EngineError> {
        let path = self.dir.delta(version);
        let delta = self.named(&path, codec::decode_delta(bytes))?;
        if delta.region != self.dir.region_id || delta.version != version {
            let detail =
                format!("it contains region {} at version {}", delta.region, delta.version);
            return Err(CodecError::Damaged(detail).of(self.storage.name(&path)));
        }
        Ok(delta)
    }

    /// Reads deltas in order; `None` when one does not exist.
    pub(super) async fn deltas(
        &self,
        first: ManifestVersion,
        through: ManifestVersion,
    ) -> Result<Option<Vec<Delta>>, EngineError> {
        stream::iter(first.get()..=through.get())
            .map(|version| self.delta(ManifestVersion(version)))
            .buffered(self.options.read_ahead.max(1))
            .try_collect::<Vec<_>>()
            .await
            .map(|deltas| deltas.into_iter().collect())
    }

    /// Returns the newest checkpoint if it covers a delta just read and does not name its writer.
    async fn disowned(
        &self,
        first: ManifestVersion,
        deltas: &[Delta],
    ) -> Result<Option<ManifestState>, EngineError> {
        if deltas.is_empty() {
            return Ok(None);
        }
        let Some(at) = self.list(first).await?.newest_checkpoint() else { return Ok(None) };
        let Some(newer) = self.checkpoint(at).await? else {
            // Cleaned during the read, so a newer one exists: start over from the empty state.
            return Ok(Some(ManifestState::empty(self.dir)));
        };
        let disowned = deltas
            .iter()
            .filter(|delta| delta.version <= at)
            .any(|delta| !newer.names(delta.version, delta.writer));
        Ok(disowned.then_some(newer))
    }

    fn named<T>(&self, path: &Path, result: Result<T, CodecError>) -> Result<T, EngineError> {
        result.map_err(|error| error.of(self.storage.name(path)))
    }
}
