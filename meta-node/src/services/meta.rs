//! Implementation of the proto service `Meta`.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use parking_lot::Mutex;
use tidewater_common::ids::NodeId;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::meta_server::{Meta, MetaServer};
use tidewater_proto::v1::{self, NodeRole, NodeState, Reason, meta_command::Kind, meta_reply};
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::registration::{self, RegistrationRate};
use super::{MAX_REQUEST_BYTES, MAX_RESPONSE_BYTES, ReplicaSlot, RunningReplica, watch};
use crate::catalog::{MetaState, Node};
use crate::join::Joiner;

/// Maximum number of groups in one heartbeat.
const MAX_GROUPS: usize = 10_000;

/// Registration, heartbeats, the catalog, and the join handshake.
#[derive(Debug, Clone)]
pub(crate) struct MetaService {
    slot: ReplicaSlot,
    joiner: Arc<Joiner>,
    rate: Arc<Mutex<RegistrationRate>>,
}

impl MetaService {
    pub(crate) fn new(slot: ReplicaSlot, joiner: Arc<Joiner>) -> Self {
        let rate = Arc::new(Mutex::new(RegistrationRate::new(Instant::now())));
        Self { slot, joiner, rate }
    }

    pub(crate) fn into_server(self) -> MetaServer<Self> {
        MetaServer::new(self)
            .max_decoding_message_size(MAX_REQUEST_BYTES)
            .max_encoding_message_size(MAX_RESPONSE_BYTES)
    }

    async fn register(
        &self,
        request: v1::RegisterRequest,
    ) -> Result<v1::RegisterResponse, Refusal> {
        let running = self.slot.get()?;
        running.group.check_leading()?;
        self.limit_registrations(&running, &request)?;
        let data = request.role == i32::from(NodeRole::Data);
        let command = v1::RegisterNode {
            directory_id: request.directory_id,
            role: request.role,
            address: request.address,
            cluster_id: request.cluster_id,
            node_id: request.node_id,
            object_store_id: request.object_store_id,
        };
        let reply = running.group.propose(Kind::RegisterNode(command)).await?;
        let Some(meta_reply::Outcome::NodeId(node_id)) = reply.outcome else {
            return Err(Refusal::new(Reason::Internal, "the registration returned no node id"));
        };
        running.observations.record_registration(NodeId(node_id), data, Instant::now());
        let incarnation = running.group.view.read().header().incarnation.get();
        Ok(v1::RegisterResponse {
            cluster_id: running.group.cluster_id.to_string(),
            node_id,
            incarnation,
        })
    }

    fn limit_registrations(
        &self,
        running: &RunningReplica,
        request: &v1::RegisterRequest,
    ) -> Result<(), Refusal> {
        let now = Instant::now();
        let silent_for = running.observations.snapshot_silence(now);
        let state = running.group.view.read();
        registration::check(&state, request, &silent_for)?;
        self.rate.lock().take(&state, request, now)
    }

    fn heartbeat(&self, request: &v1::HeartbeatRequest) -> Result<v1::HeartbeatResponse, Refusal> {
        let running = self.slot.get()?;
        running.group.check_leading()?;
        let ours = running.group.cluster_id.to_string();
        if request.cluster_id != ours {
            return Err(Refusal::new(
                Reason::WrongCluster,
                format!(
                    "node {} belongs to cluster {:?}, this is {ours}",
                    request.node_id, request.cluster_id
                ),
            ));
        }
        let count = request.groups.len();
        if count > MAX_GROUPS {
            return Err(Refusal::new(
                Reason::InvalidArgument,
                format!("{count} groups in one heartbeat are too many (maximum {MAX_GROUPS})"),
            ));
        }
        let state = running.group.view.read();
        let removed = || {
            Refusal::new(
                Reason::NodeRemoved,
                format!("node {} was removed from the cluster", request.node_id),
            )
        };
        if state.is_forgotten(NodeId(request.node_id)) {
            return Err(removed());
        }
        let node = state
            .node(NodeId(request.node_id))
            .filter(|node| node.role != NodeRole::Meta)
            .ok_or_else(|| {
            Refusal::new(
                Reason::NodeNotFound,
                format!("node {} is not registered in this cluster", request.node_id),
            )
        })?;
        if node.state == NodeState::Removed {
            return Err(removed());
        }
        let now = Instant::now();
        running.observations.record_heartbeat(request, now);
        let compactors = match node.role {
            NodeRole::Data => compactors_up(&state, &running.observations.compactors(now)),
            _ => Vec::new(),
        };
        Ok(v1::HeartbeatResponse { revision: state.header().revision.get(), compactors })
    }

