//! Implementation of the proto service `Meta`.

use std::net::SocketAddr;
use std::sync::Arc;

use futures::stream::{Empty, StreamExt};
use parking_lot::Mutex;
use tidewater_common::feature_level::Release;
use tidewater_common::ids::{BootNumber, GroupId, NodeId};
use tidewater_common::peer_network::PeerNetwork;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::meta_server::{Meta, MetaServer};
use tidewater_proto::v1::{self, NodeRole, NodeState, Reason, meta_command::Kind, meta_reply};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::catalog_server::{CatalogServer, Pieces};
use super::heartbeat_facts::LastFacts;
use super::refused_calls::RefusedCalls;
use super::registration;
use super::registration_rate::RegistrationRate;
use super::watch::{self, Watcher};
use super::{
    MAX_REQUEST_BYTES, MAX_RESPONSE_BYTES, ReplicaSlot, RunningReplica, catalog_changes, timestamps,
};
use crate::catalog::{MetaState, Node};
use crate::commands::CommandError;
use crate::feed::EncodedMessage;
use crate::join::Joiner;
use crate::leader::clocks::announced_ms;
use crate::leader::releases::ReportedRelease;

/// Maximum distance of a reported term from the recorded one: terms grow by one with each election.
const MAX_TERM_JUMP: u64 = 1 << 20;
/// Maximum number of groups in one heartbeat.
const MAX_GROUPS: usize = 10_000;

/// Registration, heartbeats, the catalog, and the join handshake.
#[derive(Debug, Clone)]
pub(crate) struct MetaService {
    slot: ReplicaSlot,
    joiner: Arc<Joiner>,
    rate: Arc<Mutex<RegistrationRate>>,
    max_data_nodes: usize,
    facts: LastFacts,
    refused: RefusedCalls,
}

impl MetaService {
    /// Creates the service. `max_data_nodes`: beyond them, no data node is registered that the catalog does
    /// not have.
    pub(crate) fn new(slot: ReplicaSlot, joiner: Arc<Joiner>, max_data_nodes: usize) -> Self {
        let rate = Arc::new(Mutex::new(RegistrationRate::new(Instant::now())));
        let facts = LastFacts::default();
        Self { slot, joiner, rate, max_data_nodes, facts, refused: RefusedCalls::new() }
    }

    pub(crate) fn into_server(self) -> CatalogServer {
        let generated = MetaServer::new(self.clone())
            .max_decoding_message_size(MAX_REQUEST_BYTES)
            .max_encoding_message_size(MAX_RESPONSE_BYTES);
        CatalogServer::new(generated, self)
    }

    async fn register(
        &self,
        request: v1::RegisterRequest,
        from: Option<PeerNetwork>,
    ) -> Result<v1::RegisterResponse, Refusal> {
        let running = self.slot.get()?;
        running.group.check_leading()?;
        self.limit_registrations(&running, &request, from)?;
        let data = request.role == i32::from(NodeRole::Data);
        let command = v1::RegisterNode {
            directory_id: request.directory_id,
            role: request.role,
            address: request.address,
            cluster_id: request.cluster_id,
            node_id: request.node_id,
            object_store_id: request.object_store_id,
            boot: request.boot,
            start_id: request.start_id,
            release: request.release,
        };
        let start_id = Uuid::parse_str(&command.start_id).ok();
        let in_progress = running.observations.begin_registration(start_id);
        let reply = running.group.propose(Kind::RegisterNode(command)).await?;
        let Some(meta_reply::Outcome::NodeId(node_id)) = reply.outcome else {
            return Err(Refusal::new(Reason::Internal, "the registration returned no node id"));
        };
        running.observations.record_registration(NodeId(node_id), data, Instant::now());
        drop(in_progress);
        let agreed_ms = running.group.agreed_ms(&running.observations.clocks(Instant::now()));
        let header = running.group.view.read().header().clone();
        let incarnation = header.incarnation.get();
        Ok(v1::RegisterResponse {
            replicated_ms: announced_ms(header.time_ms),
            clocks_ms: agreed_ms.unwrap_or(0),
            cluster_id: running.group.cluster_id.to_string(),
            node_id,
            incarnation,
        })
    }

