//! One region's commits in the name of one term: fence, flush, merge, index, remove; and telling the
//! log.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidewater_common::ids::{Epoch, GroupId, ManifestVersion, OwnerEpoch, RegionId, Term};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::Reason;
use tidewater_region_engine::bulk::AdoptError;
use tidewater_region_engine::compaction::{Attempt, Scope};
use tidewater_region_engine::index::Bloom;
use tidewater_region_engine::region::{Phase, PlannedCompaction};
use tidewater_region_engine::{CompactionReport, EngineError, FlushReport, IndexReport, Region};
use tokio::sync::Semaphore;
use tracing::info;

use super::Context;
use crate::group::batcher::propose_entry;
use crate::group::entry::{self, EntryOutcome, ManifestAdvance};
use crate::group::refusals;
use crate::meters;

/// How long an advance may take to be committed before it is proposed again with the next flush.
const ADVANCE: Duration = Duration::from_secs(10);

/// When to ask again what became of something that was decided.
const AGAIN: Duration = Duration::from_millis(500);

/// The owner of a group's regions in one term.
#[derive(Debug)]
pub struct Owner {
    pub(super) context: Context,
    term: Term,
    // Manifests that have this term's fence.
    taken: Mutex<BTreeSet<RegionId>>,
    // Committed, but the log has not taken it yet.
    untold: Mutex<BTreeMap<RegionId, ManifestAdvance>>,
}

