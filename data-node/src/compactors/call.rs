//! One attempt at a job on a compactor: opens the region, starts the plan, watches it, closes the region.

use std::time::Duration;

use tidewater_common::ids::{GroupId, ManifestVersion, NodeId, OwnerEpoch};
use tidewater_common::refusal::{Effect, Refusal};
use tidewater_proto::compaction::v1::compaction_client::CompactionClient;
use tidewater_proto::compaction::v1::{self as wire, CompactRequest, OpenCompactionRegionRequest};
use tidewater_proto::v1::{CallHeader, ManifestOwnerEpoch, Reason};
use tidewater_region_engine::compaction::{Attempt, ProgressSnapshot};
use tidewater_region_engine::layout::RegionDir;
use tidewater_region_engine::region::PlannedCompaction;
use tidewater_rpc::FailedAttempt;
use tonic::transport::Channel;
use tonic::{Response, Status};

use super::Compactors;
use super::fleet::Compactor;
use super::watch::AttemptWatch;
use crate::node_events::NodeEvents;

/// Limit for opening a region or accepting a plan: the compactor reads the manifest.
const REPLY_TIMEOUT: Duration = Duration::from_secs(10);
/// Limit for best-effort calls: close and cancel.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Largest reply: the files of a plan with their footers.
const MAX_REPLY_BYTES: usize = 64 << 20;

/// Owner of the region of a job.
#[derive(Debug, Clone, Copy)]
pub struct JobOwner<'a> {
    /// The group that owns the region.
    pub group: GroupId,
    /// Epoch in whose name the owner commits.
    pub epoch: OwnerEpoch,
    /// Time without progress after which an attempt is aborted.
    pub progress_timeout: Duration,
    /// Events of this node, for slow jobs on compactors that record none.
    pub events: &'a NodeEvents,
}

/// Outcome of an attempt.
#[derive(Debug, Clone, PartialEq)]
pub enum AttemptOutcome {
    /// The outputs are in the manifest.
    Committed {
        /// Since this version, or before.
        version: ManifestVersion,
        /// Number of output files.
        files_out: usize,
    },
    /// The compactor did not accept the job: nothing was committed.
    Refused(Refusal),
    /// The compactor accepted the job and returned it: nothing was committed.
    Returned(Refusal),
    /// The job can never be committed: its files are no longer live, or its outputs are too old.
    Discarded(Refusal),
    /// The attempt was cancelled on request: nothing was committed.
    Cancelled(Refusal),
    /// The attempt began and has failed, or its compactor stopped reporting. The manifest shows whether
    /// it was committed, and it may still be.
    Unknown(Refusal),
}

impl AttemptOutcome {
    /// Returns whether only the manifest shows the state of the job.
    pub fn depends_on_manifest(&self) -> bool {
        matches!(self, Self::Discarded(_) | Self::Unknown(_))
    }

    /// Returns whether the compactor had accepted the job, although it did not complete it.
    pub fn was_accepted(&self) -> bool {
        matches!(self, Self::Returned(_) | Self::Unknown(_))
    }
}

impl Compactors {
    /// Makes one attempt and reports its progress. A dropped future leaves the job to the compactor.
    pub async fn attempt(
        &self,
        compactor: &Compactor,
        owner: JobOwner<'_>,
        planned: &PlannedCompaction,
        number: u32,
        attempt: &Attempt,
    ) -> AttemptOutcome {
        let mut client = match self.client(compactor) {
            Ok(client) => client,
            Err(refusal) => return AttemptOutcome::Refused(refusal),
        };
        let header = self.header(compactor.node);
        let opened =
            client.open_compaction_region(self.open_request(header.clone(), owner, planned));
        let opened = match reply(compactor, opened).await {
            Ok(opened) => opened,
            // No job has begun, whether the compactor received the call or not.
            Err(failed) => return not_accepted(failed.refusal),
        };
        let request = CompactRequest {
            header: header.clone(),
            handle: opened.handle.clone(),
            plan: Some(planned.plan().into()),
            attempt: number,
        };
        let job_id = planned.plan().job_id.to_string();
        let progress_timeout = owner.progress_timeout;
        let mut watch =
            AttemptWatch { client: client.clone(), header, job_id, progress_timeout, attempt };
        let outcome = match reply(compactor, client.compact(request)).await {
            Ok(events) => {
                let begun = owner.events.now();
                let outcome = watch.run(events).await;
                if let Some(limit) = opened.slow_operation_ms.map(Duration::from_millis) {
                    let dir = planned.job().dir;
                    owner.events.record_if_slow_on(compactor.node, dir, begun, limit);
                }
                outcome
            }
            Err(failed) if failed.effect == Effect::Unknown => {
                // The job may have begun.
                watch.cancel().await;
                AttemptOutcome::Unknown(failed.refusal)
            }
            Err(failed) => not_accepted(failed.refusal),
        };
        let header = self.header(compactor.node);
        let close = wire::CloseCompactionRegionRequest { header, handle: opened.handle };
        // A handle that is not closed expires.
        let closed = client.close_compaction_region(close);
        let _ = tidewater_rpc::attempt(&compactor.address, CLOSE_TIMEOUT, closed).await;
        outcome
    }

