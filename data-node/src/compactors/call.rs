//! One attempt at a job on a compactor: open the region, have the plan carried out, watch, close.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tidewater_common::ids::{GroupId, ManifestVersion, NodeId, OwnerEpoch};
use tidewater_common::refusal::{Effect, Refusal};
use tidewater_proto::compaction::v1::compaction_client::CompactionClient;
use tidewater_proto::compaction::v1::{self as wire, CompactRequest, OpenCompactionRegionRequest};
use tidewater_proto::v1::{CallHeader, ManifestOwnerEpoch, Reason};
use tidewater_region_engine::compaction::{Attempt, ProgressSnapshot};
use tidewater_region_engine::layout::RegionDir;
use tidewater_region_engine::region::PlannedCompaction;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use super::Compactors;
use super::fleet::Compactor;
use super::watch::Watch;

/// A compactor that is there takes a connection within this.
const CONNECT: Duration = Duration::from_secs(2);
/// Opening a region, or accepting a plan: its manifest is read.
const ANSWER: Duration = Duration::from_secs(10);
/// Closing, and cancelling when nobody waits for it.
pub(super) const FAREWELL: Duration = Duration::from_secs(2);
/// Largest answer: the files of a plan with their footers.
const ANSWER_BYTES: usize = 64 << 20;

/// Connections to compactors, by address.
#[derive(Debug, Default)]
pub(super) struct Channels(Mutex<HashMap<String, Channel>>);

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub struct Asker {
    /// The group that owns the region.
    pub group: GroupId,
    /// In whose name.
    pub owner: OwnerEpoch,
    /// Without any progress for so long, an attempt is given up.
    pub patience: Duration,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq)]
pub enum End {
    /// The outputs are in the manifest.
    Committed {
        /// Since this version, or before.
        version: ManifestVersion,
        /// How many there are.
        files_out: usize,
    },
    /// The compactor did not take it: nothing was done.
    Refused(Refusal),
    /// The compactor took it, and gave it back: nothing was done.
    HandedBack(Refusal),
    /// It can never be committed: its files are gone, or its outputs too old.
    Void(Refusal),
    /// It was cancelled, as was asked for: nothing was done.
    Cancelled(Refusal),
    /// It was begun, and has failed or was not heard of any more. The manifest says whether it was
    /// committed, and it may still be.
    Lost(Refusal),
}

impl Compactors {
    /// Makes one attempt, and reports its progress. A future that is dropped leaves the job to the
    /// compactor.
    pub async fn attempt(
        &self,
        compactor: &Compactor,
        asker: Asker,
        planned: &PlannedCompaction,
        number: u32,
        attempt: &Attempt,
    ) -> End {
        let mut client = match self.client(compactor) {
            Ok(client) => client,
            Err(refusal) => return End::Refused(refusal),
        };
        let header = self.header(compactor.node);
        let opened = client.open_compaction_region(self.opening(header.clone(), asker, planned));
        let handle = match answer(ANSWER, opened).await {
            Ok(opened) => opened.handle,
            // Nothing has begun, whether it was heard or not.
            Err(refusal) => return refused(refusal),
        };
        let request = CompactRequest {
            header: header.clone(),
            handle: handle.clone(),
            plan: Some(planned.plan().into()),
            attempt: number,
        };
        let job_id = planned.plan().job_id.to_string();
        let patience = asker.patience;
        let mut watch = Watch { client: client.clone(), header, job_id, patience, attempt };
        let end = match answer(ANSWER, client.compact(request)).await {
            Ok(events) => watch.run(events).await,
            Err(refusal) if refusal.effect() == Effect::Unknown => {
                // It may have come as far as to begin.
                watch.cancel().await;
                End::Lost(refusal)
            }
            Err(refusal) => refused(refusal),
        };
        let header = self.header(compactor.node);
        let close = wire::CloseCompactionRegionRequest { header, handle };
        // Otherwise it expires.
        let _ = timeout(FAREWELL, client.close_compaction_region(close)).await;
        end
    }

