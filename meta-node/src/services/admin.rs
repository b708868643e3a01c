//! Implementation of the proto service `Admin`.

mod balance;
mod definitions;
mod nodes;
mod reserved;
mod routes;
mod tables;

pub(in crate::services) use self::tables::table_of;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tidewater_cluster_events::RecordedCalls;
use tidewater_common::feature_level::FeatureLevel;
use tidewater_common::ids::{ClusterId, GroupId, NodeId, Term};
use tidewater_common::problem::LastingProblem;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::admin_server::{Admin, AdminServer};
use tidewater_proto::v1::meta_command::Kind;
use tidewater_proto::v1::{self, GroupState, NodeState, ProblemKind, Reason};
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::{MAX_REQUEST_BYTES, MAX_RESPONSE_BYTES, ReplicaSlot, catalog_changes, node_calls};
use crate::catalog::{Group, MetaState};
use crate::commands::{CommandError, NodeCommandError};
use crate::leader::Retention;
use crate::leader::clocks::announced_ms;
use crate::leader::garbage::{self, GarbageEvents};
use crate::leader::levels::LevelStatus;

/// Maximum size of a benchmark command, in bytes.
const MAX_BENCH_BYTES: usize = 1024 * 1024;

/// Administration of the cluster by operators.
#[derive(Debug, Clone)]
pub(crate) struct AdminService {
    slot: ReplicaSlot,
    retention: Retention,
    calls: RecordedCalls,
}

impl AdminService {
    pub(crate) fn new(slot: ReplicaSlot, retention: Retention, calls: RecordedCalls) -> Self {
        Self { slot, retention, calls }
    }

    pub(crate) fn into_server(self) -> AdminServer<Self> {
        AdminServer::new(self)
            .max_decoding_message_size(MAX_REQUEST_BYTES)
            .max_encoding_message_size(MAX_RESPONSE_BYTES)
    }

    /// Returns whether this replica knows a table with this name that holds events.
    fn holds_events(&self, table: &str) -> bool {
        let Ok(running) = self.slot.get() else { return false };
        let state = running.group.view.read();
        state.table_named(table).is_some_and(|table| table.options.holds_events)
    }

    async fn status(&self) -> Result<v1::ClusterStatusResponse, Refusal> {
        let running = self.slot.get()?;
        let term = running.group.check_leading()?;
        running.group.linearize().await?;
        let problems = running.problems.find().await?;
        let recent = running.observations.releases.recent(Instant::now());
        let group = running.group;
        let members = group.members();
        // Takes time for every node and group.
        let response = spawn_blocking(move || {
            let state = group.view.read();
            let (cluster, leader) = (group.cluster_id, group.node_id);
            let levels = LevelStatus::new(&state, &recent, FeatureLevel::HIGHEST);
            describe_cluster(&state, cluster, leader, term, &members, &problems, &levels)
        });
        response.await.map_err(|error| {
            Refusal::new(Reason::Internal, format!("the cluster was not described: {error}"))
        })
    }

    async fn collect_garbage_for(
        &self,
        request: v1::CollectGarbageRequest,
    ) -> Result<GarbageEvents, Refusal> {
        let running = self.slot.get()?;
        running.group.check_leading()?;
        running.group.linearize().await?;
        let state = running.group.view.read();
        let table = request.table.map(|name| match state.table_named(&name) {
            Some(table) => Ok(table.id.get()),
            None => Err(Refusal::new(
                Reason::TableNotFound,
                format!(
                    "table {name:?} does not exist; to collect the objects of a dropped table, collect \
                     all tables"
                ),
            )),
        });
        let table = table.transpose()?;
        let retention = self.retention;
        let events =
            garbage::begin(&running.control, &state, retention, request.dry_run, table).await?;
        if table.is_some() {
            return Ok(Box::pin(events));
        }
        Ok(garbage::recorded(events, running.observations))
    }

    async fn change_member(
        &self,
        request: v1::ChangeMetaMemberRequest,
    ) -> Result<v1::ChangeMetaMemberResponse, Refusal> {
        let running = self.slot.get()?;
        running.group.check_leading()?;
        running.group.linearize().await?;
        // The leader would repeat a step that an operator reverses.
        if let Some(known) = running.group.view.read().member_replacement() {
            let (old, new) = (known.old, known.new);
            let error = NodeCommandError::ReplacementInProgress { old, new };
            return Err(CommandError::Node(error).into());
        }
        let members = running.group.change_member(request).await?.members;
        Ok(v1::ChangeMetaMemberResponse { members })
    }

