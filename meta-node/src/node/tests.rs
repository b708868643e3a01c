//! Meta nodes in one process, over loopback gRPC, with a data node that only answers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use parking_lot::Mutex;
use tidewater_common::clock::SystemClock;
use tidewater_proto::v1::admin_client::AdminClient;
use tidewater_proto::v1::group_control_server::{GroupControl, GroupControlServer};
use tidewater_proto::v1::meta_client::MetaClient;
use tidewater_proto::v1::{self, NodeRole, NodeState, Reason, watch_event::Event};
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Channel, Server};
use tonic::{Request, Response, Status};

use super::*;
use crate::catalog::digest;
use crate::commands::testing::{directory, table};

const LIMIT: Duration = Duration::from_secs(40);

/// A meta node with its listener.
struct Running {
    meta: Meta,
    raft: RaftService,
    server: JoinHandle<()>,
    stop: CancellationToken,
}

impl Running {
    /// Graceful.
    async fn stop(self) {
        self.meta.shutdown().await;
        self.stop.cancel();
        let _ = self.server.await;
    }

    /// As a kill does: no hand-over; connections break.
    async fn kill(self) {
        self.server.abort();
        self.stop.cancel();
        let group = self.meta.slot().get().map(|running| running.group);
        self.meta.main.abort();
        if let Ok(group) = group {
            let _ = group.raft.shutdown().await;
        }
        self.meta.stop.cancel();
        // The log store closes with its last owner; connections may outlive the server.
        self.raft.remove_host(self.meta.node_id());
        self.meta.slot().empty();
        sleep(Duration::from_millis(200)).await;
    }
}

struct Cluster {
    folder: tempfile::TempDir,
    peers: BTreeMap<NodeId, String>,
    nodes: BTreeMap<u64, Running>,
}

fn free_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

async fn serve(options: MetaOptions, address: &str) -> Result<Running, MetaError> {
    let raft = RaftService::new();
    let meta = Meta::start(options, raft.clone(), Arc::new(SystemClock)).await?;
    let mut routes = RoutesBuilder::default();
    meta.add_services(&mut routes);
    routes.add_service(raft.clone().into_server());
    let address: SocketAddr = address.parse().unwrap();
    let deadline = Instant::now() + LIMIT;
    let listener = loop {
        match TcpListener::bind(address).await {
            Ok(listener) => break listener,
            Err(error) if Instant::now() > deadline => panic!("{address}: {error}"),
            Err(_) => sleep(Duration::from_millis(50)).await,
        }
    };
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let server = tokio::spawn(async move {
        let incoming = TcpListenerStream::new(listener);
        let serving = Server::builder().add_routes(routes.routes()).serve_with_incoming(incoming);
        // Watches never end by themselves: do not wait for them.
        tokio::select! {
            _ = serving => {}
            () = stopped.cancelled_owned() => {}
        }
    });
    Ok(Running { meta, raft, server, stop })
}

impl Cluster {
    fn new(size: u64) -> Self {
        let peers = (1..=size).map(|id| (NodeId(id), free_address())).collect();
        Self { folder: tempfile::tempdir().unwrap(), peers, nodes: BTreeMap::new() }
    }

    fn options(&self, id: u64, bootstrap: Bootstrap) -> MetaOptions {
        let data_dir = self.folder.path().join(id.to_string());
        MetaOptions {
            settle: Duration::from_millis(300),
            ..MetaOptions::new(NodeId(id), data_dir, self.peers.clone(), bootstrap)
        }
    }

    async fn start(&mut self, id: u64, bootstrap: Bootstrap) {
        let options = self.options(id, bootstrap);
        let node = serve(options, &self.peers[&NodeId(id)]).await.unwrap();
        self.nodes.insert(id, node);
    }

    async fn bootstrapped(size: u64) -> Self {
        let mut cluster = Self::new(size);
        for id in 1..=size {
            let bootstrap = if id == 1 { Bootstrap::Once } else { Bootstrap::Never };
            cluster.start(id, bootstrap).await;
        }
        for node in cluster.nodes.values() {
            timeout(LIMIT, node.meta.joined()).await.unwrap().unwrap();
        }
        cluster.leader().await;
        cluster
    }

