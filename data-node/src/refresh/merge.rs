//! Merges of staged files into the regions that this node leads.
//!
//! - *Merge*: compares a region's rows with the staged ones and writes the differences, in chunks. It lives until it is
//!   complete or has failed; the next call begins it again after the last chunk that the log has.
//!
//! A chunk is proposed after the one before it was applied: barriers and other entries of the group wait for at most one
//! chunk of each part.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use bytes::Bytes;
use futures::future::try_join_all;
use parking_lot::Mutex;
use tidewater_common::ids::{Epoch, GroupId, RegionId};
use tidewater_common::refusal::Refusal;
use tidewater_common::rows::encode_batch;
use tidewater_proto::v1::{
    MergeCounts, MergeRegionRequest, MergeRegionResponse, Reason, RegionChunk, RegionMergeBegun,
};
use tidewater_region_engine::Region;
use tidewater_region_engine::manifest::AreaId;
use tidewater_region_engine::region::{ChangeChunk, ChangeCounts, ChangeError, ChangeOptions};
use tokio::task::JoinHandle;
use tracing::{debug, info};

use crate::catalog::CatalogRecords;
use crate::control::settle::call_owner;
use crate::group::descriptor::Descriptor;
use crate::group::entry;
use crate::group::obligation::{area_from_wire, area_to_wire};
use crate::group::refresh::MergeState;
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
/// Longest wait of a call for the end of the merge.
const ANSWER_WITHIN: Duration = Duration::from_millis(300);
/// Limit for the log to take an entry.
const PROPOSE_TIMEOUT: Duration = Duration::from_secs(10);
/// Limit for the manifest to record what the log has decided.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(20);
/// Time after which a group has most likely begun its first epoch.
const EPOCH_TIME: Duration = Duration::from_millis(500);

/// Merges in progress, by region.
#[derive(Debug, Default)]
pub(super) struct Merges {
    running: Mutex<BTreeMap<RegionId, Running>>,
}

#[derive(Debug)]
struct Running {
    area: AreaId,
    task: JoinHandle<Result<(), Refusal>>,
}

/// Checks a call against the catalog.
pub(super) fn check(catalog: &CatalogRecords, request: &MergeRegionRequest) -> Result<(), Refusal> {
    let superseded = || {
        let text = format!("the catalog merges no such area into region {}", request.region_id);
        Refusal::new(Reason::ProcedureSuperseded, text)
    };
    let place = catalog.regions.get(&request.region_id).ok_or_else(superseded)?;
    let table = catalog.tables.get(&place.table_id).ok_or_else(superseded)?;
    let change = table.change.as_ref().ok_or_else(superseded)?;
    let is_merging = change.load_merging && change.load_area == request.area_id;
    if is_merging && place.group_id == request.group_id { Ok(()) } else { Err(superseded()) }
}

impl Merges {
    /// Begins or continues a merge, waits for a short time, and returns the progress.
    pub(super) async fn call(
        &self,
        groups: &Groups,
        request: &MergeRegionRequest,
    ) -> Result<MergeRegionResponse, Refusal> {
        let replica = groups.get(GroupId(request.group_id))?;
        replica.require_leader()?;
        let region = RegionId(request.region_id);
        let area = area_from_wire(&request.area_id).ok_or_else(|| {
            let text = "a staging area id must be a UUID of 16 bytes";
            Refusal::new(Reason::InvalidArgument, text)
        })?;
        replica.confirm(PROPOSE_TIMEOUT).await?;
        if !request.observe && !is_complete(&replica, region, area) {
            self.advance(&replica, region, area).await?;
        }
        let merge = progress(&replica, region, area);
        let is_complete = merge.as_ref().is_some_and(MergeState::is_complete);
        Ok(MergeRegionResponse { merge: merge.map(|merge| merge.to_wire()), is_complete })
    }