    async fn replace_member(&self, request: v1::ReplaceMetaMemberRequest) -> Result<(), Refusal> {
        let running = self.slot.get()?;
        running.propose_at_level(Kind::ReplaceMetaMember(request)).await?;
        Ok(())
    }

    async fn transfer(&self, request: v1::TransferGroupLeaderRequest) -> Result<(), Refusal> {
        let running = self.slot.get()?;
        let group = GroupId(request.group_id);
        let to = NodeId(request.to_node);
        if group == GroupId::META {
            return running.group.transfer_to(to).await;
        }
        running.group.check_leading()?;
        let leader = {
            let state = running.group.view.read();
            let known = state.group(group).ok_or_else(|| {
                let text = format!("group {group} does not exist");
                Refusal::new(Reason::GroupNotFound, text)
                    .catalog_hint(catalog_changes::hint(&state))
            })?;
            if !known.voters.contains(&to) {
                return Err(Refusal::new(
                    Reason::MemberNotFound,
                    format!("node {to} is not a voter of group {group}"),
                ));
            }
            running.observations.leader_of(group).or(known.leader)
        };
        let leader = leader.ok_or_else(|| {
            Refusal::new(Reason::Unavailable, format!("group {group} has no leader"))
                .retry_after(Duration::from_secs(1))
        })?;
        let transfer =
            v1::TransferLeaderRequest { header: None, group_id: group.get(), to_node: to.get() };
        running.control.transfer_leader(leader, transfer).await
    }
}

