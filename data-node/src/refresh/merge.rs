//! Merges of staged files into the regions that this node leads.
//!
//! - *Merge*: compares a region's rows with the staged ones and writes the differences, in chunks. Its task lives until it
//!   is complete or has failed, also without a call that waits for it; the next call after a failure begins it again after
//!   the last chunk that the log has. The task also ends with its replica, with the leadership, and with its refresh.
//!
//! A chunk is proposed after the one before it was applied: barriers and other entries of the group wait for at most one
//! chunk of each part.

mod task;

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tidewater_common::ids::{GroupId, RegionId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{MergeRegionRequest, MergeRegionResponse, Reason};
use tidewater_region_engine::manifest::AreaId;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use self::task::{Merge, is_complete, is_open, progress};
use crate::catalog::CatalogRecords;
use crate::group::obligation::area_from_wire;
use crate::group::refresh::MergeState;
use crate::group::replica::GroupReplica;
use crate::groups::Groups;

/// Longest wait of a call for the end of the merge.
const ANSWER_WITHIN: Duration = Duration::from_millis(300);
/// Limit for the proof of the leadership.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(10);

/// Merges in progress, by region.
#[derive(Debug, Default)]
pub(super) struct Merges {
    running: Mutex<BTreeMap<RegionId, Running>>,
}

/// The task of a merge, and how it has ended; `None`: it has not.
#[derive(Debug, Clone)]
struct Running {
    area: AreaId,
    replica: Weak<GroupReplica>,
    ended: watch::Receiver<Option<Result<(), Refusal>>>,
    task: AbortHandle,
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
        groups: &Arc<Groups>,
        request: &MergeRegionRequest,
    ) -> Result<MergeRegionResponse, Refusal> {
        let replica = groups.get(GroupId(request.group_id))?;
        replica.require_leader()?;
        let region = RegionId(request.region_id);
        let area = area_from_wire(&request.area_id).ok_or_else(|| {
            let text = "a staging area id must be a UUID of 16 bytes";
            Refusal::new(Reason::InvalidArgument, text)
        })?;
        replica.confirm(CONFIRM_TIMEOUT).await?;
        if !request.observe && !is_complete(&replica, region, area) {
            let merge = Merge { groups: groups.clone(), replica: replica.clone(), region, area };
            self.advance(merge).await?;
        }
        let merge = progress(&replica, region, area);
        let is_complete = merge.as_ref().is_some_and(MergeState::is_complete);
        if is_complete {
            self.running.lock().retain(|of, running| *of != region || running.area != area);
        }
        let merge = merge.map(|merge| merge.to_wire());
        let publications = replica.shared.state.read().publications(region);
        Ok(MergeRegionResponse { merge, is_complete, publications })
    }

    /// Starts the task of a merge unless it runs, and waits for its end for a short time. A failure is reported once: the next
    /// call starts another task.
    ///
    /// # Errors
    /// That of the merge.
    async fn advance(&self, merge: Merge) -> Result<(), Refusal> {
        let region = merge.region;
        let mut ended = self.running(merge);
        let Ok(result) = tokio::time::timeout(ANSWER_WITHIN, ended.wait_for(Option::is_some)).await
        else {
            return Ok(());
        };
        let result = result.map(|result| result.clone());
        self.running.lock().retain(|_, running| !running.ended.same_channel(&ended));
        match result {
            Ok(Some(ended)) => ended,
            // The task was aborted, or has panicked.
            Ok(None) | Err(_) => {
                let text = format!("the merge of region {region} was interrupted");
                Err(Refusal::new(Reason::ShuttingDown, text))
            }
        }
    }

    /// Returns the end of the merge that runs, which is started if there is none. That of another area has ended.
    fn running(&self, merge: Merge) -> watch::Receiver<Option<Result<(), Refusal>>> {
        let mut running = self.running.lock();
        if let Some(known) = running.get(&merge.region) {
            if known.area == merge.area {
                return known.ended.clone();
            }
            known.task.abort();
        }
        running.retain(|region, known| known.is_open(*region));
        let region = merge.region;
        let started = Running::start(merge);
        let ended = started.ended.clone();
        running.insert(region, started);
        ended
    }
}

impl Running {
    fn start(merge: Merge) -> Self {
        let merge = Arc::new(merge);
        let running = merge.clone();
        Self::spawn(merge, async move { running.run().await })
    }

    /// Starts a task that does the work of a merge until the merge has ended.
    fn spawn(
        merge: Arc<Merge>,
        work: impl Future<Output = Result<(), Refusal>> + Send + 'static,
    ) -> Self {
        let (sender, ended) = watch::channel(None);
        let area = merge.area;
        let replica = Arc::downgrade(&merge.replica);
        let tasks = merge.replica.tasks.clone();
        let task = tasks.spawn(async move {
            let result = tokio::select! {
                () = merge.replica.shared.stopping.cancelled() => return,
                result = work => result,
                superseded = merge.superseded() => Err(superseded),
            };
            sender.send_replace(Some(result));
        });
        Self { area, replica, ended, task: task.abort_handle() }
    }

    /// Returns whether the refresh has not ended.
    fn is_open(&self, region: RegionId) -> bool {
        self.replica.upgrade().is_some_and(|replica| is_open(&replica, region, self.area))
    }
}

#[cfg(test)]
mod tests;
