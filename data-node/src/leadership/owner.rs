//! The owner's commits to the manifest of one region in the name of one term: fence, flush, compact, index,
//! remove; and the manifest advances that it proposes to the log afterwards.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidewater_common::ids::{GroupId, ManifestVersion, NodeId, OwnerEpoch, RegionId, Term};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::Reason;
use tidewater_region_engine::bulk::AdoptError;
use tidewater_region_engine::compaction::{Attempt, LocalSlot, LocalSlots, Scope};
use tidewater_region_engine::index::Bloom;
use tidewater_region_engine::layout::RegionDir;
use tidewater_region_engine::region::{Phase, PlannedCompaction};
use tidewater_region_engine::{CompactionReport, EngineError, FlushReport, IndexReport, Region};
use tracing::info;

use super::OwnerContext;
use crate::group::batcher::propose_entry;
use crate::group::entry::{self, EntryOutcome, ManifestAdvance};
use crate::group::refusals;
use crate::meters;
use crate::node_events::Operation;

/// Limit for committing a manifest advance. The next commit of the region proposes it again.
const ADVANCE_TIMEOUT: Duration = Duration::from_secs(10);

/// Pause before a caller retries an operation that the log has decided and the manifest does not record
/// yet.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// Owner of a group's regions in one term.
#[derive(Debug)]
pub struct Owner {
    pub(super) context: OwnerContext,
    term: Term,
    // Regions whose manifests have this term's fence, with the move epoch of the fence: a region may leave the group
    // and come back in one term.
    fenced: Mutex<BTreeMap<RegionId, u64>>,
    // Committed to manifests, but not to the log yet.
    pending_advances: Mutex<BTreeMap<RegionId, ManifestAdvance>>,
}

