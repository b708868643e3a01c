//! Fake data nodes, which register, send heartbeats, and accept all calls.

mod exports;
mod regions;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidewater_common::feature_level::Release;
use tidewater_common::ids::NodeId;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::barriers_server::BarriersServer;
use tidewater_proto::v1::export_work_server::ExportWorkServer;
use tidewater_proto::v1::group_control_server::{GroupControl, GroupControlServer};
use tidewater_proto::v1::meta_client::MetaClient;
use tidewater_proto::v1::region_admin_server::RegionAdminServer;
use tidewater_proto::v1::{self, NodeRole, Reason};
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use self::exports::FakeExports;
use super::cluster::MetaCluster;
use crate::commands::testing::directory;

/// State of the fake data nodes, shared by all of them.
#[derive(Debug, Default)]
pub(super) struct FakeDataNodes {
    pub(super) groups: BTreeMap<u64, (BTreeSet<u64>, BTreeSet<u64>, u64)>,
    pub(super) leaders: BTreeMap<u64, u64>,
    pub(super) regions: BTreeSet<(u64, u64)>,
    /// Nodes on which calls that open a region never return.
    pub(super) hanging: BTreeSet<u64>,
    /// Number of calls that open a region.
    pub(super) open_calls: usize,
    /// The nodes run a release without feature levels.
    pub(super) without_levels: bool,
    /// Calls that open a staging area fail.
    pub(super) rejects_areas: bool,
    /// Region and step of each accepted change.
    pub(super) changes: Vec<(u64, v1::ProcedureStep)>,
    /// Regions whose steps fail, with the reason.
    pub(super) failing: BTreeMap<u64, Reason>,
    /// Regions of all calls that open, change or drop one.
    pub(super) called: Vec<u64>,
    /// Oldest readable epochs that regions report; 0 for others.
    pub(super) sinces: BTreeMap<u64, u64>,
    /// Regions that no node reports.
    pub(super) unreported: BTreeSet<u64>,
    /// Tables of the calls that list the regions of confirmed leaders.
    pub(super) asked: Vec<String>,
    /// Greatest oldest readable epochs that barriers have named, by table.
    pub(super) named: BTreeMap<u32, u64>,
    /// Exports of the regions.
    pub(super) exports: FakeExports,
}

impl FakeDataNodes {
    /// Records a call to a region, which fails if the region is failing.
    fn call(&mut self, region: u64) -> Result<(), Status> {
        self.called.push(region);
        match self.failing.get(&region) {
            Some(reason) => Err(Refusal::new(*reason, "the region fails").into()),
            None => Ok(()),
        }
    }

    /// Records a step of a region.
    fn change(&mut self, region: u64, step: Option<v1::ProcedureStep>) -> Result<(), Status> {
        self.call(region)?;
        self.changes.push((region, step.unwrap()));
        Ok(())
    }
}

#[derive(Debug, Clone)]
pub(super) struct FakeGroupControl {
    node_id: Arc<Mutex<u64>>,
    hosted: Arc<Mutex<FakeDataNodes>>,
}

#[tonic::async_trait]
impl GroupControl for FakeGroupControl {
    async fn start_group(
        &self,
        request: Request<v1::StartGroupRequest>,
    ) -> Result<Response<v1::StartGroupResponse>, Status> {
        let request = request.into_inner();
        let own = *self.node_id.lock();
        if own == 0 {
            // The leader may call before the node has received its registration's response.
            return Err(Refusal::new(Reason::Unavailable, "not registered yet").into());
        }
        assert_eq!(request.header.unwrap().target_node, own);
        if request.initialize {
            let mut hosted = self.hosted.lock();
            let voters = request.first_members.iter().map(|member| member.node_id).collect();
            hosted.groups.entry(request.group_id).or_insert((voters, BTreeSet::new(), 1));
            hosted.leaders.insert(request.group_id, *self.node_id.lock());
        }
        Ok(Response::new(v1::StartGroupResponse {}))
    }