fn saturating_u32(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Describes the cluster as its meta leader knows it.
fn describe_cluster(
    state: &MetaState,
    cluster_id: ClusterId,
    leader: NodeId,
    term: Term,
    members: &v1::ListMetaMembersResponse,
    problems: &[LastingProblem],
    levels: &LevelStatus,
) -> v1::ClusterStatusResponse {
    let leaderless = problems.iter().map(|lasting| &lasting.problem);
    let leaderless = leaderless.filter(|problem| problem.kind == ProblemKind::GroupWithoutLeader);
    let leaderless: BTreeSet<_> = leaderless.filter_map(|problem| problem.subject.group).collect();
    let groups = state.live_groups();
    let groups = groups.map(|group| with_current_leader(group, &leaderless));
    let nodes = state.nodes().filter(|node| node.state != NodeState::Removed);
    v1::ClusterStatusResponse {
        cluster_id: cluster_id.to_string(),
        revision: state.header().revision.get(),
        catalog_version: state.catalog_version().get(),
        leader: leader.get(),
        term: term.get(),
        healthy: problems.is_empty(),
        problems: problems.iter().map(|lasting| lasting.problem.detail.clone()).collect(),
        problem_details: problems.iter().map(v1::Problem::from).collect(),
        time_ms: announced_ms(state.header().time_ms),
        nodes: nodes.map(|node| node.as_ref().into()).collect(),
        groups: std::iter::once(group_0(members, term.get())).chain(groups).collect(),
        tables: saturating_u32(state.tables().filter(|table| table.is_named()).count()),
        regions: saturating_u32(state.route_count()),
        feature_level: levels.level.get(),
        next_feature_level: levels.next.map_or(0, FeatureLevel::get),
        releases: levels.nodes.iter().map(Into::into).collect(),
    }
}

/// Describes a data group. A leader that no longer reports is not shown: the record may be old.
fn with_current_leader(group: &Group, leaderless: &BTreeSet<GroupId>) -> v1::Group {
    let mut shown = v1::Group::from(group);
    if leaderless.contains(&group.id) {
        shown.leader = 0;
    }
    shown
}

/// Describes the meta group in the form of a data group.
fn group_0(members: &v1::ListMetaMembersResponse, term: u64) -> v1::Group {
    let ids = |voter: bool| {
        members.members.iter().filter(|m| m.voter == voter).map(|m| m.node_id).collect::<Vec<_>>()
    };
    v1::Group {
        group_id: GroupId::META.get(),
        state: GroupState::Active.into(),
        first_members: Vec::new(),
        voters: ids(true),
        learners: ids(false),
        membership_term: members.membership_term,
        membership_index: members.membership_index,
        leader: members.members.iter().find(|m| m.leader).map_or(0, |m| m.node_id),
        leader_term: term,
        retiring: false,
    }
}

#[tonic::async_trait]
impl Admin for AdminService {
    async fn create_table(
        &self,
        request: Request<v1::CreateTableRequest>,
    ) -> Result<Response<v1::CreateTableResponse>, Status> {
        let mut call = self.calls.begin(&request);
        if node_calls::creates_event_table(request.get_ref()) {
            call.forget();
        }
        Ok(Response::new(call.end(self.create(request.into_inner()).await)?))
    }

    async fn drop_table(
        &self,
        request: Request<v1::DropTableRequest>,
    ) -> Result<Response<v1::DropTableResponse>, Status> {
        let call = self.calls.begin(&request);
        Ok(Response::new(call.end(self.drop_table_of(request.into_inner()).await)?))
    }

    async fn alter_table(
        &self,
        request: Request<v1::AlterTableRequest>,
    ) -> Result<Response<v1::AlterTableResponse>, Status> {
        let mut call = self.calls.begin(&request);
        let holds_events = self.holds_events(&request.get_ref().name);
        if node_calls::adds_event_columns(request.get_ref(), holds_events) {
            call.forget();
        }
        Ok(Response::new(call.end(self.alter(request.into_inner()).await)?))
    }

    async fn truncate_table(
        &self,
        request: Request<v1::TruncateTableRequest>,
    ) -> Result<Response<v1::TruncateTableResponse>, Status> {
        let call = self.calls.begin(&request);
        Ok(Response::new(call.end(self.truncate(request.into_inner()).await)?))
    }

    async fn split_route(
        &self,
        request: Request<v1::SplitRouteRequest>,
    ) -> Result<Response<v1::SplitRouteResponse>, Status> {
        let call = self.calls.begin(&request);
        Ok(Response::new(call.end(self.split(request.into_inner()).await)?))
    }

    async fn merge_routes(
        &self,
        request: Request<v1::MergeRoutesRequest>,
    ) -> Result<Response<v1::MergeRoutesResponse>, Status> {
        let call = self.calls.begin(&request);
        Ok(Response::new(call.end(self.merge(request.into_inner()).await)?))
    }

    async fn move_route(
        &self,
        request: Request<v1::MoveRouteRequest>,
    ) -> Result<Response<v1::MoveRouteResponse>, Status> {
        let call = self.calls.begin(&request);
        Ok(Response::new(call.end(self.move_to_group(request.into_inner()).await)?))
    }

    async fn reserve_table(
        &self,
        request: Request<v1::ReserveTableRequest>,
    ) -> Result<Response<v1::ReserveTableResponse>, Status> {
        let call = self.calls.begin(&request);
        Ok(Response::new(call.end(self.reserve(request.into_inner()).await)?))
    }

    async fn save_routes(
        &self,
        request: Request<v1::SaveRoutesRequest>,
    ) -> Result<Response<v1::SaveRoutesResponse>, Status> {
        let call = self.calls.begin(&request);
        Ok(Response::new(call.end(self.save(request.into_inner()).await)?))
    }

    async fn open_table(
        &self,
        request: Request<v1::OpenTableRequest>,
    ) -> Result<Response<v1::OpenTableResponse>, Status> {
        let call = self.calls.begin(&request);
        Ok(Response::new(call.end(self.open(request.into_inner()).await)?))
    }

    async fn clone_table(
        &self,
        request: Request<v1::CloneTableRequest>,
    ) -> Result<Response<v1::CloneTableResponse>, Status> {
        let call = self.calls.begin(&request);
        Ok(Response::new(call.end(self.clone_table_of(request.into_inner()).await)?))
    }

    async fn begin_load(
        &self,
        request: Request<v1::BeginLoadRequest>,
    ) -> Result<Response<v1::BeginLoadResponse>, Status> {
        Ok(Response::new(self.begin_load_of(request.into_inner()).await?))
    }

    async fn end_load(
        &self,
        request: Request<v1::EndLoadRequest>,
    ) -> Result<Response<v1::EndLoadResponse>, Status> {
        Ok(Response::new(self.end_load_of(request.into_inner()).await?))
    }

    type CollectGarbageStream = GarbageEvents;

    async fn collect_garbage(
        &self,
        request: Request<v1::CollectGarbageRequest>,
    ) -> Result<Response<Self::CollectGarbageStream>, Status> {
        if request.get_ref().dry_run {
            return Ok(Response::new(self.collect_garbage_for(request.into_inner()).await?));
        }
        let call = self.calls.begin(&request);
        let events = call.end(self.collect_garbage_for(request.into_inner()).await)?;
        let recorder = Arc::clone(self.calls.recorder());
        Ok(Response::new(garbage::with_event(events, recorder)))
    }

    async fn cluster_status(
        &self,
        _request: Request<v1::ClusterStatusRequest>,
    ) -> Result<Response<v1::ClusterStatusResponse>, Status> {
        Ok(Response::new(self.status().await?))
    }

    async fn list_meta_members(
        &self,
        _request: Request<v1::ListMetaMembersRequest>,
    ) -> Result<Response<v1::ListMetaMembersResponse>, Status> {
        let running = self.slot.get()?;
        running.group.check_leading()?;
        // A new leader may have yet to apply the begin of a replacement.
        running.group.linearize().await?;
        let replacement = running.group.view.read().member_replacement().map(Into::into);
        Ok(Response::new(v1::ListMetaMembersResponse { replacement, ..running.group.members() }))
    }

    async fn change_meta_member(
        &self,
        request: Request<v1::ChangeMetaMemberRequest>,
    ) -> Result<Response<v1::ChangeMetaMemberResponse>, Status> {
        let call = self.calls.begin(&request);
        Ok(Response::new(call.end(self.change_member(request.into_inner()).await)?))
    }

    async fn replace_meta_member(
        &self,
        request: Request<v1::ReplaceMetaMemberRequest>,
    ) -> Result<Response<v1::ReplaceMetaMemberResponse>, Status> {
        let call = self.calls.begin(&request);
        call.end(self.replace_member(request.into_inner()).await)?;
        Ok(Response::new(v1::ReplaceMetaMemberResponse {}))
    }

    async fn transfer_group_leader(
        &self,
        request: Request<v1::TransferGroupLeaderRequest>,
    ) -> Result<Response<v1::TransferGroupLeaderResponse>, Status> {
        let call = self.calls.begin(&request);
        call.end(self.transfer(request.into_inner()).await)?;
        Ok(Response::new(v1::TransferGroupLeaderResponse {}))
    }

    async fn drain_node(
        &self,
        request: Request<v1::DrainNodeRequest>,
    ) -> Result<Response<v1::DrainNodeResponse>, Status> {
        let mut call = self.calls.begin(&request);
        let drained = self.drain(request.into_inner(), &mut call).await;
        Ok(Response::new(call.end(drained)?))
    }

    async fn remove_node(
        &self,
        request: Request<v1::RemoveNodeRequest>,
    ) -> Result<Response<v1::RemoveNodeResponse>, Status> {
        let call = self.calls.begin(&request);
        Ok(Response::new(call.end(self.remove(request.into_inner()).await)?))
    }

    async fn advise_routes(
        &self,
        _request: Request<v1::AdviseRoutesRequest>,
    ) -> Result<Response<v1::AdviseRoutesResponse>, Status> {
        Ok(Response::new(self.advise().await?))
    }

    async fn get_balance(
        &self,
        _request: Request<v1::GetBalanceRequest>,
    ) -> Result<Response<v1::GetBalanceResponse>, Status> {
        Ok(Response::new(self.balance().await?))
    }

    async fn set_balance(
        &self,
        request: Request<v1::SetBalanceRequest>,
    ) -> Result<Response<v1::SetBalanceResponse>, Status> {
        let call = self.calls.begin(&request);
        Ok(Response::new(call.end(self.change_balance(request.into_inner()).await)?))
    }

    async fn bench_command(
        &self,
        request: Request<v1::BenchCommandRequest>,
    ) -> Result<Response<v1::BenchCommandResponse>, Status> {
        let value = request.into_inner().value;
        if value.len() > MAX_BENCH_BYTES {
            let length = value.len();
            let text =
                format!("a command of {length} bytes is too large (maximum {MAX_BENCH_BYTES})");
            return Err(Refusal::new(Reason::MessageTooLarge, text).into());
        }
        let log_index = self.slot.get()?.group.bench(value).await?;
        Ok(Response::new(v1::BenchCommandResponse { log_index }))
    }
}