    fn limit_registrations(
        &self,
        running: &RunningReplica,
        request: &v1::RegisterRequest,
        from: Option<PeerNetwork>,
    ) -> Result<(), Refusal> {
        let now = Instant::now();
        let silent_for = running.observations.snapshot_silence(now);
        let state = running.group.view.read();
        registration::check(&state, request, &silent_for, self.max_data_nodes)?;
        if registration::is_known(&state, request) {
            return Ok(());
        }
        self.rate.lock().take(from, now)
    }

    fn heartbeat(
        &self,
        request: &v1::HeartbeatRequest,
        from: Option<SocketAddr>,
    ) -> Result<v1::HeartbeatResponse, Refusal> {
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
        check_sender(node, request)?;
        let reported = ReportedRelease::from(request);
        let feature_level = state.header().feature_level;
        reported.release.check(feature_level).map_err(CommandError::from)?;
        let now = Instant::now();
        running.observations.releases.record(node.id, reported, now);
        if request.groups.iter().all(|report| is_plausible(&state, request.node_id, report)) {
            running.observations.record_heartbeat(request, now);
        } else {
            let mut plausible = request.clone();
            plausible.groups.retain(|report| is_plausible(&state, request.node_id, report));
            let ignored = request.groups.len() - plausible.groups.len();
            self.refused.record_ignored(request.node_id, ignored, from);
            running.observations.record_heartbeat(&plausible, now);
        }
        let facts = self.facts.get(&running, &state, now);
        let (compactors, differing_clocks) = match node.role {
            NodeRole::Data => (facts.compactors.clone(), facts.differing_clocks.clone()),
            _ => Default::default(),
        };
        Ok(v1::HeartbeatResponse {
            revision: state.header().revision.get(),
            compactors,
            replicated_ms: announced_ms(state.header().time_ms),
            clocks_ms: facts.agreed_ms(now).unwrap_or(0),
            differing_clocks,
            feature_level: feature_level.get(),
        })
    }

    async fn read_group(
        &self,
        request: &v1::ReadGroupRequest,
    ) -> Result<v1::ReadGroupResponse, Refusal> {
        let running = self.slot.get()?;
        running.group.check_leading()?;
        let ours = running.group.cluster_id.to_string();
        if request.cluster_id != ours {
            let theirs = &request.cluster_id;
            let text = format!("the caller belongs to cluster {theirs:?}, this is {ours}");
            return Err(Refusal::new(Reason::WrongCluster, text));
        }
        running.group.linearize().await?;
        let state = running.group.view.read();
        let group = state.group(GroupId(request.group_id)).map(|group| group.as_ref().into());
        Ok(v1::ReadGroupResponse { group })
    }

    fn compare_state(
        &self,
        request: &v1::CompareStateRequest,
    ) -> Result<v1::CompareStateResponse, Refusal> {
        let running = self.slot.get()?;
        let group = &running.group;
        let ours = group.cluster_id.to_string();
        if request.cluster_id != ours {
            let theirs = &request.cluster_id;
            let text = format!("the caller belongs to cluster {theirs:?}, this is {ours}");
            return Err(Refusal::new(Reason::WrongCluster, text));
        }
        if request.target_node != group.node_id.get() {
            let text = format!("this is meta node {}, not {}", group.node_id, request.target_node);
            return Err(Refusal::new(Reason::WrongNode, text));
        }
        let found = group.state_difference();
        Ok(v1::CompareStateResponse {
            first_index: found.map_or(0, |found| found.first.get()),
            since_ms: found.map_or(0, |found| found.since_ms),
            conditions: running.problems.own_problems().iter().map(Into::into).collect(),
        })
    }

    /// Returns one linearizable snapshot of the catalog.
    pub(super) async fn catalog(&self) -> Result<EncodedMessage, Refusal> {
        let running = self.slot.get()?;
        running.group.linearize().await?;
        running.group.check_bootstrapped()?;
        let message = running.feed.snapshot().await?.message();
        watch::check_length(&message)?;
        Ok(message)
    }

