//! What the services of a compactor node share.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidewater_common::ids::{ClusterId, NodeId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{CompactorLoad, Reason};
use tidewater_region_engine::compaction::CompactionRegion;
use tidewater_region_engine::env::RegionEnv;
use tidewater_region_engine::hooks::HookSets;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::disk::Disk;
use crate::handles::Handles;
use crate::jobs::Jobs;
use crate::meters;

/// Manifests read at once: each may be large.
pub(crate) const READING: usize = 8;
/// Who waits longer to read one is refused.
const READS_WITHIN: Duration = Duration::from_secs(5);

/// See the module's head.
#[derive(Debug)]
pub(crate) struct NodeParts {
    pub(crate) cluster: ClusterId,
    pub(crate) node: NodeId,
    /// Of the store, as its marker says.
    pub(crate) object_store_id: Uuid,
    pub(crate) env: RegionEnv,
    pub(crate) sets: HookSets,
    pub(crate) disk: Disk,
    pub(crate) jobs: Arc<Jobs>,
    pub(crate) handles: Mutex<Handles<CompactionRegion>>,
    /// Permits to read a manifest.
    pub(crate) reading: Semaphore,
    /// Each job has one.
    pub(crate) tasks: TaskTracker,
}

impl NodeParts {
    /// What the meta service hears.
    pub(crate) async fn load(&self) -> CompactorLoad {
        let room = self.disk.room().await;
        let (capacity, in_use) = (self.jobs.capacity(), self.jobs.in_use());
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        CompactorLoad {
            slots: count(capacity.slots),
            jobs: count(in_use.jobs),
            memory_bytes: capacity.memory_bytes,
            memory_used_bytes: in_use.memory_bytes,
            disk_free_bytes: room.map(|room| room.saturating_sub(in_use.unwritten_bytes)),
            draining: in_use.draining,
            jobs_of: self.jobs.by_source(),
        }
    }

    /// Waits until a manifest may be read.
    ///
    /// # Errors
    /// `Overloaded` when that takes too long.
    pub(crate) async fn may_read_a_manifest(&self) -> Result<SemaphorePermit<'_>, Refusal> {
        let permit = tokio::time::timeout(READS_WITHIN, self.reading.acquire()).await;
        permit.ok().and_then(Result::ok).ok_or_else(|| {
            let message = format!("{READING} manifests are being read here, and others wait");
            Refusal::new(Reason::Overloaded, message).retry_after(READS_WITHIN)
        })
    }

    /// Brings the gauges of `/metrics` up to date.
    pub(crate) fn observe(&self) {
        let handles = self.handles.lock().len();
        meters::observe(self.jobs.capacity(), self.jobs.in_use(), handles);
    }
}
