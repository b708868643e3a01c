//! Implementation of the proto service `RefreshAdmin`: refreshes, for operators.

use bytes::Bytes;
use futures::stream::{self, StreamExt};
use prost::Message;
use tidewater_cluster_events::RecordedCalls;
use tidewater_common::ids::{Generation, NodeId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::refresh_admin_server::{RefreshAdmin, RefreshAdminServer};
use tidewater_proto::v1::{
    self, AbandonCause, MergeProgress, Reason, RefreshInfo, meta_command::Kind,
};
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::{MAX_REQUEST_BYTES, ReplicaSlot, RunningReplica};
use crate::catalog::{MetaState, Procedure, Refreshes};
use crate::catalog_events::refresh_phase;
use crate::commands::CommandError;
use crate::commands::procedures::refresh::{area, plan, running_of, steps};
use crate::commands::refreshes::{REFRESH_LEVEL, named};

/// Regions that are asked for their progress at a time.
const CONCURRENT_REGIONS: usize = 16;
/// Maximum number of regions whose progress is shown.
const MAX_MERGES: usize = 1_000;

/// Begins, describes, cancels and alters refreshes.
#[derive(Debug, Clone)]
pub(crate) struct RefreshService {
    slot: ReplicaSlot,
    calls: RecordedCalls,
}

impl RefreshService {
    pub(crate) fn new(slot: ReplicaSlot, calls: RecordedCalls) -> Self {
        Self { slot, calls }
    }

    pub(crate) fn into_server(self) -> RefreshAdminServer<Self> {
        RefreshAdminServer::new(self).max_decoding_message_size(MAX_REQUEST_BYTES)
    }

    /// Begins a refresh, and returns its generation. A repeated request returns the same.
    async fn start(&self, request: v1::RefreshRequest) -> Result<Generation, Refusal> {
        let running = self.slot.get()?;
        let level = running.group.view.read().header().feature_level;
        if level < REFRESH_LEVEL {
            return Err(CommandError::FeatureLevel { needed: REFRESH_LEVEL, level }.into());
        }
        let id = Uuid::parse_str(&request.request_id).map_err(|_| {
            Refusal::new(Reason::InvalidArgument, "the request id of a refresh is not a UUID")
        })?;
        let begin = v1::BeginProcedure {
            id: Bytes::copy_from_slice(id.as_bytes()),
            kind: v1::ProcedureKind::Refresh as u32,
            arguments: request.encode_to_vec().into(),
        };
        running.group.propose(Kind::BeginProcedure(begin)).await?;
        let state = running.group.view.read();
        let procedure = state.procedures().get(id);
        let procedure = procedure.ok_or_else(|| {
            Refusal::new(Reason::Internal, "the refresh that was begun is not in the catalog")
        })?;
        // A repeated request may name a refresh that has ended, whose plan is gone.
        let generation = match plan(procedure)?.generation {
            0 => state.refreshes_of(procedure.table).map_or(0, |of| generation_of(of, id)),
            generation => generation,
        };
        Ok(Generation(generation))
    }

    async fn describe(
        &self,
        request: &v1::GetRefreshesRequest,
    ) -> Result<v1::GetRefreshesResponse, Refusal> {
        let running = self.slot.get()?;
        running.group.linearize().await?;
        let state = running.group.view.read();
        let selected: Vec<&Refreshes> = if request.table.is_empty() {
            state.refreshes().map(AsRef::as_ref).collect()
        } else {
            vec![named(&state, &request.table)?.1]
        };
        let mut refreshes = Vec::with_capacity(selected.len());
        for of_table in selected {
            let mut info = info(&running, &state, of_table);
            if let Some(procedure) = running_of(&state, of_table.table)
                && request.with_progress
                && matches!(procedure.step, steps::MERGE | steps::PUBLISH)
            {
                info.merges = merges(&running, &state, procedure).await;
            }
            refreshes.push(info);
        }
        refreshes.sort_by(|one, other| one.table.cmp(&other.table));
        Ok(v1::GetRefreshesResponse { refreshes })
    }

    async fn cancel(&self, request: &v1::CancelRefreshRequest) -> Result<Generation, Refusal> {
        let running = self.slot.get()?;
        running.group.linearize().await?;
        let state = running.group.view.read();
        let (table, _) = named(&state, &request.table)?;
        let Some(procedure) = running_of(&state, table.id) else { return Ok(Generation(0)) };
        let generation = plan(procedure)?.generation;
        if request.generation != 0 && request.generation != generation {
            return Ok(Generation(0));
        }
        let abandon = v1::AbandonProcedure {
            id: Bytes::copy_from_slice(procedure.id.as_bytes()),
            number: procedure.number,
            cause: AbandonCause::Operator.into(),
            step: procedure.step,
        };
        running.group.propose(Kind::AbandonProcedure(abandon)).await?;
        Ok(Generation(generation))
    }

    async fn alter(&self, request: v1::AlterRefreshRequest) -> Result<(), Refusal> {
        self.slot.get()?.propose_at_level(Kind::AlterRefresh(request)).await?;
        Ok(())
    }
}

fn info(running: &RunningReplica, state: &MetaState, refreshes: &Refreshes) -> RefreshInfo {
    let table = state.table(refreshes.table);
    let procedure = running_of(state, refreshes.table);
    RefreshInfo {
        table: table.map(|table| table.name.clone()).unwrap_or_default(),
        record: Some(refreshes.into()),
        source: state.source(refreshes.source).map(|source| source.as_ref().into()),
        published_epoch: table.map_or(0, |table| table.published.get()),
        state: procedure.map_or("idle", refresh_phase).to_owned(),
        load: procedure.filter(|procedure| procedure.step == steps::LOAD).and_then(|_| {
            running.observations.loads_of_sources.lock().get(&refreshes.table).copied()
        }),
        merges: Vec::new(),
        failure: procedure.and_then(|procedure| v1::ProcedureRecord::from(procedure).failure),
    }
}

/// Returns the generation of an ended refresh; that of the last one if it is not kept.
fn generation_of(refreshes: &Refreshes, id: Uuid) -> u64 {
    let run = refreshes.history.iter().find(|run| run.request_id == id.as_bytes()[..]);
    run.map_or(refreshes.generation.get(), |run| run.generation)
}

/// Returns the progress of the regions that answer.
async fn merges(
    running: &RunningReplica,
    state: &MetaState,
    procedure: &Procedure,
) -> Vec<MergeProgress> {
    let routes = state.routes_of(procedure.table).take(MAX_MERGES);
    let calls = routes.filter_map(|route| {
        let observed = running.observations.leader_of(route.group_id);
        let recorded = || state.group(route.group_id).and_then(|group| group.leader);
        let leader: NodeId = observed.or_else(recorded)?;
        let request = v1::MergeRegionRequest {
            group_id: route.group_id.get(),
            region_id: route.route_id.get(),
            area_id: area(procedure),
            observe: true,
            ..v1::MergeRegionRequest::default()
        };
        Some((leader, request))
    });
    let calls: Vec<_> = calls.collect();
    let progress = |(leader, request): (NodeId, v1::MergeRegionRequest)| async move {
        let region_id = request.region_id;
        let merge = running.control.merge_region(leader, request).await.ok()?.merge;
        Some(MergeProgress { region_id, merge })
    };
    let mut merges: Vec<_> = stream::iter(calls)
        .map(progress)
        .buffer_unordered(CONCURRENT_REGIONS)
        .filter_map(|merge| async { merge })
        .collect()
        .await;
    merges.sort_by_key(|merge| merge.region_id);
    merges
}

#[tonic::async_trait]
impl RefreshAdmin for RefreshService {
    async fn start_refresh(
        &self,
        request: Request<v1::RefreshRequest>,
    ) -> Result<Response<v1::RefreshResponse>, Status> {
        let call = self.calls.begin(&request);
        let generation = call.end(self.start(request.into_inner()).await)?;
        Ok(Response::new(v1::RefreshResponse { generation: generation.get() }))
    }

    async fn get_refreshes(
        &self,
        request: Request<v1::GetRefreshesRequest>,
    ) -> Result<Response<v1::GetRefreshesResponse>, Status> {
        Ok(Response::new(self.describe(request.get_ref()).await?))
    }

    async fn cancel_refresh(
        &self,
        request: Request<v1::CancelRefreshRequest>,
    ) -> Result<Response<v1::CancelRefreshResponse>, Status> {
        let call = self.calls.begin(&request);
        let generation = call.end(self.cancel(request.get_ref()).await)?;
        Ok(Response::new(v1::CancelRefreshResponse { generation: generation.get() }))
    }

    async fn alter_refresh(
        &self,
        request: Request<v1::AlterRefreshRequest>,
    ) -> Result<Response<v1::AlterRefreshResponse>, Status> {
        let call = self.calls.begin(&request);
        call.end(self.alter(request.into_inner()).await)?;
        Ok(Response::new(v1::AlterRefreshResponse {}))
    }
}