    /// What the jobs of a region that run on a compactor have done; `None`: none runs there, or it does
    /// not answer.
    pub async fn under_way(
        &self,
        compactor: &Compactor,
        dir: RegionDir,
    ) -> Option<Vec<ProgressSnapshot>> {
        let mut client = self.client(compactor).ok()?;
        let header = self.header(compactor.node);
        let asked = client.list_compactions(wire::ListCompactionsRequest { header });
        let running = answer(ANSWER, asked).await.ok()?.jobs.into_iter();
        let of_region = running.filter(|job| job.dir.map(RegionDir::from) == Some(dir));
        let done: Vec<_> = of_region.map(|job| job.done.unwrap_or_default().into()).collect();
        (!done.is_empty()).then_some(done)
    }

    fn opening(
        &self,
        header: Option<CallHeader>,
        asker: Asker,
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
                move_epoch: asker.owner.move_epoch,
                term: asker.owner.term.get(),
            }),
            group_id: asker.group.get(),
            since: job.since.get(),
            // As much as the compactor has to give.
            parallelism: 0,
            memory_bytes: 0,
            plugins: self.plugins(job.dir.table_id).iter().map(Into::into).collect(),
        }
    }

    fn header(&self, target: NodeId) -> Option<CallHeader> {
        Some(CallHeader {
            cluster_id: self.cluster.to_string(),
            source_node: self.node.get(),
            target_node: target.get(),
        })
    }

    fn client(&self, compactor: &Compactor) -> Result<CompactionClient<Channel>, Refusal> {
        let channel = self.channels.get(compactor)?;
        Ok(CompactionClient::new(channel).max_decoding_message_size(ANSWER_BYTES))
    }
}

impl Channels {
    fn get(&self, compactor: &Compactor) -> Result<Channel, Refusal> {
        let address = &compactor.address;
        let mut channels = self.0.lock();
        if let Some(channel) = channels.get(address) {
            return Ok(channel.clone());
        }
        let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|error| {
            let message = format!("address {address} of compactor {}: {error}", compactor.node);
            Refusal::new(Reason::InvalidArgument, message)
        })?;
        let channel = endpoint.connect_timeout(CONNECT).connect_lazy();
        // A compactor has a new id at every start, and often another address.
        if channels.len() >= 256 {
            channels.clear();
        }
        channels.insert(address.clone(), channel.clone());
        Ok(channel)
    }
}

/// What it means that a region was not opened, or a plan not accepted. Some answers would be the same
/// everywhere: the files or the region are gone, or are another owner's to merge.
fn refused(refusal: Refusal) -> End {
    match refusal.reason {
        Reason::InputsGone | Reason::RegionNotFound | Reason::RegionFenced => End::Void(refusal),
        _ => End::Refused(refusal),
    }
}

/// An answer in time; otherwise it is not known whether the call was carried out.
async fn answer<T>(
    limit: Duration,
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, Refusal> {
    match timeout(limit, call).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) if status.code() == Code::Cancelled => {
            Err(Refusal::new(Reason::Unavailable, status.message()))
        }
        Ok(Err(status)) => Err(Refusal::from_status(&status)),
        Err(_) => {
            let message = format!("a compactor did not answer within {limit:?}");
            Err(Refusal::new(Reason::DeadlineExceeded, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_that_is_not_accepted_is_void_or_for_another_compactor() {
        for reason in [Reason::InputsGone, Reason::RegionNotFound, Reason::RegionFenced] {
            assert!(matches!(refused(Refusal::new(reason, "x")), End::Void(_)), "{reason:?}");
        }
        for reason in [Reason::Overloaded, Reason::BadPlugin, Reason::JobExists, Reason::BadPlan] {
            assert!(matches!(refused(Refusal::new(reason, "x")), End::Refused(_)), "{reason:?}");
        }
    }
}