    /// Starts the stream of a watcher.
    pub(super) async fn watch_pieces(&self, request: v1::WatchRequest) -> Result<Pieces, Status> {
        let running = self.slot.get()?;
        watch::check_cluster(running.group.cluster_id, &request.cluster_id)?;
        running.group.check_leading()?;
        // A new leader may not have applied the last revision that the previous leader sent.
        running.group.linearize().await?;
        running.group.check_bootstrapped()?;
        let watcher = Watcher::new(&request, &running.group.view.read())?;
        Ok(ReceiverStream::new(watcher.start(running.group, running.feed)).boxed())
    }
}

/// Checks that a heartbeat agrees with the node's registration. A node registers at each start, so that a
/// heartbeat from another address is of a copy of the node, or of a node that another one has replaced.
fn check_sender(node: &Node, request: &v1::HeartbeatRequest) -> Result<(), Refusal> {
    if node.supersedes(BootNumber(request.boot)) {
        return Err(Refusal::new(
            Reason::DirectoryCopied,
            format!(
                "a newer process with the data directory of node {} has registered from {}: start {} against \
                 start {} of this one. One of the two directories is a copy: only one may be used",
                node.id, node.address, node.boot, request.boot
            ),
        ));
    }
    let is_named = request.role != i32::from(NodeRole::Unspecified);
    if is_named && request.role != i32::from(node.role) {
        let text = format!("node {} is registered with another role", node.id);
        return Err(Refusal::new(Reason::RoleMismatch, text));
    }
    if !request.address.is_empty() && request.address != node.address {
        return Err(Refusal::new(
            Reason::WrongNode,
            format!(
                "node {} is registered at {}, not at {}: restart it to register it again",
                node.id, node.address, request.address
            ),
        ));
    }
    Ok(())
}

/// Returns whether a node's replica can have sent this report of its group.
fn is_plausible(state: &MetaState, node: u64, report: &v1::GroupReport) -> bool {
    let known = state.group(GroupId(report.group_id)).map_or(0, |group| group.leader_term.get());
    report.term <= known.saturating_add(MAX_TERM_JUMP)
        && report.membership_index <= report.last_log_index
        && report.membership_term <= report.term
        && report.effective_index <= report.last_log_index
        && report.effective_term <= report.term
        // A leader whose first membership is not committed yet.
        && !(report.leader == node && report.voters.is_empty())
}

/// Error of the generated methods of calls that [`CatalogServer`] handles.
fn sent_in_pieces() -> Status {
    Status::unimplemented("the catalog is sent in pieces")
}

#[tonic::async_trait]
impl Meta for MetaService {
    async fn register(
        &self,
        request: Request<v1::RegisterRequest>,
    ) -> Result<Response<v1::RegisterResponse>, Status> {
        let from = request.remote_addr().map(|address| PeerNetwork::from(address.ip()));
        Ok(Response::new(self.register(request.into_inner(), from).await?))
    }

    async fn heartbeat(
        &self,
        request: Request<v1::HeartbeatRequest>,
    ) -> Result<Response<v1::HeartbeatResponse>, Status> {
        let from = request.remote_addr();
        let answer = self.heartbeat(request.get_ref(), from);
        let answer = answer.inspect_err(|problem| self.refused.record("heartbeat", problem, from));
        Ok(Response::new(answer?))
    }

    type WatchStream = Empty<Result<v1::WatchEvent, Status>>;

    async fn watch(
        &self,
        _request: Request<v1::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        Err(sent_in_pieces())
    }

    async fn get_catalog(
        &self,
        _request: Request<v1::GetCatalogRequest>,
    ) -> Result<Response<v1::CatalogSnapshot>, Status> {
        Err(sent_in_pieces())
    }

    async fn get_catalog_changes(
        &self,
        request: Request<v1::GetCatalogChangesRequest>,
    ) -> Result<Response<v1::GetCatalogChangesResponse>, Status> {
        let running = self.slot.get()?;
        watch::check_cluster(running.group.cluster_id, &request.get_ref().cluster_id)?;
        running.group.linearize().await?;
        let request = request.into_inner();
        // Takes time for every change since the revision.
        let changes = tokio::task::spawn_blocking(move || {
            catalog_changes::changes(&running.group.view.read(), &request)
        });
        let changes = changes.await.map_err(|error| {
            Refusal::new(Reason::Internal, format!("the changes were not collected: {error}"))
        })?;
        Ok(Response::new(changes))
    }

