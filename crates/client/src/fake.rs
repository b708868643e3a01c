//! In-process cluster for tests: one meta node and a few data nodes behind real sockets.
//!
//! The nodes follow the rules of real ones, unless a test scripts their next responses.

mod admin;
mod data;
mod meta;
mod region_admin;
mod state;
mod storage;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidewater_common::backoff::Backoff;
use tidewater_proto::v1;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;

pub(crate) use self::state::{
    Answer, ChangesAnswer, ScanAnswer, State, WatchMode, added_values, altered_schema, keys, rows,
    table_info,
};
use self::storage::{StorageNode, StorageState};
use crate::client::Client;
use crate::options::ClientOptions;

/// A running fake cluster; dropping it stops the cluster.
pub(crate) struct FakeCluster {
    pub(crate) state: Arc<Mutex<State>>,
    pub(crate) storage: Arc<Mutex<StorageState>>,
    pub(crate) meta: String,
    tasks: Vec<AbortHandle>,
    changed: tokio::sync::watch::Sender<u64>,
}

impl Drop for FakeCluster {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl FakeCluster {
    /// Starts a cluster with the table `t`, which has an int64 key `id` and a text column `v`. Its regions are
    /// split at `bounds` and served by group 1 with leader 11. The ids of the `nodes` data nodes start at 11.
    pub(crate) async fn start(bounds: &[i64], nodes: u64) -> Self {
        let (changed, _) = tokio::sync::watch::channel(0);
        let state = Arc::new(Mutex::new(State::new(bounds)));
        let storage = Arc::default();
        let mut cluster = Self { state, storage, meta: String::new(), tasks: Vec::new(), changed };
        for node in 11..11 + nodes {
            let service = data::DataNode { node, state: cluster.state.clone() };
            let service =
                v1::data_server::DataServer::new(service).max_decoding_message_size(64 << 20);
            let admin = region_admin::RegionAdminNode { state: cluster.state.clone() };
            let (listener, address) = listen().await;
            let serving = Server::builder()
                .add_service(service)
                .add_service(v1::region_admin_server::RegionAdminServer::new(admin))
                .serve_with_incoming(TcpListenerStream::new(listener));
            cluster.tasks.push(tokio::spawn(serving).abort_handle());
            cluster.state.lock().add_node(node, address);
        }
        let admin = admin::AdminNode { state: cluster.state.clone() };
        let service =
            meta::MetaNode { state: cluster.state.clone(), changed: cluster.changed.subscribe() };
        let storage = StorageNode { state: cluster.storage.clone() };
        let (listener, address) = listen().await;
        let serving = Server::builder()
            .add_service(v1::storage_admin_server::StorageAdminServer::new(storage))
            .add_service(v1::meta_server::MetaServer::new(service))
            .add_service(v1::admin_server::AdminServer::new(admin.clone()))
            .add_service(v1::hook_admin_server::HookAdminServer::new(admin))
            .serve_with_incoming(TcpListenerStream::new(listener));
        cluster.tasks.push(tokio::spawn(serving).abort_handle());
        cluster.meta = address;
        cluster
    }

    /// Connects a client with short backoff.
    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.options()).await.unwrap()
    }

    pub(crate) fn options(&self) -> ClientOptions {
        let quick = Backoff { first: Duration::from_millis(1), longest: Duration::from_millis(10) };
        ClientOptions {
            meta: vec![self.meta.clone()],
            deadline: Duration::from_secs(10),
            attempt_timeout: Duration::from_secs(2),
            backoff: quick,
            watch_backoff: quick,
            ..ClientOptions::default()
        }
    }

    /// Waits until this number of writes has arrived, at most a minute.
    pub(crate) async fn until_writes(&self, writes: usize) {
        let arrived = async {
            while self.state.lock().writes.len() < writes {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), arrived).await.unwrap();
    }

    /// Changes the state and sends it to the watch streams.
    pub(crate) fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock());
        self.changed.send_modify(|version| *version += 1);
    }
}

async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}
