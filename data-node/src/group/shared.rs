//! State shared by the parts of one replica: state machine, calls, leadership, loader.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use tidewater_common::feature_level::FeatureLevel;
use tidewater_common::ids::{
    Epoch, GroupId, LogIndex, ManifestVersion, NodeId, RegionId, Sequence,
};
use tidewater_hook_kinds::EventTables;
use tidewater_proto::v1::WriteRequest;
use tidewater_region_engine::env::RegionEnv;
use tidewater_region_engine::region::{Cause, Parent, PendingObligation};
use tidewater_region_engine::{EngineError, MemoryBudget, Region, RegionSpec};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::admits::ServingState;
use super::apply::earlier_outcome;
use super::damaged_files::DamagedFiles;
use super::descriptor::Descriptor;
use super::entry::EntryOutcome;
use super::failing_work::FailingWork;
use super::hosted::{HostedRegion, HostedRegions};
use super::loader::ManifestTargets;
use super::log_bytes::LogBytes;
use super::staging_work::StagingWork;
use super::state::GroupState;

mod replace;
#[cfg(test)]
mod tests;

/// State of a replica: the replicated registry, its regions, and signals between its tasks. Lives
/// as long as the replica.
#[derive(Debug)]
pub struct ReplicaState {
    /// Id of the group.
    pub group: GroupId,
    /// Id of this node.
    pub node: NodeId,
    /// Store, clock, ids and options of the regions.
    pub env: RegionEnv,
    /// Replicated state. Written by apply and install only.
    pub state: RwLock<GroupState>,
    /// Regions, looked up by calls.
    pub regions: HostedRegions,
    /// Manifests to load.
    pub targets: ManifestTargets,
    /// Bytes of log applied.
    pub log_bytes: Mutex<LogBytes>,
    /// Locks of the work with staging areas. They span terms, since a task may outlive the term in
    /// which it started.
    pub staging_work: StagingWork,
    /// Reads of manifests that fail.
    pub failing_loads: FailingWork,
    /// Flushes, and other commits to manifests, that fail.
    pub failing_flushes: FailingWork,
    /// Compactions that fail.
    pub failing_compactions: FailingWork,
    /// Missing and damaged files.
    pub damaged: DamagedFiles,
    /// Notified when a snapshot may be due or memory is short.
    pub housekeeping: Notify,
    /// Notified when a region has many memtable runs.
    pub merges: Notify,
    /// Cancelled when the replica stops.
    pub stopping: CancellationToken,
    leads: AtomicBool,
    replayed: AtomicBool,
    applied: AtomicU64,
    level: AtomicU32,
    epoch: AtomicU64,
    snapshot_length: AtomicU64,
}

impl ReplicaState {
    /// Creates a replica without regions. Tables of its regions are added to `event_tables` if they hold events.
    pub fn new(
        group: GroupId,
        node: NodeId,
        env: RegionEnv,
        event_tables: EventTables,
        log_tail_bytes: u64,
    ) -> Arc<Self> {
        Arc::new(Self {
            group,
            node,
            env,
            state: RwLock::default(),
            regions: HostedRegions::new(event_tables),
            targets: ManifestTargets::default(),
            log_bytes: Mutex::new(LogBytes::new(log_tail_bytes)),
            staging_work: StagingWork::default(),
            failing_loads: FailingWork::default(),
            failing_flushes: FailingWork::default(),
            failing_compactions: FailingWork::default(),
            damaged: DamagedFiles::default(),
            housekeeping: Notify::new(),
            merges: Notify::new(),
            stopping: CancellationToken::new(),
            leads: AtomicBool::new(false),
            replayed: AtomicBool::new(false),
            applied: AtomicU64::new(0),
            level: AtomicU32::new(FeatureLevel::FIRST.get()),
            epoch: AtomicU64::new(0),
            snapshot_length: AtomicU64::new(0),
        })
    }

    /// Bytes of the current snapshot; 0 without one.
    pub fn snapshot_length(&self) -> u64 {
        self.snapshot_length.load(Ordering::Relaxed)
    }

    /// Records the bytes of the current snapshot.
    pub fn set_snapshot_length(&self, bytes: u64) {
        self.snapshot_length.store(bytes, Ordering::Relaxed);
    }

    /// Marks the log as replayed: the replica votes, leads and flushes from now on.
    pub fn set_replayed(&self) {
        self.replayed.store(true, Ordering::Release);
    }

    /// Returns whether the log was replayed after the start.
    pub fn is_replayed(&self) -> bool {
        self.replayed.load(Ordering::Acquire)
    }

    /// Last manifest version of a region in the log; 0 if the group does not serve the region.
    pub fn advanced_version(&self, id: RegionId) -> ManifestVersion {
        let state = self.state.read();
        state.regions.get(&id).map_or(ManifestVersion(0), |region| region.manifest_version)
    }

    /// Records that a manifest was read or written up to this version through this region object. A
    /// region object that an install has replaced does not count: its successor has yet to load the
    /// manifest.
    pub fn record_loaded(&self, id: RegionId, region: &Arc<Region>, version: ManifestVersion) {
        if self.regions.get(id).is_some_and(|hosted| Arc::ptr_eq(&hosted.region, region)) {
            self.targets.record_loaded(id, version);
        }
    }