    /// Waits for the one that leads and is bootstrapped.
    async fn leader(&self) -> u64 {
        let deadline = Instant::now() + LIMIT;
        loop {
            for (id, node) in &self.nodes {
                let ready =
                    node.meta.slot().get().is_ok_and(|running| {
                        running.group.view.read().header().cluster_id.is_some()
                    });
                if ready && node.meta.leading().is_some() {
                    return *id;
                }
            }
            assert!(Instant::now() < deadline, "no leader");
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn channel(&self, id: u64) -> Channel {
        let address = &self.peers[&NodeId(id)];
        crate::leader::connect_lazily(address).unwrap()
    }

    async fn meta(&self, id: u64) -> MetaClient<Channel> {
        MetaClient::new(self.channel(id).await)
    }

    async fn admin(&self, id: u64) -> AdminClient<Channel> {
        AdminClient::new(self.channel(id).await)
    }

    /// Asks the leader until it answers; leaders change.
    async fn retry<T, F: Future<Output = Result<Response<T>, Status>>>(
        &self,
        mut call: impl FnMut(u64) -> F,
    ) -> Result<T, Refusal> {
        let deadline = Instant::now() + LIMIT;
        loop {
            let leader = self.leader().await;
            match call(leader).await {
                Ok(response) => return Ok(response.into_inner()),
                Err(status) => {
                    let refusal = Refusal::from_status(&status);
                    let passing =
                        refusal.retry_after.is_some() || refusal.reason == Reason::Unavailable;
                    if !passing || Instant::now() > deadline {
                        return Err(refusal);
                    }
                    sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    async fn create_table(&self, request: v1::CreateTableRequest) -> Result<v1::Table, Refusal> {
        let created = self
            .retry(|leader| {
                let request = request.clone();
                async move { self.admin(leader).await.create_table(request).await }
            })
            .await?;
        Ok(created.table.unwrap())
    }

    async fn catalog(&self) -> v1::CatalogSnapshot {
        self.retry(|leader| async move {
            self.meta(leader).await.get_catalog(v1::GetCatalogRequest {}).await
        })
        .await
        .unwrap()
    }

    async fn status(&self) -> v1::ClusterStatusResponse {
        self.retry(|leader| async move {
            self.admin(leader).await.cluster_status(v1::ClusterStatusRequest {}).await
        })
        .await
        .unwrap()
    }

    async fn wait_for(&self, what: &str, mut done: impl FnMut(&v1::CatalogSnapshot) -> bool) {
        let deadline = Instant::now() + LIMIT;
        loop {
            let catalog = self.catalog().await;
            if done(&catalog) {
                return;
            }
            assert!(Instant::now() < deadline, "{what}: {catalog:?}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// All members have applied the same, and say so by their digests.
    async fn wait_equal(&self) {
        let deadline = Instant::now() + LIMIT;
        loop {
            // A member that was just started may not have its replica yet.
            let digests: Option<BTreeSet<_>> = self
                .nodes
                .values()
                .map(|node| {
                    let state = node.meta.slot().get().ok()?.group.view.frozen();
                    Some((state.header().revision, digest(&state).unwrap()))
                })
                .collect();
            if digests.as_ref().is_some_and(|digests| digests.len() == 1) {
                return;
            }
            assert!(Instant::now() < deadline, "{digests:?}");
            sleep(Duration::from_millis(10)).await;
        }
    }
}

/// What fake data nodes host: a whole data node that agrees to everything.
#[derive(Debug, Default)]
struct Hosted {
    groups: BTreeMap<u64, (BTreeSet<u64>, BTreeSet<u64>, u64)>,
    leaders: BTreeMap<u64, u64>,
    regions: BTreeSet<(u64, u64)>,
}

#[derive(Debug, Clone)]
struct FakeData {
    node_id: Arc<Mutex<u64>>,
    hosted: Arc<Mutex<Hosted>>,
}

#[tonic::async_trait]
impl GroupControl for FakeData {
    async fn start_group(
        &self,
        request: Request<v1::StartGroupRequest>,
    ) -> Result<Response<v1::StartGroupResponse>, Status> {
        let request = request.into_inner();
        let own = *self.node_id.lock();
        if own == 0 {
            // The leader may act on a registration before its answer is here.
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

    async fn stop_replica(
        &self,
        _request: Request<v1::StopReplicaRequest>,
    ) -> Result<Response<v1::StopReplicaResponse>, Status> {
        Ok(Response::new(v1::StopReplicaResponse {}))
    }

    async fn open_region(
        &self,
        request: Request<v1::OpenRegionRequest>,
    ) -> Result<Response<v1::OpenRegionResponse>, Status> {
        let request = request.into_inner();
        let mut hosted = self.hosted.lock();
        let leader = hosted.leaders[&request.group_id];
        if leader != *self.node_id.lock() {
            let hint = tidewater_common::refusal::Leader {
                node_id: NodeId(leader),
                address: String::new(),
            };
            return Err(Refusal::new(Reason::NotLeader, "not here").leader(Some(hint)).into());
        }
        hosted.regions.insert((request.group_id, request.region.unwrap().region_id));
        Ok(Response::new(v1::OpenRegionResponse {}))
    }

    async fn drop_region(
        &self,
        request: Request<v1::DropRegionRequest>,
    ) -> Result<Response<v1::DropRegionResponse>, Status> {
        let request = request.into_inner();
        self.hosted.lock().regions.remove(&(request.group_id, request.region_id));
        Ok(Response::new(v1::DropRegionResponse {}))
    }

    async fn request_flush(
        &self,
        _request: Request<v1::RequestFlushRequest>,
    ) -> Result<Response<v1::RequestFlushResponse>, Status> {
        Ok(Response::new(v1::RequestFlushResponse {}))
    }
}

/// Registers a fake data node and lets it send heartbeats until it is dropped.
struct DataNode {
    node_id: u64,
    tasks: tokio::task::JoinSet<()>,
}

impl DataNode {
    async fn start(cluster: &Cluster, number: u64, hosted: &Arc<Mutex<Hosted>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let fake = FakeData { node_id: Arc::new(Mutex::new(0)), hosted: Arc::clone(hosted) };
        let mut tasks = tokio::task::JoinSet::new();
        let server = GroupControlServer::new(fake.clone());
        tasks.spawn(async move {
            let incoming = TcpListenerStream::new(listener);
            let _ = Server::builder().add_service(server).serve_with_incoming(incoming).await;
        });
        let register = register_request(number, &address);
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

    async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

fn register_request(number: u64, address: &str) -> v1::RegisterRequest {
    v1::RegisterRequest {
        directory_id: directory(number),
        role: NodeRole::Data.into(),
        address: address.into(),
        cluster_id: String::new(),
        node_id: 0,
        object_store_id: "store".into(),
    }
}

/// To every meta node: the leader takes them.
async fn heartbeats(
    metas: Vec<String>,
    cluster_id: String,
    node_id: u64,
    hosted: Arc<Mutex<Hosted>>,
) {
    let mut clients: Vec<_> = metas
        .iter()
        .map(|address| MetaClient::new(crate::leader::connect_lazily(address).unwrap()))
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
                caught_up: learners.iter().copied().collect(),
                ..v1::GroupReport::default()
            })
            .collect::<Vec<_>>()
        };
        for client in &mut clients {
            let heartbeat = v1::HeartbeatRequest {
                cluster_id: cluster_id.clone(),
                node_id,
                role: NodeRole::Data.into(),
                address: String::new(),
                groups: groups.clone(),
                problems: vec![],
            };
            let _ = timeout(Duration::from_millis(500), client.heartbeat(heartbeat)).await;
        }
        sleep(Duration::from_millis(100)).await;
    }
}

fn voters(catalog: &v1::CatalogSnapshot, group: u64) -> usize {
    catalog
        .groups
        .iter()
        .find(|found| found.group_id == group)
        .map_or(0, |group| group.voters.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standalone_node_registers_makes_groups_and_tables_and_restarts() {
    let mut cluster = Cluster::new(1);
    cluster.start(1, Bootstrap::IfEmpty).await;
    let hosted = Arc::new(Mutex::new(Hosted::default()));
    let data = DataNode::start(&cluster, 1, &hosted).await;
    assert_eq!(data.node_id, 101);
    let made = cluster.create_table(table(1, "t")).await.unwrap();
    assert_eq!(made.state, i32::from(v1::TableState::Active));
    assert_eq!(hosted.lock().regions.len(), 1);
    let exists = cluster.create_table(table(2, "t")).await.unwrap_err();
    assert_eq!(exists.reason, Reason::TableExists);
    cluster.wait_for("one voter", |catalog| voters(catalog, 1) == 1).await;
    let status = cluster.status().await;
    assert!(status.healthy, "{:?}", status.problems);
    let before = cluster.catalog().await;

    cluster.nodes.remove(&1).unwrap().stop().await;
    let again = serve(cluster.options(1, Bootstrap::Once), &free_address()).await;
    assert!(matches!(again.err(), Some(MetaError::AlreadyBootstrapped { .. })));
    cluster.start(1, Bootstrap::IfEmpty).await;
    let after = cluster.catalog().await;
    assert_eq!((before.cluster_id, before.tables), (after.cluster_id, after.tables));

    let dropped = v1::DropTableRequest { request_id: directory(3), name: "t".into() };
    cluster
        .retry(|leader| {
            let dropped = dropped.clone();
            let cluster = &cluster;
            async move { cluster.admin(leader).await.drop_table(dropped).await }
        })
        .await
        .unwrap();
    assert_eq!(hosted.lock().regions.len(), 0);
    let index = cluster
        .retry(|leader| {
            let value = vec![7u8; 256].into();
            let cluster = &cluster;
            async move {
                cluster.admin(leader).await.bench_command(v1::BenchCommandRequest { value }).await
            }
        })
        .await
        .unwrap();
    assert!(index.log_index > 0);
    data.stop().await;
    cluster.nodes.remove(&1).unwrap().stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_lose_their_leader_and_lose_nothing() {
    let mut cluster = Cluster::bootstrapped(3).await;
    let hosted = Arc::new(Mutex::new(Hosted::default()));
    let first = DataNode::start(&cluster, 1, &hosted).await;
    let made = cluster.create_table(table(1, "t")).await.unwrap();
    // A follower sends the caller on.
    let leader = cluster.leader().await;
    let follower = (1..=3).find(|id| *id != leader).unwrap();
    let refused =
        cluster.meta(follower).await.register(register_request(9, "a:1")).await.unwrap_err();
    let refusal = Refusal::from_status(&refused);
    assert_eq!(refusal.reason, Reason::NotLeader);
    assert_eq!(refusal.leader.unwrap().address, cluster.peers[&NodeId(leader)]);

    // A watcher sees a snapshot, then every change; it goes on at the next leader.
    let request = v1::WatchRequest { from_revision: 0, incarnation: 0 };
    let mut watch = cluster.meta(leader).await.watch(request).await.unwrap().into_inner();
    let Some(Event::Snapshot(snapshot)) = watch.next().await.unwrap().unwrap().event else {
        panic!("a snapshot comes first")
    };
    assert_eq!(snapshot.tables[0].name, "t");
    let mut revision = snapshot.revision;

    // Groups grow as nodes join.
    let second = DataNode::start(&cluster, 2, &hosted).await;
    let third = DataNode::start(&cluster, 3, &hosted).await;
    cluster.wait_for("three voters", |catalog| voters(catalog, 1) == 3).await;
    while let Ok(event) = timeout(Duration::from_millis(200), watch.next()).await {
        match event.unwrap().unwrap().event {
            Some(Event::Delta(delta)) => {
                assert_eq!(delta.revision, revision + 1);
                revision = delta.revision;
            }
            Some(Event::CurrentRevision(current)) => assert_eq!(current, revision),
            other => panic!("{other:?}"),
        }
    }

    cluster.nodes.remove(&leader).unwrap().kill().await;
    let next = cluster.leader().await;
    assert_ne!(next, leader);
    let again = cluster.create_table(table(1, "t")).await.unwrap();
    assert_eq!(again, made, "the same request has the same outcome");
    cluster.create_table(table(2, "u")).await.unwrap();
    let request = v1::WatchRequest { from_revision: revision, incarnation: snapshot.incarnation };
    let mut watch = cluster.meta(next).await.watch(request).await.unwrap().into_inner();
    let Some(Event::Delta(delta)) = watch.next().await.unwrap().unwrap().event else {
        panic!("the new leader goes on with deltas")
    };
    assert_eq!(delta.revision, revision + 1);

    cluster.start(leader, Bootstrap::Never).await;
    cluster.wait_equal().await;
    for data in [first, second, third] {
        data.stop().await;
    }
    let down = i32::from(NodeState::Down);
    cluster
        .wait_for("all data nodes down", |catalog| {
            catalog.nodes.iter().filter(|node| node.state == down).count() == 3
        })
        .await;
    let status = cluster.status().await;
    assert!(status.problems.iter().any(|text| text.contains("is down")), "{:?}", status.problems);
    for (_, node) in std::mem::take(&mut cluster.nodes) {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_lags_behind_the_log_gets_a_snapshot() {
    let mut cluster = Cluster::bootstrapped(3).await;
    let leader = cluster.leader().await;
    let lagging = (1..=3).find(|id| *id != leader).unwrap();
    cluster.nodes.remove(&lagging).unwrap().stop().await;
    let group = cluster.nodes[&leader].meta.slot().get().unwrap().group;
    cluster
        .retry(|leader| {
            let cluster = &cluster;
            async move { cluster.meta(leader).await.register(register_request(1, "a:1")).await }
        })
        .await
        .unwrap();
    let index = group.bench(vec![0u8; 16].into()).await.unwrap();
    group.raft.trigger().snapshot().await.unwrap();
    let wait = group.raft.wait(Some(LIMIT));
    wait.metrics(|m| m.snapshot.is_some_and(|id| id.index >= index), "snapshot").await.unwrap();
    group.raft.trigger().purge_log(index).await.unwrap();
    let wait = group.raft.wait(Some(LIMIT));
    wait.metrics(|m| m.purged.is_some_and(|id| id.index >= index), "purged").await.unwrap();

    cluster.start(lagging, Bootstrap::Never).await;
    cluster.wait_equal().await;
    // What was installed is there after a restart, too.
    cluster.nodes.remove(&lagging).unwrap().stop().await;
    cluster.start(lagging, Bootstrap::Never).await;
    cluster.wait_equal().await;
    let catalog = cluster.nodes[&lagging].meta.slot().get().unwrap().group.view.frozen();
    assert_eq!(catalog.node(NodeId(101)).unwrap().address, "a:1");
    for (_, node) in std::mem::take(&mut cluster.nodes) {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn group_0_changes_its_members_and_its_leader() {
    let mut cluster = Cluster::bootstrapped(1).await;
    let four = NodeId(4);
    cluster.peers.insert(four, free_address());
    cluster.start(4, Bootstrap::Never).await;
    let change = |change| v1::ChangeMetaMemberRequest {
        membership_term: 0,
        membership_index: 0,
        change: Some(change),
    };
    use v1::change_meta_member_request::Change;
    let member = v1::MetaMember {
        node_id: 4,
        address: cluster.peers[&four].clone(),
        ..v1::MetaMember::default()
    };
    let ask = async |request: v1::ChangeMetaMemberRequest| {
        let cluster = &cluster;
        cluster
            .retry(|leader| {
                let request = request.clone();
                async move { cluster.admin(leader).await.change_meta_member(request).await }
            })
            .await
    };
    let stale = v1::ChangeMetaMemberRequest {
        membership_term: 7,
        membership_index: 7,
        ..change(Change::Promote(4))
    };
    assert_eq!(ask(stale).await.unwrap_err().reason, Reason::MembershipStale);
    ask(change(Change::AddLearner(member))).await.unwrap();
    let promoted = ask(change(Change::Promote(4))).await.unwrap();
    assert!(promoted.members.iter().any(|member| member.node_id == 4 && member.voter));
    cluster.wait_equal().await;

    let transfer = v1::TransferGroupLeaderRequest { group_id: 0, to_node: 4 };
    cluster.admin(1).await.transfer_group_leader(transfer).await.unwrap();
    assert_eq!(cluster.leader().await, 4);
    ask(change(Change::Remove(1))).await.unwrap();
    cluster.nodes.remove(&1).unwrap().stop().await;
    let catalog = cluster.catalog().await;
    let one = catalog.nodes.iter().find(|node| node.node_id == 1).unwrap();
    assert_eq!(one.state, i32::from(NodeState::Removed));
    cluster.nodes.remove(&4).unwrap().stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_that_disagree_make_no_cluster() {
    let mut cluster = Cluster::new(2);
    cluster.start(1, Bootstrap::Once).await;
    let mut options = cluster.options(2, Bootstrap::Never);
    options.peers.insert(NodeId(3), free_address());
    let second = serve(options, &cluster.peers[&NodeId(2)]).await.unwrap();
    let failed = timeout(LIMIT, cluster.nodes[&1].meta.failed()).await.unwrap();
    let MetaError::PeerRefused { refusal, .. } = failed.as_ref() else { panic!("{failed}") };
    assert_eq!(refusal.reason, Reason::PeersMismatch);
    // Nothing was written: both can be started again with the right peers.
    second.stop().await;
    cluster.nodes.remove(&1).unwrap().stop().await;
    cluster.start(1, Bootstrap::Once).await;
    cluster.start(2, Bootstrap::Never).await;
    cluster.leader().await;
    for (_, node) in std::mem::take(&mut cluster.nodes) {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_that_bootstrap_both_give_up() {
    let mut cluster = Cluster::new(2);
    cluster.start(1, Bootstrap::Once).await;
    cluster.start(2, Bootstrap::Once).await;
    let failed = timeout(LIMIT, cluster.nodes[&1].meta.failed()).await.unwrap();
    let MetaError::PeerRefused { refusal, .. } = failed.as_ref() else { panic!("{failed}") };
    assert_eq!(refusal.reason, Reason::AlreadyBootstrapped);
    let early = cluster.meta(1).await.get_catalog(v1::GetCatalogRequest {}).await.unwrap_err();
    assert_eq!(Refusal::from_status(&early).reason, Reason::NotBootstrapped);
    for (_, node) in std::mem::take(&mut cluster.nodes) {
        node.stop().await;
    }
}