/// Reason why a commit failed.
#[derive(Debug, thiserror::Error)]
pub enum OwnerError {
    /// The engine refused or failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The log did not accept the manifest advance. The commit itself is durable, and every replica
    /// that reads the manifest finds it.
    #[error("the log of the group did not accept the entry: {0}")]
    Log(#[from] Refusal),
    /// Files were not adopted.
    #[error(transparent)]
    Adopt(#[from] AdoptError),
    /// The log has decided; the region's owner, this or a later one, will record it in the manifest.
    #[error("committed to the log but not yet recorded in the manifest: {0}")]
    NotRecorded(Box<OwnerError>),
    /// The group does not serve the region any more.
    #[error("the region is no longer hosted")]
    NotHosted,
}

impl OwnerError {
    /// Returns the RPC error for the caller.
    pub fn refusal(&self, region: RegionId) -> Refusal {
        match self {
            Self::Adopt(error) => refusals::adopt_error(error),
            // Never an error that means that nothing has happened.
            Self::NotRecorded(_) => {
                let message = format!("region {region}: {self}");
                Refusal::new(Reason::Unavailable, message).retry_after(RETRY_AFTER)
            }
            Self::Engine(error) => error.into(),
            Self::Log(refusal) => refusal.clone(),
            Self::NotHosted => Refusal::new(
                Reason::RegionNotFound,
                format!("region {region} is no longer served by this node: refresh the catalog"),
            ),
        }
    }
}

impl Owner {
    /// Creates the owner of a term.
    pub fn new(context: OwnerContext, term: Term) -> Arc<Self> {
        Arc::new(Self {
            context,
            term,
            fenced: Mutex::default(),
            pending_advances: Mutex::default(),
        })
    }

    /// Id of the group that owns the regions.
    pub fn group(&self) -> GroupId {
        self.context.shared.group
    }

    /// Returns random bits for the jitter of a backoff.
    pub fn jitter_bits(&self) -> u64 {
        self.context.shared.env.ids.jitter_bits()
    }

    /// Slots for compactions on this node.
    pub fn slots(&self) -> &Arc<LocalSlots> {
        &self.context.shared.env.compactions
    }

    /// Term of this owner.
    pub(super) fn term(&self) -> Term {
        self.term
    }

    /// Epoch in whose name this owner commits to a region's manifest.
    pub fn epoch(&self, region: RegionId) -> OwnerEpoch {
        let move_epoch = self.context.shared.move_epoch(region).unwrap_or_default();
        OwnerEpoch { move_epoch, term: self.term }
    }

    /// Flushes a region; fences its manifest first.
    pub async fn flush(&self, id: RegionId) -> Result<FlushReport, OwnerError> {
        let region = self.region(id)?;
        self.fence(id, &region).await?;
        let events = &self.context.events;
        let begun = events.now();
        let flushed = region.flush().await;
        events.record_if_slow(Operation::Flush, begun, || Some(dir(&region)));
        let report = flushed?;
        if report.files > 0 {
            info!(
                group = %self.context.shared.group,
                region = %id,
                manifest_version = %report.manifest_version,
                flushed_sequence = %report.flushed_sequence,
                files = report.files,
                rows = report.rows,
                bytes = report.bytes,
                "region flushed"
            );
        }
        // Also without files: an earlier flush with an unknown outcome may have committed, or its rows
        // may have cancelled each other out.
        if report.manifest_version > self.context.shared.advanced_version(id) {
            self.record_committed(id, &region, report.manifest_version);
        }
        self.propose_pending_advance(id).await?;
        Ok(report)
    }

    /// Builds the missing indexes of a region's files.
    pub async fn build_indexes(&self, id: RegionId) -> Result<IndexReport, OwnerError> {
        let region = self.region(id)?;
        self.fence(id, &region).await?;
        let report = region.build_indexes(&Bloom).await;
        // Also after an error: indexes that the manifest named before it remain.
        let advanced = self.advance_to_loaded(id).await;
        let report = report?;
        advanced.map(|()| report)
    }

    /// Advances the log to the manifest version that reads use on this node, whichever node committed it.
    /// Flushes nothing.
    pub async fn advance_to_loaded(&self, id: RegionId) -> Result<(), OwnerError> {
        let region = self.region(id)?;
        self.fence(id, &region).await?;
        let stats = region.stats();
        self.check_owned(id, stats.phase)?;
        if stats.manifest_version > self.context.shared.advanced_version(id) {
            self.record_committed(id, &region, stats.manifest_version);
        }
        self.propose_pending_advance(id).await
    }

    /// Fails unless this owner owns the region: it must not advance the log to a later owner's commit.
    fn check_owned(&self, region: RegionId, phase: Phase) -> Result<(), EngineError> {
        let own = self.epoch(region);
        match phase {
            Phase::Owning(_) => Ok(()),
            Phase::Fenced(later) => Err(EngineError::Fenced { region, own, later }),
            Phase::Removed => Err(EngineError::Removed { region }),
            Phase::Closed => Err(EngineError::Closed { region }),
            Phase::Loading | Phase::Following => Err(EngineError::NotOwner { region }),
        }
    }

    /// Plans a compaction of a region for a node that has `memory_bytes` for a job; `None`: there is
    /// nothing to compact.
    pub async fn plan_compaction(
        &self,
        id: RegionId,
        scope: Scope,
        memory_bytes: u64,
    ) -> Result<Option<PlannedCompaction>, OwnerError> {
        let region = self.region(id)?;
        self.fence(id, &region).await?;
        let since = region.since();
        Ok(region.plan_compaction_within(scope, since, memory_bytes).await?)
    }

    /// Runs a planned compaction on this node, in `slot`.
    pub async fn run_compaction(
        &self,
        id: RegionId,
        planned: &PlannedCompaction,
        slot: &LocalSlot,
        attempt: &Attempt,
    ) -> Result<CompactionReport, OwnerError> {
        let region = self.region(id)?;
        let events = &self.context.events;
        let begun = events.now();
        let compacted = planned.run(slot, attempt).await;
        events.record_if_slow(Operation::Compaction, begun, || Some(dir(&region)));
        let report = compacted?;
        self.report_compacted(id, &report, None);
        if report.manifest_version > self.context.shared.advanced_version(id) {
            self.record_committed(id, &region, report.manifest_version);
        }
        self.propose_pending_advance(id).await?;
        Ok(report)
    }

    /// Logs and counts a committed compaction; `compactor`: `None` for this node.
    pub(super) fn report_compacted(
        &self,
        id: RegionId,
        report: &CompactionReport,
        compactor: Option<NodeId>,
    ) {
        info!(
            group = %self.context.shared.group,
            region = %id,
            job = %report.job_id,
            compactor = compactor.map(NodeId::get),
            why = report.why.as_str(),
            manifest_version = %report.manifest_version,
            files_in = report.files_in,
            files_out = report.files_out,
            rows_in = report.done.rows_read,
            rows_out = report.done.rows_written,
            bytes_out = report.done.bytes_written,
            "region compacted"
        );
        meters::record_compaction(report);
    }

    /// Reads the manifest of a region to which another node has committed, and advances the log.
    pub async fn load_and_advance(&self, id: RegionId) -> Result<(), OwnerError> {
        self.region(id)?.load().await?;
        self.advance_to_loaded(id).await
    }

    /// Records in a region's manifest what the log has decided. When it returns, the log has the new
    /// version.
    pub async fn settle(&self, id: RegionId) -> Result<(), OwnerError> {
        let region = self.region(id)?;
        self.fence(id, &region).await?;
        let version = region.record_obligations().await?;
        if version > self.context.shared.advanced_version(id)
            || self.context.shared.has_obligations(id)
        {
            self.record_committed(id, &region, version);
        }
        self.propose_pending_advance(id).await
    }

    /// Records a manifest version that the log has to advance to. Commits of a region run concurrently: the
    /// greater values win.
    pub(super) fn record_committed(
        &self,
        id: RegionId,
        region: &Arc<Region>,
        version: ManifestVersion,
    ) {
        self.context.shared.record_loaded(id, region, version);
        let mut pending = self.pending_advances.lock();
        let latest = ManifestAdvance {
            region_id: id,
            version,
            flushed: region.flushed_sequence(),
            owner: self.epoch(id),
            done: region.done_through(),
        };
        let known = pending.entry(id).or_insert(latest);
        if known.owner != latest.owner {
            *known = latest;
        }
        known.version = known.version.max(latest.version);
        known.flushed = known.flushed.max(latest.flushed);
        known.done = known.done.max(latest.done);
    }

    /// Marks a region as dropped in its manifest. Idempotent.
    pub async fn remove(&self, id: RegionId) -> Result<(), OwnerError> {
        let region = self.region(id)?;
        let removed = match self.fence(id, &region).await {
            Ok(()) => region.remove().await.map_err(OwnerError::from),
            Err(error) => Err(error),
        };
        match removed {
            Err(OwnerError::Engine(EngineError::Removed { .. })) => Ok(()),
            other => other,
        }
    }

    pub(super) fn region(&self, id: RegionId) -> Result<Arc<Region>, OwnerError> {
        self.context.shared.regions.get(id).map(|hosted| hosted.region).ok_or(OwnerError::NotHosted)
    }

    /// Reads the manifest to its tail and commits this term's fence, unless that was done before.
    pub(super) async fn fence(&self, id: RegionId, region: &Arc<Region>) -> Result<(), OwnerError> {
        let own = self.epoch(id);
        if self.fenced.lock().get(&id) == Some(&own.move_epoch) {
            return Ok(());
        }
        let version = region.take_ownership(own, self.context.shared.group).await?;
        self.fenced.lock().insert(id, own.move_epoch);
        self.record_committed(id, region, version);
        self.propose_pending_advance(id).await
    }

    /// Proposes the region's pending advance to the log. Until the log has it, followers keep rows that
    /// files hold: wasteful, not wrong.
    pub(super) async fn propose_pending_advance(&self, id: RegionId) -> Result<(), OwnerError> {
        let Some(advance) = self.pending_advances.lock().get(&id).copied() else {
            return Ok(());
        };
        if self.context.shared.move_epoch(id) != Some(advance.owner.move_epoch) {
            // The region has left the group, and may have returned by a later move.
            self.pending_advances.lock().remove(&id);
            return Ok(());
        }
        self.propose_advance(&advance).await?;
        let mut pending = self.pending_advances.lock();
        if pending.get(&id).is_some_and(|latest| *latest == advance) {
            pending.remove(&id);
        }
        Ok(())
    }

    async fn propose_advance(&self, advance: &ManifestAdvance) -> Result<(), OwnerError> {
        let group = self.context.shared.group;
        let proposed = propose_entry(
            &self.context.shared,
            &self.context.raft,
            entry::manifest_advanced(advance),
        );
        let outcomes = tokio::time::timeout(ADVANCE_TIMEOUT, proposed)
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

/// Returns the directory of a region.
fn dir(region: &Region) -> RegionDir {
    let spec = region.spec();
    RegionDir { table_id: spec.table_id, region_id: spec.region_id, incarnation: spec.incarnation }
}
