//! Service `Barriers`: begins epochs in the groups that this node leads.
//!
//! The meta leader's scheduler sends one call for all of them. A group that does not answer in time keeps its slot until
//! its proposal has ended: at most one barrier of a group waits, and none of them delays the other groups.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tidewater_common::header::check_header;
use tidewater_common::ids::{Epoch, GroupId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::barriers_server::{Barriers, BarriersServer};
use tidewater_proto::v1::{
    BarrierTarget, GroupBarrier, GroupEpoch, InjectBarrierRequest, InjectBarrierResponse, Reason,
};
use tonic::{Request, Response, Status};

use crate::control::count_contradiction;
use crate::group::entry::{self, EntryOutcome};
use crate::group::refusals;
use crate::group::replica::GroupReplica;
use crate::group::table_sinces::TableSinces;
use crate::groups::Groups;

/// Largest request, in bytes: a million groups, or as many held tables.
const REQUEST_BYTES: usize = 64 << 20;
/// Longest wait for the groups of a call. Those that have not applied the barrier are reported with their epoch.
const APPLY_WITHIN: Duration = Duration::from_millis(500);
/// Longest time for which a proposal keeps the slot of its group.
const SLOT_TIMEOUT: Duration = Duration::from_secs(10);
/// Greatest distance of an epoch from this node's view of the cluster's time, in milliseconds. An epoch never goes back:
/// a later one than that would end all writes in time.
const MAX_AHEAD_MS: u64 = 600_000;

/// The gRPC service `Barriers` of a node.
#[derive(Debug, Clone)]
pub struct BarrierService {
    groups: Arc<Groups>,
}

impl BarrierService {
    /// Creates the service for a node's groups.
    pub fn new(groups: Arc<Groups>) -> Self {
        Self { groups }
    }

    /// Wraps the service for tonic.
    pub fn into_server(self) -> BarriersServer<Self> {
        BarriersServer::new(self).max_decoding_message_size(REQUEST_BYTES)
    }

    /// Begins the epoch in the groups of the request, all at the same time.
    async fn inject(
        &self,
        request: InjectBarrierRequest,
    ) -> Result<InjectBarrierResponse, Refusal> {
        let node = self.groups.context();
        check_header(node.cluster, node.node, request.header.as_ref())?;
        let epoch = Epoch(request.epoch);
        check_ahead(epoch, node.env.clock.now_ms())?;
        let sinces = TableSinces::new(&request.tables, epoch);
        let applied = request.groups.iter().filter_map(|target: &BarrierTarget| {
            let replica = self.groups.get(GroupId(target.group_id)).ok()?;
            let barrier = GroupBarrier {
                previous: target.previous,
                epoch: epoch.get(),
                since: request.since,
                tables: Vec::new(),
            };
            Some(apply(replica, barrier, &sinces))
        });
        Ok(InjectBarrierResponse { groups: join_all(applied).await })
    }
}

#[tonic::async_trait]
impl Barriers for BarrierService {
    async fn inject_barrier(
        &self,
        request: Request<InjectBarrierRequest>,
    ) -> Result<Response<InjectBarrierResponse>, Status> {
        let injected = self.inject(request.into_inner()).await;
        injected.map(Response::new).map_err(|problem| {
            count_contradiction("inject_barrier", &problem);
            problem.into()
        })
    }
}

/// Checks an epoch against the cluster's time.
fn check_ahead(epoch: Epoch, now_ms: u64) -> Result<(), Refusal> {
    let begin_ms = epoch.ms().unwrap_or_default();
    if begin_ms <= now_ms.saturating_add(MAX_AHEAD_MS) {
        return Ok(());
    }
    let text = format!(
        "epoch {epoch} begins at {begin_ms} ms, far ahead of this node's clock ({now_ms} ms): compare the clocks of the \
         nodes"
    );
    Err(Refusal::new(Reason::InvalidArgument, text))
}

/// Proposes a barrier, with the oldest readable epochs that have an effect in the group, and waits until this replica has
/// applied it, or for [`APPLY_WITHIN`].
async fn apply(
    replica: Arc<GroupReplica>,
    barrier: GroupBarrier,
    sinces: &TableSinces,
) -> GroupEpoch {
    let group_id = replica.group().get();
    if !replica.leadership().is_leader {
        return GroupEpoch { group_id, epoch: 0, refused: Reason::NotLeader.into() };
    }
    let reached = replica.shared.epoch().get();
    if barrier.previous != reached {
        // Without an effect on the group: a new meta leader does not know its epoch.
        let is_incomplete = reached < barrier.epoch;
        let refused = if is_incomplete { Reason::EpochIncomplete } else { Reason::Unspecified };
        return GroupEpoch { group_id, epoch: reached, refused: refused.into() };
    }
    let tables = sinces.for_group(&replica.shared.state.read());
    let barrier = GroupBarrier { tables, ..barrier };
    let refused = match tokio::time::timeout(APPLY_WITHIN, propose(&replica, barrier)).await {
        Ok(Ok(EntryOutcome::Done { .. })) => Reason::Unspecified,
        Ok(Ok(EntryOutcome::Refused { reason, .. })) => reason,
        Ok(Err(refusal)) => refusal.reason,
        Err(_) => Reason::DeadlineExceeded,
    };
    GroupEpoch { group_id, epoch: replica.shared.epoch().get(), refused: refused.into() }
}

async fn propose(
    replica: &Arc<GroupReplica>,
    barrier: GroupBarrier,
) -> Result<EntryOutcome, Refusal> {
    let group = replica.group();
    let slot = replica.barrier_slot.clone().try_acquire_owned();
    let slot = slot.map_err(|_| refusals::deadline_exceeded("an earlier barrier", group))?;
    let proposing = replica.clone();
    let proposal = replica.tasks.spawn(async move {
        let _slot = slot;
        proposing.propose(entry::barrier(barrier), SLOT_TIMEOUT).await
    });
    // The task ends with its replica.
    proposal.await.unwrap_or_else(|_| Err(refusals::leadership_lost(group)))
}

#[cfg(test)]
mod tests {
    use tidewater_common::feature_level::FeatureLevel;
    use tidewater_common::header::CallSender;
    use tidewater_common::ids::{NodeId, RegionId, Sequence};
    use tidewater_common::schema::TableOptions;
    use tidewater_proto::v1::{RegionDescriptor, TableSince};

    use super::*;
    use crate::group::testing::{options, region};
    use crate::groups::tests::{GROUP, members, node, stop, until};

    #[tokio::test(flavor = "multi_thread")]
    async fn barrier_carries_since_of_named_tables() {
        let directory = tempfile::tempdir().unwrap();
        let groups = node(directory.path());
        let replica = groups.start(GROUP).await.unwrap();
        groups.initialize(&replica, members()).await.unwrap();
        groups.context().cluster_level.send_replace(FeatureLevel::HIGHEST);
        let is_raised = async || replica.shared.level() == FeatureLevel::HIGHEST;
        until("the group is raised", is_raised).await;
        let options = TableOptions { explicit_since: true, ..options() };
        let wire = RegionDescriptor { options: Some((&options).into()), ..region(7, None, None) };
        let opened = entry::opened(wire, Sequence(0));
        replica.propose(opened, SLOT_TIMEOUT).await.unwrap().into_result().unwrap();

        let service = BarrierService::new(groups.clone());
        let context = groups.context();
        let sender = CallSender { cluster: context.cluster, node: NodeId(1) };
        for (previous, epoch, named, expected) in [(0, 100, 40, 40), (100, 200, 30, 40)] {
            let request = InjectBarrierRequest {
                header: Some(sender.header(context.node)),
                epoch,
                since: epoch,
                groups: vec![BarrierTarget { group_id: GROUP.get(), previous }],
                tables: [3, 4].map(|table_id| TableSince { table_id, since: named }).to_vec(),
            };
            // On a busy machine, the call ends before the barrier is applied.
            until("the barrier is applied", async || {
                service.inject(request.clone()).await.unwrap();
                replica.shared.epoch() == Epoch(epoch)
            })
            .await;
            let readable = replica.shared.state.read().readable_epochs(RegionId(7));
            assert_eq!(readable, Some((Epoch(expected), Epoch(epoch))));
        }
        drop((service, replica));
        stop(groups).await;
    }

    #[test]
    fn epoch_far_ahead_of_the_clock_is_refused() {
        let now_ms = 1_800_000_000_000;
        for (ms, expected) in [(0, true), (now_ms, true), (now_ms + MAX_AHEAD_MS, true)] {
            assert_eq!(check_ahead(Epoch::at_ms(ms), now_ms).is_ok(), expected);
        }
        let refused = check_ahead(Epoch::at_ms(now_ms + MAX_AHEAD_MS + 1), now_ms).unwrap_err();
        assert_eq!(refused.reason, Reason::InvalidArgument);
        assert!(refused.message.contains("compare the clocks"), "{refused}");
        assert!(check_ahead(Epoch(u64::MAX), now_ms).is_err());
    }
}