    /// Handles a failed read. A missing file usually means that the region's manifest has advanced
    /// without it: the manifest is read again. A file that remains missing or damaged is reported.
    pub fn handle_read_error(&self, region: RegionId, error: &EngineError) {
        self.damaged.record_error(region, error, Instant::now());
        if let EngineError::Storage(error) = error
            && error.is_not_found()
        {
            tracing::warn!(
                group = %self.group,
                %region,
                %error,
                "file not found; reloading region manifest"
            );
            self.targets.reload(region);
        }
    }

    /// Memory budget for unflushed rows, shared by all groups of the node.
    pub fn memory(&self) -> &Arc<MemoryBudget> {
        &self.env.memory
    }

    /// Returns whether this replica leads. A hint for housekeeping and for apply, never a reason to
    /// serve.
    pub fn leads(&self) -> bool {
        self.leads.load(Ordering::Relaxed)
    }

    /// Sets whether this replica leads.
    pub fn set_leads(&self, leads: bool) {
        self.leads.store(leads, Ordering::Relaxed);
    }

    /// Index of the last applied entry.
    pub fn applied(&self) -> LogIndex {
        LogIndex(self.applied.load(Ordering::Relaxed))
    }

    /// Sets the last applied entry.
    pub fn set_applied(&self, index: LogIndex) {
        self.applied.store(index.get(), Ordering::Relaxed);
    }

    /// Feature level of the group's state: no entry of a higher level is proposed.
    pub fn level(&self) -> FeatureLevel {
        FeatureLevel::new(self.level.load(Ordering::Relaxed))
    }

    /// Sets the level of the group's state.
    pub fn set_level(&self, level: FeatureLevel) {
        self.level.store(level.get(), Ordering::Relaxed);
    }

    /// Epoch of the group's state.
    pub fn epoch(&self) -> Epoch {
        Epoch(self.epoch.load(Ordering::Relaxed))
    }

    /// Sets the epoch of the group's state.
    pub fn set_epoch(&self, epoch: Epoch) {
        self.epoch.store(epoch.get(), Ordering::Relaxed);
    }

    /// Permits the regions to drop what reads of the epochs that the group's state keeps do not return.
    pub fn advance_since(&self) {
        let state = self.state.read();
        for hosted in self.regions.all() {
            if let Some((since, _)) = state.readable_epochs(hosted.descriptor.region_id) {
                hosted.region.advance_since(since);
            }
        }
    }

    /// Adds a region; its manifest is loaded in the background.
    pub fn host(
        &self,
        descriptor: Arc<Descriptor>,
        base: Sequence,
        flushed: Sequence,
        parents: Vec<Parent>,
    ) -> io::Result<Arc<Region>> {
        let spec = RegionSpec { parents, ..descriptor.spec() };
        let region =
            Region::new(self.env.clone(), spec, base, flushed).map_err(io::Error::other)?;
        self.regions.insert(HostedRegion::new(descriptor, region.clone()));
        Ok(region)
    }

    /// Changes a region's schema and options.
    pub fn alter(&self, descriptor: Arc<Descriptor>, cause: Cause) -> io::Result<()> {
        let Some(hosted) = self.regions.get(descriptor.region_id) else { return Ok(()) };
        let schema = descriptor.schema.clone();
        let options = descriptor.options.clone();
        ignore_closed(hosted.region.alter(cause, schema, options))?;
        self.regions.set_descriptor(descriptor);
        Ok(())
    }

    /// Hands a decision of the log to a region.
    pub fn decide(&self, region: RegionId, pending: PendingObligation) -> io::Result<()> {
        match self.regions.get(region) {
            Some(hosted) => ignore_closed(hosted.region.apply_obligation(pending)),
            None => Ok(()),
        }
    }

    /// Returns whether the region's manifest has yet to record a decision.
    pub fn has_obligations(&self, region: RegionId) -> bool {
        let state = self.state.read();
        state.regions.get(&region).is_some_and(|region| !region.obligations.is_empty())
    }

    /// Returns the move epoch of a region's owners in this group; `None`: the group does not have the region.
    pub fn move_epoch(&self, region: RegionId) -> Option<u64> {
        self.state.read().regions.get(&region).map(|region| region.owner.move_epoch)
    }

    /// Returns whether another group is about to take a region over.
    pub fn is_departing(&self, region: RegionId) -> bool {
        let state = self.state.read();
        state.regions.get(&region).is_some_and(|of| of.serving() == ServingState::Departing)
    }

    /// Outcome of a write that took effect before its region was altered; `None` if the write is to
    /// be judged like any other. Recorded outcomes are committed: the log need not be consulted.
    pub fn earlier_outcome(&self, write: &WriteRequest) -> Option<EntryOutcome> {
        let state = self.state.read();
        earlier_outcome(state.regions.get(&RegionId(write.region_id))?, write)
    }

    /// Closes a region.
    pub fn close(&self, region: RegionId) {
        self.staging_work.remove(region);
        for failing in [&self.failing_loads, &self.failing_flushes, &self.failing_compactions] {
            failing.clear(region);
        }
        self.targets.remove(region);
        self.regions.remove(region);
    }
}

/// Treats a removed or closed region as a success: its `Remove` can be in the manifest before the
/// log reaches it.
pub(super) fn ignore_closed(result: Result<(), EngineError>) -> io::Result<()> {
    match result {
        Err(EngineError::Removed { .. } | EngineError::Closed { .. }) => Ok(()),
        other => other.map_err(io::Error::other),
    }
}