    async fn catalog(&self) -> Result<v1::CatalogSnapshot, Refusal> {
        let running = self.slot.get()?;
        running.group.linearize().await?;
        let state = running.group.view.frozen();
        Ok(state.catalog_snapshot())
    }
}

/// Returns the compactors that data nodes may offload to, in order of id.
fn compactors_up(
    state: &MetaState,
    loads: &BTreeMap<NodeId, v1::CompactorLoad>,
) -> Vec<v1::CompactorInfo> {
    let to_info = |(id, load): (&NodeId, &v1::CompactorLoad)| {
        let is_up =
            |node: &&Arc<Node>| node.role == NodeRole::Compactor && node.state == NodeState::Up;
        let node = state.node(*id).filter(is_up)?;
        let address = node.address.clone();
        Some(v1::CompactorInfo { node_id: id.get(), address, load: Some(load.clone()) })
    };
    loads.iter().filter_map(to_info).collect()
}

type EventStream = Pin<Box<dyn Stream<Item = Result<v1::WatchEvent, Status>> + Send>>;

#[tonic::async_trait]
impl Meta for MetaService {
    async fn register(
        &self,
        request: Request<v1::RegisterRequest>,
    ) -> Result<Response<v1::RegisterResponse>, Status> {
        Ok(Response::new(self.register(request.into_inner()).await?))
    }

    async fn heartbeat(
        &self,
        request: Request<v1::HeartbeatRequest>,
    ) -> Result<Response<v1::HeartbeatResponse>, Status> {
        Ok(Response::new(self.heartbeat(request.get_ref())?))
    }

    type WatchStream = EventStream;

    async fn watch(
        &self,
        request: Request<v1::WatchRequest>,
    ) -> Result<Response<EventStream>, Status> {
        let running = self.slot.get()?;
        watch::check_cluster(running.group.cluster_id, &request.get_ref().cluster_id)?;
        running.group.check_leading()?;
        // A new leader may not have applied the last revision that the previous leader sent.
        running.group.linearize().await?;
        let stream = watch::start(running.group, request.into_inner());
        Ok(Response::new(Box::pin(stream)))
    }

    async fn get_catalog(
        &self,
        _request: Request<v1::GetCatalogRequest>,
    ) -> Result<Response<v1::CatalogSnapshot>, Status> {
        Ok(Response::new(self.catalog().await?))
    }

    async fn join_cluster(
        &self,
        request: Request<v1::JoinClusterRequest>,
    ) -> Result<Response<v1::JoinClusterResponse>, Status> {
        self.joiner.handle(request.into_inner()).await?;
        Ok(Response::new(v1::JoinClusterResponse {}))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::testing::{compactor, run, with_nodes};

    #[test]
    fn only_compactors_that_are_up_are_listed() {
        let mut state = with_nodes(1);
        for number in 1..=3 {
            run(&mut state, Kind::RegisterNode(compactor(20 + number, number))).unwrap();
        }
        let down = v1::SetNodeState { node_id: 103, state: NodeState::Down.into() };
        run(&mut state, Kind::SetNodeState(down)).unwrap();
        let load = v1::CompactorLoad { slots: 2, jobs: 1, ..v1::CompactorLoad::default() };
        // 104 reports no load, 103 is down, 101 is not a compactor, 170 is unknown.
        let loads = [101, 102, 103, 170].map(|node| (NodeId(node), load.clone())).into();
        let expected =
            v1::CompactorInfo { node_id: 102, address: "127.0.0.1:8001".into(), load: Some(load) };
        assert_eq!(compactors_up(&state, &loads), [expected]);
    }
}
