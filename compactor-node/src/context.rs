//! State shared by the services of a compactor node.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidewater_common::clock::{Clock, ClusterClock};
use tidewater_common::ids::{ClusterId, NodeId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{CompactorLoad, Reason};
use tidewater_region_engine::compaction::CompactionRegion;
use tidewater_region_engine::env::RegionEnv;
use tidewater_region_engine::hooks::HookSets;
use tidewater_region_engine::storage::StoreDisk;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::events::CompactorEvents;
use crate::handles::HandleTable;
use crate::jobs::JobTable;
use crate::meters;

/// Concurrent reads of manifests, each of which may be large.
pub(crate) const CONCURRENT_READS: usize = 8;
/// Time limit of the wait for a manifest read; a call that waits longer is refused.
const READ_WAIT: Duration = Duration::from_secs(5);

/// State shared by the services of a node. Lives as long as the node.
#[derive(Debug)]
pub(crate) struct CompactorContext {
    pub(crate) cluster: ClusterId,
    pub(crate) node: NodeId,
    /// Id of the object store, from its marker object.
    pub(crate) object_store_id: Uuid,
    pub(crate) env: RegionEnv,
    /// The clock of `env`.
    pub(crate) clock: Arc<ClusterClock>,
    pub(crate) sets: HookSets,
    pub(crate) events: Arc<CompactorEvents>,
    pub(crate) disk: StoreDisk,
    pub(crate) jobs: Arc<JobTable>,
    pub(crate) handles: Mutex<HandleTable<CompactionRegion>>,
    /// Permits of manifest reads.
    pub(crate) reading: Semaphore,
    /// Tasks of the jobs, one per job.
    pub(crate) tasks: TaskTracker,
}

impl CompactorContext {
    /// Load of the node, as reported to the meta service.
    pub(crate) async fn load(&self) -> CompactorLoad {
        let room = self.disk.room().await;
        let capacity = self.jobs.capacity();
        let in_use = self.jobs.in_use();
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        CompactorLoad {
            slots: count(capacity.slots),
            jobs: count(in_use.jobs),
            memory_bytes: capacity.memory_bytes,
            memory_used_bytes: in_use.memory_bytes,
            disk_free_bytes: room.map(|room| room.saturating_sub(in_use.unwritten_bytes)),
            // With a wrong clock it refuses every job.
            draining: in_use.draining || self.clock.check().is_err(),
            jobs_of: self.jobs.by_source(),
        }
    }

    /// Waits for a permit to read a manifest.
    ///
    /// # Errors
    /// `Overloaded` if the wait exceeds [`READ_WAIT`].
    pub(crate) async fn acquire_manifest_read(&self) -> Result<SemaphorePermit<'_>, Refusal> {
        let permit = tokio::time::timeout(READ_WAIT, self.reading.acquire()).await;
        permit.ok().and_then(Result::ok).ok_or_else(|| {
            let message = format!("{CONCURRENT_READS} manifest reads are in progress: retry later");
            Refusal::new(Reason::Overloaded, message).retry_after(READ_WAIT)
        })
    }

    /// Updates the gauges of `/metrics`.
    pub(crate) fn observe(&self) {
        let handles = self.handles.lock().len();
        meters::observe(self.jobs.capacity(), self.jobs.in_use(), handles);
    }
}