    async fn read_group(
        &self,
        request: Request<v1::ReadGroupRequest>,
    ) -> Result<Response<v1::ReadGroupResponse>, Status> {
        Ok(Response::new(self.read_group(request.get_ref()).await?))
    }

    async fn next_timestamps(
        &self,
        request: Request<v1::NextTimestampsRequest>,
    ) -> Result<Response<v1::NextTimestampsResponse>, Status> {
        let running = self.slot.get()?;
        Ok(Response::new(timestamps::next(&running.group, request.get_ref()).await?))
    }

    async fn join_cluster(
        &self,
        request: Request<v1::JoinClusterRequest>,
    ) -> Result<Response<v1::JoinClusterResponse>, Status> {
        self.joiner.handle(request.into_inner()).await?;
        Ok(Response::new(v1::JoinClusterResponse { release: Some((&Release::own()).into()) }))
    }

    async fn compare_state(
        &self,
        request: Request<v1::CompareStateRequest>,
    ) -> Result<Response<v1::CompareStateResponse>, Status> {
        let from = request.remote_addr();
        let answer = self.compare_state(request.get_ref());
        let refused = |problem: &Refusal| self.refused.record("compare_state", problem, from);
        Ok(Response::new(answer.inspect_err(refused)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::testing::{with_groups, with_nodes};

    #[test]
    fn reports_that_no_replica_sends_are_ignored() {
        let state = with_groups(3, 1);
        let good = v1::GroupReport {
            group_id: 1,
            term: 7,
            leader: 101,
            last_log_index: 20,
            voters: vec![101],
            membership_term: 6,
            membership_index: 20,
            effective_term: 7,
            effective_index: 20,
            ..v1::GroupReport::default()
        };
        let report = |good: &v1::GroupReport| is_plausible(&state, 101, good);
        assert!(report(&good));
        assert!(report(&v1::GroupReport { leader: 102, voters: vec![], ..good.clone() }));
        let bad = [
            v1::GroupReport { term: 1 << 40, ..good.clone() },
            v1::GroupReport { membership_index: 21, ..good.clone() },
            v1::GroupReport { membership_term: 8, ..good.clone() },
            v1::GroupReport { effective_index: 21, ..good.clone() },
            v1::GroupReport { effective_term: 8, ..good.clone() },
            v1::GroupReport { voters: vec![], ..good },
        ];
        for bad in bad {
            assert!(!report(&bad), "{bad:?}");
        }
    }

    #[test]
    fn heartbeat_must_agree_with_the_registration() {
        let state = with_nodes(1);
        let node = state.node(NodeId(101)).unwrap();
        let reason = |role: NodeRole, address: &str| {
            let role = role.into();
            let heartbeat =
                v1::HeartbeatRequest { role, address: address.into(), ..Default::default() };
            check_sender(node, &heartbeat).err().map(|refusal| refusal.reason)
        };
        assert_eq!(reason(NodeRole::Data, &node.address), None);
        assert_eq!(reason(NodeRole::Data, "127.0.0.1:1"), Some(Reason::WrongNode));
        assert_eq!(reason(NodeRole::Compactor, &node.address), Some(Reason::RoleMismatch));
    }

    #[test]
    fn heartbeat_of_a_superseded_start_is_refused() {
        let state = with_nodes(1);
        let known = Node { boot: BootNumber(6), ..Node::clone(state.node(NodeId(101)).unwrap()) };
        let reason = |boot, address: &str| {
            let address = address.to_owned();
            let beat = v1::HeartbeatRequest { boot, address, ..Default::default() };
            check_sender(&known, &beat).err().map(|refusal| refusal.reason)
        };
        for (boot, expected) in [
            (5, Some(Reason::DirectoryCopied)),
            (6, None),
            // Registered, but this leader has yet to apply it.
            (7, None),
            // An older release.
            (0, None),
        ] {
            assert_eq!(reason(boot, &known.address), expected, "{boot}");
        }
        // The copy has another address: the error must be the final one.
        assert_eq!(reason(5, "127.0.0.1:1"), Some(Reason::DirectoryCopied));
        assert_eq!(reason(6, "127.0.0.1:1"), Some(Reason::WrongNode));
    }
}