    /// Returns the progress of the region's jobs that run on a compactor; `None`: none runs, or the
    /// compactor does not reply.
    pub async fn running_jobs(
        &self,
        compactor: &Compactor,
        dir: RegionDir,
    ) -> Option<Vec<ProgressSnapshot>> {
        let mut client = self.client(compactor).ok()?;
        let header = self.header(compactor.node);
        let listed = client.list_compactions(wire::ListCompactionsRequest { header });
        let running = reply(compactor, listed).await.ok()?.jobs.into_iter();
        let of_region = running.filter(|job| job.dir.map(RegionDir::from) == Some(dir));
        let done: Vec<_> = of_region.map(|job| job.done.unwrap_or_default().into()).collect();
        (!done.is_empty()).then_some(done)
    }

    fn open_request(
        &self,
        header: Option<CallHeader>,
        owner: JobOwner<'_>,
        planned: &PlannedCompaction,
    ) -> OpenCompactionRegionRequest {
        let job = planned.job();
        OpenCompactionRegionRequest {
            header,
            dir: Some(job.dir.into()),
            schema: Some((&job.schema).into()),
            options: Some((&job.options).into()),
            object_store_id: self.object_store_id.to_string(),
            owner_epoch: Some(ManifestOwnerEpoch {
                move_epoch: owner.epoch.move_epoch,
                term: owner.epoch.term.get(),
            }),
            group_id: owner.group.get(),
            since: job.since.get(),
            // 0: all that the compactor can spare.
            parallelism: 0,
            memory_bytes: 0,
            plugins: self.hook_specs(job.dir.table_id).iter().map(Into::into).collect(),
            table_name: self.table_name(job.dir.table_id),
        }
    }

    fn header(&self, target: NodeId) -> Option<CallHeader> {
        Some(self.sender.header(target))
    }

    fn client(&self, compactor: &Compactor) -> Result<CompactionClient<Channel>, Refusal> {
        let channel = self.channels.to(&compactor.address)?;
        Ok(CompactionClient::new(channel).max_decoding_message_size(MAX_REPLY_BYTES))
    }
}

/// Waits for the reply to a call that reads a manifest.
async fn reply<T>(
    compactor: &Compactor,
    request: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, FailedAttempt> {
    tidewater_rpc::attempt(format!("compactor {}", compactor.node), REPLY_TIMEOUT, request).await
}

/// Returns the outcome of an attempt whose region was not opened or whose plan was not accepted. For
/// some reasons every compactor would refuse the job: its files or its region no longer exist, or
/// another owner has the region.
fn not_accepted(refusal: Refusal) -> AttemptOutcome {
    match refusal.reason {
        Reason::InputsGone | Reason::RegionNotFound | Reason::RegionFenced => {
            AttemptOutcome::Discarded(refusal)
        }
        _ => AttemptOutcome::Refused(refusal),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unaccepted_plan_is_discarded_or_left_to_another_compactor() {
        for reason in [Reason::InputsGone, Reason::RegionNotFound, Reason::RegionFenced] {
            let outcome = not_accepted(Refusal::new(reason, "x"));
            assert!(matches!(outcome, AttemptOutcome::Discarded(_)), "{reason:?}");
        }
        for reason in [Reason::Overloaded, Reason::BadPlugin, Reason::JobExists, Reason::BadPlan] {
            let outcome = not_accepted(Refusal::new(reason, "x"));
            assert!(matches!(outcome, AttemptOutcome::Refused(_)), "{reason:?}");
        }
    }
}