/// Why a commit did not go through.
#[derive(Debug, thiserror::Error)]
pub enum OwnerError {
    /// The engine refused or failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The log did not take the advance. The commit itself stands, and is found by every replica
    /// that reads the manifest.
    #[error("the group's log did not take it: {0}")]
    Log(#[from] Refusal),
    /// Files were not taken over.
    #[error(transparent)]
    Adopt(#[from] AdoptError),
    /// The log has decided, and the manifest will record it, by whoever owns the region then.
    #[error("it is decided, and not done yet: {0}")]
    NotDone(Box<OwnerError>),
    /// The group does not serve the region any more.
    #[error("the region is no longer hosted")]
    Gone,
}

impl OwnerError {
    /// As an answer to whoever asked.
    pub fn refusal(&self, region: RegionId) -> Refusal {
        match self {
            Self::Adopt(error) => refusals::adopt_error(error),
            // Never one that says that nothing has happened.
            Self::NotDone(_) => {
                let message = format!("region {region}: {self}");
                Refusal::new(Reason::Unavailable, message).retry_after(AGAIN)
            }
            Self::Engine(error) => error.into(),
            Self::Log(refusal) => refusal.clone(),
            Self::Gone => Refusal::new(
                Reason::RegionNotFound,
                format!("region {region} is not served here any more"),
            ),
        }
    }
}

impl Owner {
    /// The owner in this term.
    pub fn new(context: Context, term: Term) -> Arc<Self> {
        Arc::new(Self { context, term, taken: Mutex::default(), untold: Mutex::default() })
    }

    /// Whose regions they are.
    pub fn group(&self) -> GroupId {
        self.context.shared.group
    }

    /// Permits for compactions on this node.
    pub fn permits(&self) -> &Semaphore {
        &self.context.shared.env.compactions
    }

    /// Who owns.
    pub fn epoch(&self) -> OwnerEpoch {
        OwnerEpoch { move_epoch: 0, term: self.term }
    }

    /// Flushes a region; fences its manifest first.
    pub async fn flush(&self, id: RegionId) -> Result<FlushReport, OwnerError> {
        let region = self.region(id)?;
        self.take(id, &region).await?;
        let report = region.flush().await?;
        if report.files > 0 {
            info!(
                group = %self.context.shared.group,
                region = %id,
                version = %report.manifest_version,
                rows = report.rows,
                bytes = report.bytes,
                files = report.files,
                "region flushed"
            );
            meters::flushed(report.rows, report.bytes);
        }
        // Also without files: an earlier flush may have landed though its outcome was unknown, or
        // its rows may have cancelled each other out.
        if report.manifest_version > self.context.shared.advanced_version(id) {
            self.committed(id, &region, report.manifest_version);
        }
        self.tell(id).await?;
        Ok(report)
    }

    /// Builds the indexes that files of a region want.
    pub async fn build_indexes(&self, id: RegionId) -> Result<IndexReport, OwnerError> {
        let region = self.region(id)?;
        self.take(id, &region).await?;
        let report = region.build_indexes(&Bloom).await;
        // Also after an error: what was named before it stands.
        let told = self.tell_loaded(id).await;
        let report = report?;
        told.map(|()| report)
    }

    /// Tells the log of the version that reads use here, whoever has committed it. Flushes nothing.
    pub async fn tell_loaded(&self, id: RegionId) -> Result<(), OwnerError> {
        let region = self.region(id)?;
        self.take(id, &region).await?;
        let stats = region.stats();
        self.owns(id, stats.phase)?;
        if stats.manifest_version > self.context.shared.advanced_version(id) {
            self.committed(id, &region, stats.manifest_version);
        }
        self.tell(id).await
    }

    /// What a later owner has committed is not for this one to tell.
    fn owns(&self, region: RegionId, phase: Phase) -> Result<(), EngineError> {
        let own = self.epoch();
        match phase {
            Phase::Owning(_) => Ok(()),
            Phase::Fenced(later) => Err(EngineError::Fenced { region, own, later }),
            Phase::Removed => Err(EngineError::Removed { region }),
            Phase::Closed => Err(EngineError::Closed { region }),
            Phase::Loading | Phase::Following => Err(EngineError::NotOwner { region }),
        }
    }

    /// Plans a merge of files of a region; `None` when there is nothing to merge.
    pub async fn plan_compaction(
        &self,
        id: RegionId,
        scope: Scope,
        since: Epoch,
    ) -> Result<Option<PlannedCompaction>, OwnerError> {
        let region = self.region(id)?;
        self.take(id, &region).await?;
        Ok(region.plan_compaction(scope, since).await?)
    }

    /// Carries out a plan on this node.
    pub async fn run_compaction(
        &self,
        id: RegionId,
        planned: &PlannedCompaction,
        attempt: &Attempt,
    ) -> Result<CompactionReport, OwnerError> {
        let region = self.region(id)?;
        let report = planned.run(attempt).await?;
        meters::compacted(&report);
        if report.manifest_version > self.context.shared.advanced_version(id) {
            self.committed(id, &region, report.manifest_version);
        }
        self.tell(id).await?;
        Ok(report)
    }

    /// Somebody else has committed to a region's manifest: reads it, and tells the log.
    pub async fn follow(&self, id: RegionId) -> Result<(), OwnerError> {
        self.region(id)?.load().await?;
        self.tell_loaded(id).await
    }

    /// Records what the log has decided about a region in its manifest; the log knows it when this
    /// returns.
    pub async fn settle(&self, id: RegionId) -> Result<(), OwnerError> {
        let region = self.region(id)?;
        self.take(id, &region).await?;
        let version = region.settle().await?;
        if version > self.context.shared.advanced_version(id)
            || self.context.shared.has_obligations(id)
        {
            self.committed(id, &region, version);
        }
        self.tell(id).await
    }

    /// Notes a version that the log has to be told of. Commits of a region run beside each other:
    /// the greater values stay.
    fn committed(&self, id: RegionId, region: &Arc<Region>, version: ManifestVersion) {
        self.context.shared.record_loaded(id, region, version);
        let mut untold = self.untold.lock();
        let latest = ManifestAdvance {
            region_id: id,
            version,
            flushed: region.flushed_sequence(),
            owner: self.epoch(),
            done: region.done_through(),
        };
        let known = untold.entry(id).or_insert(latest);
        known.version = known.version.max(latest.version);
        known.flushed = known.flushed.max(latest.flushed);
        known.done = known.done.max(latest.done);
    }

    /// Marks a region as dropped in its manifest; asking again is fine.
    pub async fn remove(&self, id: RegionId) -> Result<(), OwnerError> {
        let region = self.region(id)?;
        let removed = match self.take(id, &region).await {
            Ok(()) => region.remove().await.map_err(OwnerError::from),
            Err(error) => Err(error),
        };
        match removed {
            Err(OwnerError::Engine(EngineError::Removed { .. })) => Ok(()),
            other => other,
        }
    }

    pub(super) fn region(&self, id: RegionId) -> Result<Arc<Region>, OwnerError> {
        self.context.shared.regions.get(id).map(|hosted| hosted.region).ok_or(OwnerError::Gone)
    }

    /// Reads the manifest to its tail and commits this term's fence, once.
    pub(super) async fn take(&self, id: RegionId, region: &Arc<Region>) -> Result<(), OwnerError> {
        if self.taken.lock().contains(&id) {
            return Ok(());
        }
        let version = region.take_ownership(self.epoch(), self.context.shared.group).await?;
        self.taken.lock().insert(id);
        self.committed(id, region, version);
        self.tell(id).await
    }

    /// Tells the log what was committed and it has not taken yet. Until then followers keep rows
    /// that lie in files: wasteful, not wrong.
    async fn tell(&self, id: RegionId) -> Result<(), OwnerError> {
        let Some(advance) = self.untold.lock().get(&id).copied() else {
            return Ok(());
        };
        self.advance(&advance).await?;
        let mut untold = self.untold.lock();
        if untold.get(&id).is_some_and(|told| *told == advance) {
            untold.remove(&id);
        }
        Ok(())
    }

    async fn advance(&self, advance: &ManifestAdvance) -> Result<(), OwnerError> {
        let group = self.context.shared.group;
        let proposed = propose_entry(group, &self.context.raft, entry::manifest_advanced(advance));
        let outcomes = tokio::time::timeout(ADVANCE, proposed)
            .await
            .unwrap_or_else(|_| Err(refusals::deadline_exceeded("a manifest advance", group)))?;
        match outcomes.into_iter().next() {
            Some(EntryOutcome::Refused { reason, message }) => {
                Err(OwnerError::Log(Refusal::new(reason, message)))
            }
            _ => Ok(()),
        }
    }
}
