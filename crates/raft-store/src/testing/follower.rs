//! A node behind a proxy whose groups return scripted responses.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tempfile::TempDir;
use tidewater_common::ids::{ClusterId, GroupId, NodeId};
use tidewater_proto::v1;
use tidewater_proto::v1::raft_client::RaftClient;
use tidewater_rpc::AddressBook;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Channel;
use uuid::Uuid;

use super::faults::FaultyDisk;
use super::handler::FakeGroup;
use super::proxy::Proxy;
use crate::log_store::{LogStore, LogStoreOptions};
use crate::network::NetworkFactory;
use crate::service::{RaftHost, RaftService};

pub(crate) const CLUSTER: ClusterId = ClusterId(Uuid::from_u128(3));
pub(crate) const LEADER: NodeId = NodeId(1);
pub(crate) const FOLLOWER: NodeId = NodeId(2);

/// The node, its log store on a faulty disk, and its proxy.
pub(crate) struct Follower {
    pub(crate) host: Arc<RaftHost>,
    pub(crate) service: RaftService,
    pub(crate) store: Arc<LogStore>,
    pub(crate) disk: Arc<FaultyDisk>,
    pub(crate) proxy: Proxy,
    pub(crate) snapshots: PathBuf,
    _dir: TempDir,
}

/// Starts a follower on the current runtime.
pub(crate) async fn follower(groups: &[(u64, FakeGroup)]) -> Follower {
    let dir = TempDir::new().unwrap();
    let disk = Arc::new(FaultyDisk::default());
    let options = LogStoreOptions { pending_bytes: 2_000, ..LogStoreOptions::default() };
    let store =
        LogStore::open_on(&dir.path().join("log"), options, Arc::clone(&disk) as _).unwrap();
    let host = RaftHost::new(CLUSTER, FOLLOWER, Arc::clone(&store));
    let snapshots = dir.path().join("snapshots");
    std::fs::create_dir(&snapshots).unwrap();
    for (group, fake) in groups {
        host.add(GroupId(*group), Arc::new(*fake), &snapshots);
    }
    let service = RaftService::new();
    service.add_host(Arc::clone(&host));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy::start(listener.local_addr().unwrap()).await;
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(service.clone().into_server())
            .serve_with_incoming(TcpListenerStream::new(listener)),
    );
    Follower { host, service, store, disk, proxy, snapshots, _dir: dir }
}

impl Follower {
    /// Returns a raw client that sends messages of any size.
    pub(crate) async fn client(&self) -> RaftClient<Channel> {
        let address = format!("http://{}", self.proxy.address);
        RaftClient::connect(address).await.unwrap().max_encoding_message_size(usize::MAX)
    }

    /// Returns the names of the files in the snapshot directory.
    pub(crate) fn files(&self) -> Vec<String> {
        let files = std::fs::read_dir(&self.snapshots).unwrap();
        files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect()
    }
}

/// Returns a header from the leader to the follower.
pub(crate) fn header(group_id: u64) -> v1::RaftHeader {
    v1::RaftHeader {
        cluster_id: CLUSTER.to_string(),
        source_node: LEADER.get(),
        target_node: FOLLOWER.get(),
        group_id,
        source_boot: 0,
    }
}

/// Creates the leader's network factory, with the follower at an address.
pub(crate) fn factory(address: SocketAddr) -> NetworkFactory {
    let book = Arc::new(AddressBook::new());
    book.set(FOLLOWER, address.to_string());
    NetworkFactory::new(CLUSTER, LEADER, book)
}
