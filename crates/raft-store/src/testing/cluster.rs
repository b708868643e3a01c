//! Nodes in this process, each with its own runtime, that talk over real connections.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::errors::{ClientWriteError, ForwardReason, RaftError};
use openraft::type_config::async_runtime::WatchReceiver;
use tidewater_common::ids::{ClusterId, GroupId, NodeId};
use tidewater_rpc::AddressBook;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_stream::wrappers::TcpListenerStream;
use uuid::Uuid;

use super::machine::TestStateMachine;
use super::proxy::Proxy;
use crate::config::{GroupKind, raft_config};
use crate::log_store::{LogStore, LogStoreOptions};
use crate::network::NetworkFactory;
use crate::service::{RaftHost, RaftService};
use crate::types::{Command, Member, Raft};

pub(crate) const CLUSTER: ClusterId = ClusterId(Uuid::from_u128(7));
pub(crate) const GROUP: GroupId = GroupId(5);

/// A node with one replica of one group.
pub(crate) struct Node {
    pub(crate) id: u64,
    pub(crate) raft: Raft<TestStateMachine>,
    pub(crate) machine: TestStateMachine,
    pub(crate) store: Arc<LogStore>,
    pub(crate) addresses: Arc<AddressBook>,
    pub(crate) host: Arc<RaftHost>,
    pub(crate) factory: NetworkFactory,
    pub(crate) proxy: Proxy,
    runtime: Option<Runtime>,
}

impl Node {
    /// Starts a node in a directory, with the data it held before.
    pub(crate) async fn start(id: u64, dir: PathBuf) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let started = runtime.spawn(async move {
            let snapshots = dir.join("snapshots");
            std::fs::create_dir_all(&snapshots).unwrap();
            let store = LogStore::open(&dir.join("log"), LogStoreOptions::default()).unwrap();
            let addresses = Arc::new(AddressBook::new());
            let factory = NetworkFactory::new(CLUSTER, NodeId(id), Arc::clone(&addresses));
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let proxy = Proxy::start(listener.local_addr().unwrap()).await;
            let service = RaftService::new();
            let host = RaftHost::new(CLUSTER, NodeId(id), Arc::clone(&store));
            service.add_host(Arc::clone(&host));
            tokio::spawn(
                tonic::transport::Server::builder()
                    .add_service(service.into_server())
                    .serve_with_incoming(TcpListenerStream::new(listener)),
            );
            let (raft, machine) = add_group(id, GROUP, &store, &factory, &host, &snapshots).await;
            (raft, machine, store, addresses, host, factory, proxy)
        });
        let (raft, machine, store, addresses, host, factory, proxy) = started.await.unwrap();
        let runtime = Some(runtime);
        Self { id, raft, machine, store, addresses, host, factory, proxy, runtime }
    }

    /// Starts a replica of another group on the node.
    pub(crate) async fn add_group(
        &self,
        group: GroupId,
        snapshots: PathBuf,
    ) -> Raft<TestStateMachine> {
        std::fs::create_dir_all(&snapshots).unwrap();
        let id = self.id;
        let store = Arc::clone(&self.store);
        let host = Arc::clone(&self.host);
        let factory = self.factory.clone();
        let runtime = self.runtime.as_ref().unwrap();
        let started = runtime.spawn(async move {
            add_group(id, group, &store, &factory, &host, &snapshots).await.0
        });
        started.await.unwrap()
    }

    pub(crate) fn member(&self) -> Member {
        Member::new(self.proxy.address.to_string())
    }

    pub(crate) fn term(&self) -> u64 {
        self.raft.metrics().borrow_watched().current_term
    }

    pub(crate) fn leader(&self) -> Option<u64> {
        self.raft.metrics().borrow_watched().current_leader
    }

    pub(crate) fn commands(&self) -> Vec<Bytes> {
        self.machine.applied.lock().commands.clone()
    }

    /// Writes through this node, which must be the leader. A leader refuses writes until a quorum
    /// has answered its first heartbeat.
    pub(crate) async fn write(&self, text: &str) {
        let command = Command(Bytes::copy_from_slice(text.as_bytes()));
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        loop {
            match self.raft.client_write(command.clone()).await {
                Ok(_) => return,
                Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to)))
                    if to.reason == ForwardReason::LeaseExpired
                        && tokio::time::Instant::now() < deadline =>
                {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Stops the node immediately, without notifying the others.
    pub(crate) fn kill(mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        self.store.shutdown();
    }
}

impl Drop for Node {
    /// Waits for the node's threads: a thread still in the database when the test process exits
    /// would find its locks destroyed.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // The threads of a runtime, which may include this one, must not wait for another runtime.
            let ended = std::thread::spawn(|| runtime.shutdown_timeout(Duration::from_secs(10)));
            let _ = ended.join();
        }
        self.store.shutdown();
    }
}

async fn add_group(
    id: u64,
    group: GroupId,
    store: &LogStore,
    factory: &NetworkFactory,
    host: &RaftHost,
    snapshots: &Path,
) -> (Raft<TestStateMachine>, TestStateMachine) {
    let machine = TestStateMachine::new(snapshots);
    let mut config = openraft::Config::clone(&raft_config(GroupKind::Data));
    config.max_in_snapshot_log_to_keep = 0;
    config.purge_batch_size = 1;
    let network = factory.group(group);
    let log = store.group(group);
    let raft: Raft<TestStateMachine> =
        openraft::Raft::new(id, Arc::new(config), network, log, machine.clone()).await.unwrap();
    host.add(group, Arc::new(raft.clone()), snapshots);
    (raft, machine)
}

/// Starts nodes 1 to `count`, and makes them members of the group.
pub(crate) async fn start(dir: &tempfile::TempDir, count: u64) -> BTreeMap<u64, Node> {
    let mut nodes = BTreeMap::new();
    for id in 1..=count {
        nodes.insert(id, Node::start(id, dir.path().join(id.to_string())).await);
    }
    let members: BTreeMap<u64, Member> =
        nodes.values().map(|node| (node.id, node.member())).collect();
    nodes[&1].raft.initialize(members).await.unwrap();
    wait_leader(&nodes).await;
    nodes
}

/// Waits until all nodes agree on a leader among them, and returns its id.
pub(crate) async fn wait_leader(nodes: &BTreeMap<u64, Node>) -> u64 {
    let mut found = 0;
    super::eventually("all nodes follow one leader", || {
        let leaders: Vec<_> = nodes.values().map(Node::leader).collect();
        found = leaders[0].unwrap_or_default();
        nodes.contains_key(&found)
            && leaders.iter().all(|leader| *leader == Some(found))
            && nodes[&found].raft.is_leader()
    })
    .await;
    found
}

/// Waits until a node has applied at least `count` commands.
pub(crate) async fn wait_commands(node: &Node, count: usize) {
    super::eventually("the commands are applied", || {
        node.machine.applied.lock().commands.len() >= count
    })
    .await;
}