    async fn change_membership(
        &self,
        request: Request<v1::ChangeMembershipRequest>,
    ) -> Result<Response<v1::ChangeMembershipResponse>, Status> {
        use v1::change_membership_request::Change;
        let request = request.into_inner();
        let mut hosted = self.hosted.lock();
        let (voters, learners, index) = hosted.groups.get_mut(&request.group_id).unwrap();
        if request.membership_index != *index {
            return Err(Refusal::new(Reason::MembershipStale, "stale").into());
        }
        match request.change.unwrap() {
            Change::AddLearner(member) => drop(learners.insert(member.node_id)),
            Change::Promote(id) => {
                learners.remove(&id);
                voters.insert(id);
            }
            Change::Remove(id) => {
                learners.remove(&id);
                voters.remove(&id);
            }
        }
        *index += 1;
        Ok(Response::new(v1::ChangeMembershipResponse {
            membership_term: 1,
            membership_index: *index,
        }))
    }

    async fn transfer_leader(
        &self,
        request: Request<v1::TransferLeaderRequest>,
    ) -> Result<Response<v1::TransferLeaderResponse>, Status> {
        let request = request.into_inner();
        self.hosted.lock().leaders.insert(request.group_id, request.to_node);
        Ok(Response::new(v1::TransferLeaderResponse {}))
    }

    async fn open_area(
        &self,
        request: Request<v1::OpenAreaRequest>,
    ) -> Result<Response<v1::OpenAreaResponse>, Status> {
        let request = request.into_inner();
        if self.hosted.lock().rejects_areas {
            return Err(Refusal::new(Reason::ObjectStoreUnavailable, "not now").into());
        }
        self.hosted.lock().change(request.region_id, request.step)?;
        Ok(Response::new(v1::OpenAreaResponse {}))
    }

    async fn close_area(
        &self,
        request: Request<v1::CloseAreaRequest>,
    ) -> Result<Response<v1::CloseAreaResponse>, Status> {
        let request = request.into_inner();
        self.hosted.lock().change(request.region_id, request.step)?;
        Ok(Response::new(v1::CloseAreaResponse {}))
    }

    async fn copy_region(
        &self,
        request: Request<v1::CopyRegionRequest>,
    ) -> Result<Response<v1::CopyRegionResponse>, Status> {
        let request = request.into_inner();
        self.hosted.lock().change(request.region_id, request.step)?;
        Ok(Response::new(v1::CopyRegionResponse {}))
    }

    async fn stop_replica(
        &self,
        _request: Request<v1::StopReplicaRequest>,
    ) -> Result<Response<v1::StopReplicaResponse>, Status> {
        Ok(Response::new(v1::StopReplicaResponse {}))
    }

    async fn alter_region(
        &self,
        request: Request<v1::AlterRegionRequest>,
    ) -> Result<Response<v1::AlterRegionResponse>, Status> {
        let request = request.into_inner();
        self.hosted.lock().change(request.region_id, request.step)?;
        Ok(Response::new(v1::AlterRegionResponse {}))
    }

    async fn truncate_region(
        &self,
        request: Request<v1::TruncateRegionRequest>,
    ) -> Result<Response<v1::TruncateRegionResponse>, Status> {
        let request = request.into_inner();
        self.hosted.lock().change(request.region_id, request.step)?;
        Ok(Response::new(v1::TruncateRegionResponse {}))
    }

    async fn open_region(
        &self,
        request: Request<v1::OpenRegionRequest>,
    ) -> Result<Response<v1::OpenRegionResponse>, Status> {
        let request = request.into_inner();
        let hangs = {
            let mut hosted = self.hosted.lock();
            hosted.open_calls += 1;
            hosted.hanging.contains(&self.node_id.lock())
        };
        if hangs {
            return std::future::pending().await;
        }
        let mut hosted = self.hosted.lock();
        hosted.call(request.region.as_ref().unwrap().region_id)?;
        let leader = hosted.leaders[&request.group_id];
        if leader != *self.node_id.lock() {
            let hint = tidewater_common::refusal::Leader {
                node_id: NodeId(leader),
                address: String::new(),
            };
            return Err(Refusal::new(Reason::NotLeader, "not the leader")
                .leader(Some(hint))
                .into());
        }
        hosted.regions.insert((request.group_id, request.region.unwrap().region_id));
        Ok(Response::new(v1::OpenRegionResponse {}))
    }