    /// Starts the task of a merge unless it runs, and waits for its end for a short time.
    ///
    /// # Errors
    /// That of the merge.
    async fn advance(
        &self,
        replica: &Arc<GroupReplica>,
        region: RegionId,
        area: AreaId,
    ) -> Result<(), Refusal> {
        let mut running = match self.running.lock().entry(region) {
            Entry::Occupied(known) if known.get().area == area => known.remove(),
            Entry::Occupied(known) => {
                known.remove().task.abort();
                Running::start(replica, region, area)
            }
            Entry::Vacant(_) => Running::start(replica, region, area),
        };
        match tokio::time::timeout(ANSWER_WITHIN, &mut running.task).await {
            Ok(Ok(ended)) => ended,
            Ok(Err(_)) => {
                let text = format!("the merge of region {region} was interrupted");
                Err(Refusal::new(Reason::ShuttingDown, text))
            }
            Err(_) => {
                if let Some(other) = self.running.lock().insert(region, running) {
                    // Two calls at once: their chunks exclude each other.
                    other.task.abort();
                }
                Ok(())
            }
        }
    }
}

impl Running {
    fn start(replica: &Arc<GroupReplica>, region: RegionId, area: AreaId) -> Self {
        let merge = Merge { replica: replica.clone(), region, area };
        Self { area, task: replica.tasks.spawn(async move { merge.run().await }) }
    }
}

fn progress(replica: &GroupReplica, region: RegionId, area: AreaId) -> Option<MergeState> {
    let state = replica.shared.state.read();
    let merge = state.regions.get(&region)?.merge.as_ref()?;
    (merge.area == area).then(|| merge.clone())
}

fn is_complete(replica: &GroupReplica, region: RegionId, area: AreaId) -> bool {
    progress(replica, region, area).is_some_and(|merge| merge.is_complete())
}

struct Merge {
    replica: Arc<GroupReplica>,
    region: RegionId,
    area: AreaId,
}

impl Merge {
    async fn run(self) -> Result<(), Refusal> {
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
        let descriptor = &hosted.descriptor;
        let parts = (0..merge.parts.len())
            .map(|part| self.merge_part(&hosted.region, descriptor, &merge, part));
        try_join_all(parts).await?;
        info!(%group, region = %self.region, area = %self.area, "merge completed");
        Ok(())
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
        progress(&self.replica, self.region, self.area).ok_or_else(|| {
            let text = format!("the refresh of region {} has ended", self.region);
            Refusal::new(Reason::ProcedureSuperseded, text)
        })
    }

    async fn merge_part(
        &self,
        region: &Arc<Region>,
        descriptor: &Arc<Descriptor>,
        merge: &MergeState,
        number: usize,
    ) -> Result<(), Refusal> {
        let Some(part) = merge.parts.get(number).filter(|part| !part.is_complete) else {
            return Ok(());
        };
        let mut reached = part.reached.clone();
        let options = ChangeOptions {
            range: merge.range(number, &descriptor.range),
            after: (!reached.is_empty()).then(|| reached.to_vec()),
            chunk_rows: CHUNK_ROWS,
            chunk_bytes: CHUNK_BYTES,
        };
        let changes = region.staged_changes(self.area, options).await;
        let mut changes = changes.map_err(|error| self.change_error(&error))?;
        while let Some(chunk) = changes.next().await.map_err(|error| self.change_error(&error))? {
            let entry = self.entry(descriptor, number, &reached, &chunk)?;
            reached = entry.reached.clone();
            meters::count_compared_rows(compared(&chunk.counts));
            self.replica.propose(entry::chunk(entry), PROPOSE_TIMEOUT).await?.into_result()?;
            debug!(region = %self.region, part = number, "chunk merged");
            if chunk.is_last {
                return Ok(());
            }
        }
        let text = format!("the merge of region {} ended without its last chunk", self.region);
        Err(Refusal::new(Reason::Internal, text))
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

/// Returns the number of rows that were compared.
fn compared(counts: &ChangeCounts) -> u64 {
    counts.inserted + counts.updated + counts.deleted + counts.unchanged
}
