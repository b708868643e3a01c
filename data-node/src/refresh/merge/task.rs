//! One merge: its parts at the same time, and the chunks of each part one after the other.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use bytes::Bytes;
use futures::future::try_join_all;
use tidewater_common::ids::{Epoch, RegionId};
use tidewater_common::refusal::Refusal;
use tidewater_common::rows::encode_batch;
use tidewater_proto::v1::{MergeCounts, Reason, RegionChunk, RegionMergeBegun};
use tidewater_region_engine::manifest::AreaId;
use tidewater_region_engine::memory::Admission;
use tidewater_region_engine::region::{ChangeChunk, ChangeError, ChangeOptions};
use tidewater_region_engine::{EngineError, Region};
use tokio::time::sleep;
use tracing::{debug, info};

use crate::control::settle::call_owner;
use crate::group::admission::check_disk;
use crate::group::descriptor::Descriptor;
use crate::group::entry;
use crate::group::hosted::HostedRegion;
use crate::group::obligation::area_to_wire;
use crate::group::refresh::{MergePart, MergeState};
use crate::group::replica::GroupReplica;
use crate::groups::Groups;
use crate::meters;
use crate::owner_request::OwnerRequest;

/// Parts in which a region is merged at the same time.
const PARTS: usize = 4;
/// Rows of either side that a chunk compares: as much work is done again after a kill, for each part.
const CHUNK_ROWS: usize = 100_000;
/// Bytes of changed rows of a chunk. Larger ones delay barriers.
const CHUNK_BYTES: usize = 1 << 20;
/// Limit for the log to take an entry.
const PROPOSE_TIMEOUT: Duration = Duration::from_secs(10);
/// Limit for the manifest to record what the log has decided.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(20);
/// Time after which a group has most likely begun its first epoch.
const EPOCH_TIME: Duration = Duration::from_millis(500);
/// Time of a wait for memory, after which the leadership is checked again.
const MEMORY_WAIT: Duration = Duration::from_secs(1);
/// Wait after a refused request for memory.
const MEMORY_PAUSE: Duration = Duration::from_millis(100);
/// Interval of the checks whether a merge has ended that waits for the comparisons of others.
const END_CHECK: Duration = Duration::from_secs(1);

/// Returns the progress of a merge; `None`: it has not begun, or has ended.
pub(super) fn progress(
    replica: &GroupReplica,
    region: RegionId,
    area: AreaId,
) -> Option<MergeState> {
    let state = replica.shared.state.read();
    let merge = state.regions.get(&region)?.merge.as_ref()?;
    (merge.area == area).then(|| merge.clone())
}

pub(super) fn is_complete(replica: &GroupReplica, region: RegionId, area: AreaId) -> bool {
    progress(replica, region, area).is_some_and(|merge| merge.is_complete())
}

/// Returns whether a region has this staging area. It has none once the refresh has ended.
pub(super) fn is_open(replica: &GroupReplica, region: RegionId, area: AreaId) -> bool {
    let state = replica.shared.state.read();
    state.regions.get(&region).is_some_and(|region| region.areas.contains(&area))
}

/// A merge of a staging area into a region that this replica leads.
pub(super) struct Merge {
    pub(super) groups: Arc<Groups>,
    pub(super) replica: Arc<GroupReplica>,
    pub(super) region: RegionId,
    pub(super) area: AreaId,
}

impl Merge {
    /// Merges what the log does not have yet.
    ///
    /// # Errors
    /// [`Reason::ProcedureSuperseded`]: the refresh has ended; [`Reason::SourceMismatch`]: two staged rows have the same key;
    /// and those of the log, the store and the disk. The next attempt continues.
    pub(super) async fn run(&self) -> Result<(), Refusal> {
        let group = self.replica.group();
        if self.replica.shared.epoch() == Epoch(0) {
            // Its rows would be visible as of the epoch of an empty table.
            let text = format!("group {group} has no epoch yet: retry");
            return Err(Refusal::new(Reason::RouteBusy, text).retry_after(EPOCH_TIME));
        }
        // Only the owner's manifest is sure to have all staged files: without some, their rows would be deleted.
        let settle = |reply| OwnerRequest::Settle(self.region, reply);
        call_owner(&self.replica, SETTLE_TIMEOUT, "recording a staging area", settle).await?;
        let hosted = self.replica.region(self.region)?;
        let merge = match progress(&self.replica, self.region, self.area) {
            Some(merge) => merge,
            None => self.begin(&hosted.region).await?,
        };
        info!(%group, region = %self.region, area = %self.area, parts = merge.parts.len(), "merge begins");
        let parts = (0..merge.parts.len()).map(|part| self.merge_part(&hosted, part));
        try_join_all(parts).await?;
        info!(%group, region = %self.region, area = %self.area, "merge completed");
        Ok(())
    }

    /// Returns the reason once the refresh of the region has ended, or this replica does not lead any more.
    pub(super) async fn superseded(&self) -> Refusal {
        loop {
            sleep(END_CHECK).await;
            if let Err(not_leader) = self.replica.require_leader() {
                return not_leader;
            }
            if !is_open(&self.replica, self.region, self.area) {
                return self.ended();
            }
        }
    }