    async fn hold_region(
        &self,
        request: Request<v1::HoldRegionRequest>,
    ) -> Result<Response<v1::HoldRegionResponse>, Status> {
        let request = request.into_inner();
        self.hosted.lock().change(request.region_id, request.step)?;
        Ok(Response::new(v1::HoldRegionResponse {}))
    }

    async fn split_region(
        &self,
        request: Request<v1::SplitRegionRequest>,
    ) -> Result<Response<v1::SplitRegionResponse>, Status> {
        let request = request.into_inner();
        let mut hosted = self.hosted.lock();
        hosted.change(request.region_id, request.step)?;
        let children = request.children.iter().map(|child| (request.group_id, child.region_id));
        hosted.regions.extend(children);
        Ok(Response::new(v1::SplitRegionResponse {}))
    }

    async fn merge_regions(
        &self,
        request: Request<v1::MergeRegionsRequest>,
    ) -> Result<Response<v1::MergeRegionsResponse>, Status> {
        let request = request.into_inner();
        let mut hosted = self.hosted.lock();
        hosted.change(request.region_id, request.step)?;
        let child = request.child.map(|child| (request.group_id, child.region_id));
        hosted.regions.extend(child);
        Ok(Response::new(v1::MergeRegionsResponse {}))
    }

    async fn close_region(
        &self,
        request: Request<v1::CloseRegionRequest>,
    ) -> Result<Response<v1::CloseRegionResponse>, Status> {
        let request = request.into_inner();
        let mut hosted = self.hosted.lock();
        hosted.call(request.region_id)?;
        hosted.regions.remove(&(request.group_id, request.region_id));
        Ok(Response::new(v1::CloseRegionResponse {}))
    }

    async fn prepare_region(
        &self,
        request: Request<v1::PrepareRegionRequest>,
    ) -> Result<Response<v1::PrepareRegionResponse>, Status> {
        let request = request.into_inner();
        self.hosted.lock().change(request.region_id, request.step)?;
        Ok(Response::new(v1::PrepareRegionResponse {}))
    }

    async fn get_departing_region(
        &self,
        request: Request<v1::GetDepartingRegionRequest>,
    ) -> Result<Response<v1::GetDepartingRegionResponse>, Status> {
        let request = request.into_inner();
        self.hosted.lock().call(request.region_id)?;
        Ok(Response::new(v1::GetDepartingRegionResponse::default()))
    }

    async fn receive_region(
        &self,
        request: Request<v1::ReceiveRegionRequest>,
    ) -> Result<Response<v1::ReceiveRegionResponse>, Status> {
        let request = request.into_inner();
        let mut hosted = self.hosted.lock();
        hosted.change(request.region_id, request.step)?;
        hosted.regions.insert((request.group_id, request.region_id));
        Ok(Response::new(v1::ReceiveRegionResponse {}))
    }

    async fn release_region(
        &self,
        request: Request<v1::ReleaseRegionRequest>,
    ) -> Result<Response<v1::ReleaseRegionResponse>, Status> {
        let request = request.into_inner();
        let mut hosted = self.hosted.lock();
        hosted.change(request.region_id, request.step)?;
        hosted.regions.remove(&(request.group_id, request.region_id));
        Ok(Response::new(v1::ReleaseRegionResponse {}))
    }

    async fn activate_region(
        &self,
        request: Request<v1::ActivateRegionRequest>,
    ) -> Result<Response<v1::ActivateRegionResponse>, Status> {
        let request = request.into_inner();
        self.hosted.lock().change(request.region_id, request.step)?;
        Ok(Response::new(v1::ActivateRegionResponse {}))
    }

    async fn drop_region(
        &self,
        request: Request<v1::DropRegionRequest>,
    ) -> Result<Response<v1::DropRegionResponse>, Status> {
        let request = request.into_inner();
        let mut hosted = self.hosted.lock();
        hosted.call(request.region_id)?;
        hosted.regions.remove(&(request.group_id, request.region_id));
        Ok(Response::new(v1::DropRegionResponse {}))
    }

    async fn request_flush(
        &self,
        _request: Request<v1::RequestFlushRequest>,
    ) -> Result<Response<v1::RequestFlushResponse>, Status> {
        Ok(Response::new(v1::RequestFlushResponse {}))
    }
}

