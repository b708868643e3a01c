//! Fixture: meta nodes in this process, each with its own listener.

mod raises;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use openraft::async_runtime::WatchReceiver;
use tidewater_common::clock::SystemClock;
use tidewater_events::testing::CollectingRecorder;
use tidewater_events::{EventRecorderRef, NoRecorder};
use tidewater_proto::v1::admin_client::AdminClient;
use tidewater_proto::v1::meta_client::MetaClient;
use tidewater_proto::v1::{self, Reason};
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Channel, Server};
use tonic::{Response, Status};

use super::super::*;
use crate::catalog::digest;

pub(super) const LIMIT: Duration = Duration::from_secs(40);

/// A meta node with its listener.
pub(super) struct RunningNode {
    pub(super) meta: Meta,
    raft: RaftService,
    server: JoinHandle<()>,
    stop: CancellationToken,
    data_dir: std::path::PathBuf,
}

impl RunningNode {
    /// Stops the node gracefully.
    pub(super) async fn stop(self) {
        self.meta.shutdown().await;
        self.stop.cancel();
        let _ = self.server.await;
    }

    /// Simulates a kill: no transfer of leadership, connections break.
    pub(super) async fn kill(self) {
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
        self.meta.slot().clear();
        let deadline = Instant::now() + LIMIT;
        while let Err(error) = open(self.data_dir.clone()).await {
            assert!(Instant::now() < deadline, "{error}");
            sleep(Duration::from_millis(10)).await;
        }
    }
}

pub(super) struct MetaCluster {
    pub(super) dir: tempfile::TempDir,
    pub(super) peers: BTreeMap<NodeId, String>,
    pub(super) nodes: BTreeMap<u64, RunningNode>,
    /// Recorders of the first members.
    pub(super) recorders: BTreeMap<u64, Arc<CollectingRecorder>>,
}

pub(super) fn free_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

/// Waits for a condition.
pub(super) async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        sleep(Duration::from_millis(10)).await;
    }
}

pub(super) async fn serve(options: MetaOptions, address: &str) -> Result<RunningNode, MetaError> {
    let raft = RaftService::new();
    let data_dir = options.data_dir.clone();
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
        // Watches never end: do not wait for them.
        tokio::select! {
            _ = serving => {}
            () = stopped.cancelled_owned() => {}
        }
    });
    Ok(RunningNode { meta, raft, server, stop, data_dir })
}

impl MetaCluster {
    pub(super) fn new(size: u64) -> Self {
        let peers = (1..=size).map(|id| (NodeId(id), free_address())).collect();
        let recorders = (1..=size).map(|id| (id, Arc::default())).collect();
        Self { dir: tempfile::tempdir().unwrap(), peers, nodes: BTreeMap::new(), recorders }
    }

    pub(super) fn options(&self, id: u64, bootstrap: Bootstrap) -> MetaOptions {
        let data_dir = self.dir.path().join(id.to_string());
        let events = match self.recorders.get(&id) {
            Some(recorder) => Arc::clone(recorder) as EventRecorderRef,
            None => Arc::new(NoRecorder),
        };
        MetaOptions {
            events,
            settle: Duration::from_millis(300),
            groups_per_node: 1,
            ..MetaOptions::new(NodeId(id), data_dir, self.peers.clone(), bootstrap)
        }
    }

    pub(super) async fn start(&mut self, id: u64, bootstrap: Bootstrap) {
        let options = self.options(id, bootstrap);
        let node = serve(options, &self.peers[&NodeId(id)]).await.unwrap();
        self.nodes.insert(id, node);
    }

    pub(super) async fn bootstrapped(size: u64) -> Self {
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

    /// Waits until a bootstrapped node leads; returns its id.
    pub(super) async fn leader(&self) -> u64 {
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

    pub(super) async fn channel(&self, id: u64) -> Channel {
        let address = &self.peers[&NodeId(id)];
        tidewater_rpc::ConnectPolicy::CONTROL.channel(address).unwrap()
    }

    pub(super) async fn meta(&self, id: u64) -> MetaClient<Channel> {
        MetaClient::new(self.channel(id).await)
    }

    pub(super) async fn admin(&self, id: u64) -> AdminClient<Channel> {
        AdminClient::new(self.channel(id).await)
    }

    /// Calls the leader, and retries transient errors with the current leader.
    pub(super) async fn retry<T, F: Future<Output = Result<Response<T>, Status>>>(
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
                    let is_transient =
                        refusal.retry_after.is_some() || refusal.reason == Reason::Unavailable;
                    if !is_transient || Instant::now() > deadline {
                        return Err(refusal);
                    }
                    sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    pub(super) async fn create_table(
        &self,
        request: v1::CreateTableRequest,
    ) -> Result<v1::Table, Refusal> {
        let created = self
            .retry(|leader| {
                let request = request.clone();
                async move { self.admin(leader).await.create_table(request).await }
            })
            .await?;
        Ok(created.table.unwrap())
    }

    pub(super) async fn catalog(&self) -> v1::CatalogSnapshot {
        self.retry(|leader| async move {
            self.meta(leader).await.get_catalog(v1::GetCatalogRequest {}).await
        })
        .await
        .unwrap()
    }

    pub(super) async fn status(&self) -> v1::ClusterStatusResponse {
        self.retry(|leader| async move {
            self.admin(leader).await.cluster_status(v1::ClusterStatusRequest {}).await
        })
        .await
        .unwrap()
    }

    pub(super) async fn wait_for(
        &self,
        what: &str,
        mut done: impl FnMut(&v1::CatalogSnapshot) -> bool,
    ) {
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

    /// Waits until the states of all members have the same revision and digest.
    pub(super) async fn wait_equal(&self) {
        let deadline = Instant::now() + LIMIT;
        loop {
            // A member that has just started may not have its replica yet.
            let digests: Option<BTreeSet<_>> = self
                .nodes
                .values()
                .map(|node| {
                    let state = node.meta.slot().get().ok()?.group.view.read();
                    Some((state.header().revision, digest(&state).unwrap()))
                })
                .collect();
            if digests.as_ref().is_some_and(|digests| digests.len() == 1) {
                return;
            }
            assert!(Instant::now() < deadline, "{digests:?}: {:#?}", self.node_states());
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Errors and metrics of all nodes, for the message of a failed test.
    fn node_states(&self) -> Vec<String> {
        let describe = |(id, node): (&u64, &RunningNode)| {
            let failed = node.meta.failed.borrow().as_ref().map(|error| error.to_string());
            let metrics = node
                .meta
                .slot()
                .get()
                .map(|running| running.group.raft.metrics().borrow_watched().to_string());
            format!("node {id}: failed {failed:?}, {metrics:?}")
        };
        self.nodes.iter().map(describe).collect()
    }
}