    /// Divides the region in parts.
    async fn begin(&self, region: &Arc<Region>) -> Result<MergeState, Refusal> {
        let keys = region.staged_split_keys(self.area, PARTS).await;
        let keys = keys.map_err(|error| self.change_error(&error))?;
        let begun = RegionMergeBegun {
            region_id: self.region.get(),
            area_id: area_to_wire(self.area),
            split_keys: keys.into_iter().map(Bytes::from).collect(),
        };
        self.replica.propose(entry::merge_begun(begun), PROPOSE_TIMEOUT).await?.into_result()?;
        progress(&self.replica, self.region, self.area).ok_or_else(|| self.ended())
    }

    /// Merges a part from where the log has it, until it is complete. A chunk may find that the log has a later one, which an
    /// earlier leader or an earlier attempt has proposed: the part continues after that.
    async fn merge_part(&self, hosted: &HostedRegion, number: usize) -> Result<(), Refusal> {
        loop {
            let (merge, part) = self.part(number)?;
            if part.is_complete {
                return Ok(());
            }
            let Err(problem) = self.merge_from(hosted, &merge, number, &part.reached).await else {
                return Ok(());
            };
            let (_, now) = self.part(number)?;
            if problem.reason != Reason::ProcedureSuperseded || now.chunks == part.chunks {
                return Err(problem);
            }
        }
    }

    /// Returns the merge and one of its parts, as the log has them.
    fn part(&self, number: usize) -> Result<(MergeState, MergePart), Refusal> {
        let merge = progress(&self.replica, self.region, self.area).ok_or_else(|| self.ended())?;
        let part = merge.parts.get(number).cloned().ok_or_else(|| self.ended())?;
        Ok((merge, part))
    }

    async fn merge_from(
        &self,
        hosted: &HostedRegion,
        merge: &MergeState,
        number: usize,
        after: &Bytes,
    ) -> Result<(), Refusal> {
        let descriptor = &hosted.descriptor;
        let mut reached = after.clone();
        let options = ChangeOptions {
            range: merge.range(number, &descriptor.range),
            after: (!reached.is_empty()).then(|| reached.to_vec()),
            chunk_rows: CHUNK_ROWS,
            chunk_bytes: CHUNK_BYTES,
        };
        let changes = hosted.region.staged_changes(self.area, options).await;
        let mut changes = changes.map_err(|error| self.change_error(&error))?;
        while let Some(chunk) = changes.next().await.map_err(|error| self.change_error(&error))? {
            let entry = self.entry(descriptor, number, &reached, &chunk)?;
            reached = entry.reached.clone();
            meters::count_compared_rows(chunk.counts.compared());
            let admitted = self.admit(entry.puts.len() + entry.deletes.len()).await?;
            self.replica.propose(entry::chunk(entry), PROPOSE_TIMEOUT).await?.into_result()?;
            drop(admitted);
            debug!(region = %self.region, part = number, "chunk merged");
            if chunk.is_last {
                return Ok(());
            }
        }
        let text = format!("the merge of region {} ended without its last chunk", self.region);
        Err(Refusal::new(Reason::Internal, text))
    }

    /// Waits until the node has memory for a chunk's rows, as a write does. Unlike a write, it is not refused: flushes will
    /// free memory.
    pub(super) async fn admit(&self, bytes: usize) -> Result<Option<Admission>, Refusal> {
        check_disk(&self.groups.disk())?;
        if bytes == 0 {
            return Ok(None);
        }
        loop {
            let memory = self.replica.shared.memory();
            match memory.admit(bytes as u64, MEMORY_WAIT).await {
                Ok(admitted) => return Ok(Some(admitted)),
                Err(EngineError::Overloaded { .. }) => self.replica.require_leader()?,
                Err(error) => return Err(Refusal::from(&error)),
            }
            check_disk(&self.groups.disk())?;
            sleep(MEMORY_PAUSE).await;
        }
    }

    fn ended(&self) -> Refusal {
        let text = format!("the refresh of region {} has ended", self.region);
        Refusal::new(Reason::ProcedureSuperseded, text)
    }

    fn change_error(&self, error: &ChangeError) -> Refusal {
        match error {
            ChangeError::AreaNotOpen { .. } => {
                let text = format!("the refresh of region {} has ended: {error}", self.region);
                Refusal::new(Reason::ProcedureSuperseded, text)
            }
            ChangeError::DuplicateKey { .. } => {
                Refusal::new(Reason::SourceMismatch, error.to_string())
            }
            ChangeError::Engine(error) => Refusal::from(error),
        }
    }

    fn entry(
        &self,
        descriptor: &Descriptor,
        part: usize,
        after: &Bytes,
        chunk: &ChangeChunk,
    ) -> Result<RegionChunk, Refusal> {
        let rows = |batch: &RecordBatch| match batch.num_rows() {
            0 => Ok(Bytes::new()),
            _ => encode_batch(batch)
                .map_err(|error| Refusal::new(Reason::Internal, error.to_string())),
        };
        let reached =
            if chunk.reached.is_empty() { after.clone() } else { chunk.reached.clone().into() };
        Ok(RegionChunk {
            region_id: self.region.get(),
            area_id: area_to_wire(self.area),
            part: u32::try_from(part).unwrap_or(u32::MAX),
            after: after.clone(),
            reached,
            is_last: chunk.is_last,
            schema_version: descriptor.schema_version().get(),
            puts: rows(&chunk.puts)?,
            deletes: rows(&chunk.deletes)?,
            counts: Some(MergeCounts {
                inserted: chunk.counts.inserted,
                updated: chunk.counts.updated,
                deleted: chunk.counts.deleted,
                unchanged: chunk.counts.unchanged,
            }),
        })
    }
}
