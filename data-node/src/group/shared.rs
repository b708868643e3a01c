//! What the parts of one replica share: state machine, calls, leadership, loader.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use tidewater_common::ids::{GroupId, LogIndex, ManifestVersion, NodeId, RegionId, Sequence};
use tidewater_proto::v1::WriteRequest;
use tidewater_region_engine::env::RegionEnv;
use tidewater_region_engine::region::{Cause, PendingObligation};
use tidewater_region_engine::{EngineError, MemoryBudget, Region};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::apply::done_before;
use super::area_work::AreaWork;
use super::descriptor::Descriptor;
use super::entry::Outcome;
use super::hosted::{Hosted, HostedRegions};
use super::loader::Targets;
use super::log_bytes::LogBytes;
use super::state::GroupState;

#[cfg(test)]
mod tests;

/// See the module's head.
#[derive(Debug)]
pub struct Shared {
    /// The group.
    pub group: GroupId,
    /// This node.
    pub node: NodeId,
    /// Store, clock, ids and options of regions.
    pub env: RegionEnv,
    /// What is replicated. Written by apply and install only.
    pub state: RwLock<GroupState>,
    /// What calls look up.
    pub regions: HostedRegions,
    /// Manifests to be loaded.
    pub targets: Targets,
    /// Bytes of log applied.
    pub log_bytes: Mutex<LogBytes>,
    /// Who takes files over; of all terms, since a task may outlive the term in which it began.
    pub area_work: AreaWork,
    /// Woken when a snapshot may be due or memory is short.
    pub housekeeping: Notify,
    /// Woken when a region has many runs.
    pub merges: Notify,
    /// The replica is being stopped.
    pub stopping: CancellationToken,
    leads: AtomicBool,
    replayed: AtomicBool,
    applied: AtomicU64,
}

impl Shared {
    /// A replica without regions.
    pub fn new(group: GroupId, node: NodeId, env: RegionEnv, log_tail_bytes: u64) -> Arc<Self> {
        Arc::new(Self {
            group,
            node,
            env,
            state: RwLock::default(),
            regions: HostedRegions::default(),
            targets: Targets::default(),
            log_bytes: Mutex::new(LogBytes::new(log_tail_bytes)),
            area_work: AreaWork::default(),
            housekeeping: Notify::new(),
            merges: Notify::new(),
            stopping: CancellationToken::new(),
            leads: AtomicBool::new(false),
            replayed: AtomicBool::new(false),
            applied: AtomicU64::new(0),
        })
    }

    /// The log was replayed: the replica votes, leads and flushes from here on.
    pub fn set_replayed(&self) {
        self.replayed.store(true, Ordering::Release);
    }

    /// Whether the log was replayed after the start.
    pub fn is_replayed(&self) -> bool {
        self.replayed.load(Ordering::Acquire)
    }

    /// The manifest version up to which the log knows of this region; 0 when it serves none.
    pub fn advanced_version(&self, id: RegionId) -> ManifestVersion {
        let state = self.state.read();
        state.regions.get(&id).map_or(ManifestVersion(0), |region| region.manifest_version)
    }

    /// A manifest was read or written up to this version through this region object. One that was
    /// replaced by an install says nothing about its successor, which has yet to be loaded.
    pub fn reached(&self, id: RegionId, region: &Arc<Region>, version: ManifestVersion) {
        if self.regions.get(id).is_some_and(|hosted| Arc::ptr_eq(&hosted.region, region)) {
            self.targets.reached(id, version);
        }
    }

    /// A read has failed. When a file was gone, the region's manifest has gone on without it, and is
    /// read again.
    pub fn note_read_error(&self, region: RegionId, error: &EngineError) {
        if let EngineError::Storage(error) = error
            && error.is_not_found()
        {
            tracing::warn!(group = %self.group, %region, %error, "reading the manifest again");
            self.targets.reload(region);
        }
    }

    /// The budget for unflushed rows, shared by all groups of the node.
    pub fn memory(&self) -> &Arc<MemoryBudget> {
        &self.env.memory
    }

    /// Whether this replica leads. A hint for housekeeping and for apply, never a reason to serve.
    pub fn leads(&self) -> bool {
        self.leads.load(Ordering::Relaxed)
    }

    /// Notes whether this replica leads.
    pub fn set_leads(&self, leads: bool) {
        self.leads.store(leads, Ordering::Relaxed);
    }

    /// Index of the last entry applied.
    pub fn applied(&self) -> LogIndex {
        LogIndex(self.applied.load(Ordering::Relaxed))
    }

    /// Notes the last entry applied.
    pub fn set_applied(&self, index: LogIndex) {
        self.applied.store(index.get(), Ordering::Relaxed);
    }

    /// Hosts a region; its manifest is loaded in the background.
    pub fn host(
        &self,
        descriptor: Arc<Descriptor>,
        base: Sequence,
        flushed: Sequence,
    ) -> io::Result<Arc<Region>> {
        let region = Region::new(self.env.clone(), descriptor.spec(), base, flushed)
            .map_err(io::Error::other)?;
        self.regions.insert(Hosted { descriptor, region: region.clone() });
        Ok(region)
    }

    /// A region has another schema and other options from here on.
    pub fn alter(&self, descriptor: Arc<Descriptor>, cause: Cause) -> io::Result<()> {
        let Some(hosted) = self.regions.get(descriptor.region_id) else { return Ok(()) };
        let (schema, options) = (descriptor.schema.clone(), descriptor.options.clone());
        still_there(hosted.region.alter(cause, schema, options))?;
        self.regions.describe(descriptor);
        Ok(())
    }

    /// Hands a region what the log has decided about it.
    pub fn decide(&self, region: RegionId, pending: PendingObligation) -> io::Result<()> {
        match self.regions.get(region) {
            Some(hosted) => still_there(hosted.region.apply_obligation(pending)),
            None => Ok(()),
        }
    }

    /// Whether a region owes its manifest anything.
    pub fn owes(&self, region: RegionId) -> bool {
        let state = self.state.read();
        state.regions.get(&region).is_some_and(|region| !region.obligations.is_empty())
    }

    /// The answer to a write that took effect before its region was altered; `None`: it is judged
    /// like any other. What is recorded is committed, so the log need not be asked.
    pub fn done_before(&self, write: &WriteRequest) -> Option<Outcome> {
        let state = self.state.read();
        done_before(state.regions.get(&RegionId(write.region_id))?, write)
    }

    /// Puts a region away.
    pub fn close(&self, region: RegionId) {
        self.area_work.forget(region);
        self.targets.forget(region);
        self.regions.remove(region);
    }
}

/// A region whose `Remove` is in the manifest before the log says so takes nothing any more.
pub(super) fn still_there(result: Result<(), EngineError>) -> io::Result<()> {
    match result {
        Err(EngineError::Removed { .. } | EngineError::Closed { .. }) => Ok(()),
        other => other.map_err(io::Error::other),
    }
}