/// A registered fake data node, which sends heartbeats until it is dropped.
pub(super) struct FakeDataNode {
    pub(super) node_id: u64,
    tasks: tokio::task::JoinSet<()>,
}

impl FakeDataNode {
    pub(super) async fn start(
        cluster: &MetaCluster,
        number: u64,
        hosted: &Arc<Mutex<FakeDataNodes>>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let fake =
            FakeGroupControl { node_id: Arc::new(Mutex::new(0)), hosted: Arc::clone(hosted) };
        let mut tasks = tokio::task::JoinSet::new();
        let server = Server::builder()
            .add_service(GroupControlServer::new(fake.clone()))
            .add_service(RegionAdminServer::new(fake.clone()))
            .add_service(BarriersServer::new(fake.clone()))
            .add_service(ExportWorkServer::new(fake.clone()));
        tasks.spawn(async move {
            let _ = server.serve_with_incoming(TcpListenerStream::new(listener)).await;
        });
        let release = release_of(&hosted.lock());
        let register = v1::RegisterRequest { release, ..register_request(number, &address) };
        let registered = cluster
            .retry(|leader| {
                let register = register.clone();
                async move { cluster.meta(leader).await.register(register).await }
            })
            .await
            .unwrap();
        *fake.node_id.lock() = registered.node_id;
        let metas: Vec<_> = cluster.peers.values().cloned().collect();
        tasks.spawn(heartbeats(metas, registered.cluster_id, registered.node_id, fake.hosted));
        Self { node_id: registered.node_id, tasks }
    }

    pub(super) async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

pub(super) fn register_request(number: u64, address: &str) -> v1::RegisterRequest {
    v1::RegisterRequest {
        directory_id: directory(number),
        role: NodeRole::Data.into(),
        address: address.into(),
        cluster_id: String::new(),
        node_id: 0,
        object_store_id: "store".into(),
        release: own_release(),
        ..v1::RegisterRequest::default()
    }
}

/// Release that the nodes report.
fn release_of(nodes: &FakeDataNodes) -> Option<v1::ReleaseInfo> {
    if nodes.without_levels { None } else { own_release() }
}

pub(super) fn own_release() -> Option<v1::ReleaseInfo> {
    Some((&Release::own()).into())
}

/// Sends heartbeats to every meta node; only the leader accepts them.
async fn heartbeats(
    metas: Vec<String>,
    cluster_id: String,
    node_id: u64,
    hosted: Arc<Mutex<FakeDataNodes>>,
) {
    let mut clients: Vec<_> = metas
        .iter()
        .map(|address| {
            MetaClient::new(tidewater_rpc::ConnectPolicy::CONTROL.channel(address).unwrap())
        })
        .collect();
    loop {
        let groups = {
            let hosted = hosted.lock();
            let mine = hosted.groups.iter().filter(|(_, (voters, learners, _))| {
                voters.contains(&node_id) || learners.contains(&node_id)
            });
            mine.map(|(group_id, (voters, learners, index))| v1::GroupReport {
                group_id: *group_id,
                term: 1,
                leader: hosted.leaders[group_id],
                voters: voters.iter().copied().collect(),
                learners: learners.iter().copied().collect(),
                membership_term: 1,
                membership_index: *index,
                effective_term: 1,
                effective_index: *index,
                last_log_index: *index,
                caught_up: learners.iter().copied().collect(),
                ..v1::GroupReport::default()
            })
            .collect::<Vec<_>>()
        };
        let release = release_of(&hosted.lock());
        for client in &mut clients {
            let heartbeat = v1::HeartbeatRequest {
                cluster_id: cluster_id.clone(),
                node_id,
                role: NodeRole::Data.into(),
                groups: groups.clone(),
                release: release.clone(),
                ..Default::default()
            };
            let _ = timeout(Duration::from_millis(500), client.heartbeat(heartbeat)).await;
        }
        sleep(Duration::from_millis(100)).await;
    }
}

pub(super) fn voters(catalog: &v1::CatalogSnapshot, group: u64) -> usize {
    catalog
        .groups
        .iter()
        .find(|found| found.group_id == group)
        .map_or(0, |group| group.voters.len())
}
