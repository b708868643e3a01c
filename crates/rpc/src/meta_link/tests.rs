//! The link against a fake meta node, directly and through a proxy that freezes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use futures::stream::{self, BoxStream, StreamExt};
use tidewater_common::ids::{BootNumber, ClusterId, NodeId};
use tidewater_proto::v1::meta_server::{Meta, MetaServer};
use tidewater_proto::v1::watch_event::Event;
use tidewater_proto::v1::{self, CatalogSnapshot, WatchEvent};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::watch::WatchPosition;
use super::*;
use crate::addresses::AddressBook;

const OURS: ClusterId = ClusterId(Uuid::from_u128(1));
const OTHER: ClusterId = ClusterId(Uuid::from_u128(2));

/// Revision and incarnation of the fake's catalog.
const REVISION: u64 = 5;
const INCARNATION: u64 = 2;

/// A meta node that accepts all heartbeats and watches. Each watch sends a snapshot, or the next delta.
#[derive(Clone)]
struct FakeMeta {
    snapshot: CatalogSnapshot,
    watches: Arc<Mutex<Vec<v1::WatchRequest>>>,
    /// Streams end after their first event.
    breaks: Arc<AtomicBool>,
    /// Knows no revision above that of the snapshot.
    has_lost_revisions: Arc<AtomicBool>,
}

impl FakeMeta {
    /// Starts a node of a cluster with these data nodes.
    async fn start(cluster: ClusterId, nodes: &[u64]) -> (Self, String) {
        let node = |id: &u64| v1::Node {
            node_id: *id,
            address: format!("node:{id}"),
            boot: *id - 100,
            ..v1::Node::default()
        };
        let snapshot = CatalogSnapshot {
            cluster_id: cluster.to_string(),
            incarnation: INCARNATION,
            revision: REVISION,
            nodes: nodes.iter().map(node).collect(),
            ..CatalogSnapshot::default()
        };
        let fake = Self {
            snapshot,
            watches: Arc::default(),
            breaks: Arc::default(),
            has_lost_revisions: Arc::default(),
        };
        let (listener, address) = listen().await;
        let serving = tonic::transport::Server::builder()
            .add_service(MetaServer::new(fake.clone()))
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(serving);
        (fake, address)
    }

    fn watches(&self) -> usize {
        self.watches.lock().len()
    }

    /// Positions from which watches were opened: incarnation and revision.
    fn positions(&self) -> Vec<(u64, u64)> {
        let watches = self.watches.lock();
        watches.iter().map(|watch| (watch.incarnation, watch.from_revision)).collect()
    }
}

#[tonic::async_trait]
impl Meta for FakeMeta {
    type WatchStream = BoxStream<'static, Result<WatchEvent, Status>>;

    async fn register(
        &self,
        _request: Request<RegisterRequest>,
    ) -> Result<Response<RegisterResponse>, Status> {
        Ok(Response::new(RegisterResponse::default()))
    }

    async fn heartbeat(
        &self,
        _request: Request<HeartbeatRequest>,
    ) -> Result<Response<HeartbeatResponse>, Status> {
        Ok(Response::new(HeartbeatResponse::default()))
    }

    async fn watch(
        &self,
        request: Request<v1::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let request = request.into_inner();
        let from = request.from_revision;
        self.watches.lock().push(request);
        if from > REVISION && self.has_lost_revisions.load(Ordering::SeqCst) {
            return Err(Refusal::new(Reason::CatalogBehind, "ahead").into());
        }
        let delta = v1::CatalogDelta { revision: from + 1, ..v1::CatalogDelta::default() };
        let event = match from {
            0 => Event::Snapshot(self.snapshot.clone()),
            _ => Event::Delta(delta),
        };
        let first = stream::iter([Ok(WatchEvent { event: Some(event) })]);
        Ok(Response::new(if self.breaks.load(Ordering::SeqCst) {
            first.boxed()
        } else {
            first.chain(stream::pending()).boxed()
        }))
    }

    async fn get_catalog(
        &self,
        _request: Request<v1::GetCatalogRequest>,
    ) -> Result<Response<CatalogSnapshot>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn get_catalog_changes(
        &self,
        _request: Request<v1::GetCatalogChangesRequest>,
    ) -> Result<Response<v1::GetCatalogChangesResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn next_timestamps(
        &self,
        _request: Request<v1::NextTimestampsRequest>,
    ) -> Result<Response<v1::NextTimestampsResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn read_group(
        &self,
        _request: Request<v1::ReadGroupRequest>,
    ) -> Result<Response<v1::ReadGroupResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn join_cluster(
        &self,
        _request: Request<v1::JoinClusterRequest>,
    ) -> Result<Response<v1::JoinClusterResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn compare_state(
        &self,
        _request: Request<v1::CompareStateRequest>,
    ) -> Result<Response<v1::CompareStateResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}

async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

/// Starts a proxy that forwards to `target` until it freezes. Then its connections stay open, and it
/// accepts others, without forwarding anything: as a stopped process.
async fn freezing_proxy(target: String) -> (String, Arc<AtomicBool>) {
    let (listener, address) = listen().await;
    let frozen = Arc::new(AtomicBool::new(false));
    let state = frozen.clone();
    tokio::spawn(async move {
        while let Ok((inbound, _)) = listener.accept().await {
            let Ok(outbound) = TcpStream::connect(&target).await else { return };
            let (from_caller, to_caller) = inbound.into_split();
            let (from_node, to_node) = outbound.into_split();
            tokio::spawn(pump(from_caller, to_node, state.clone()));
            tokio::spawn(pump(from_node, to_caller, state.clone()));
        }
    });
    (address, frozen)
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, frozen: Arc<AtomicBool>) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(length) = from.read(&mut buffer).await {
        if frozen.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        if length == 0 || to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

fn link(addresses: &[&String]) -> MetaLink {
    MetaLink::new(addresses.iter().map(|address| (*address).clone()), Jitter::fixed(0))
}

async fn until(what: &str, limit: Duration, done: impl Fn() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < limit, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn last_responding_node_is_called_first() {
    let link = link(&[&"a:1".to_owned(), &"b:1".to_owned()]);
    assert_eq!(link.call_order(), ["a:1", "b:1"]);
    *link.preferred.lock() = Some("b:1".to_owned());
    assert_eq!(link.call_order(), ["b:1", "a:1"]);
    *link.preferred.lock() = Some("c:1".to_owned());
    assert_eq!(link.call_order(), ["c:1", "a:1", "b:1"]);
}

#[test]
fn only_permanent_errors_end_registration() {
    for reason in [Reason::WrongCluster, Reason::NodeRemoved, Reason::RoleMismatch] {
        assert!(is_final(reason), "{reason:?}");
    }
    for reason in [Reason::NotLeader, Reason::Unavailable, Reason::NotBootstrapped] {
        assert!(!is_final(reason), "{reason:?}");
    }
}

#[tokio::test]
async fn registration_fails_without_an_address() {
    let error = link(&[]).register(RegisterRequest::default()).await;
    assert!(matches!(error, Err(RegisterError::NoAddress)));
}

// Of the 5 s after which the meta leader takes a silent node for dead.
#[tokio::test]
async fn frozen_leader_delays_a_heartbeat_by_about_one_second() {
    let (_fake, address) = FakeMeta::start(OURS, &[]).await;
    let (proxy, frozen) = freezing_proxy(address.clone()).await;
    let link = link(&[&proxy, &address]);
    link.heartbeat(&HeartbeatRequest::default()).await.unwrap();
    assert_eq!(link.call_order()[0], proxy, "the first that answered");
    frozen.store(true, Ordering::SeqCst);
    let started = Instant::now();
    link.heartbeat(&HeartbeatRequest::default()).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    assert_eq!(link.call_order()[0], address, "the next heartbeat is not delayed");
}

#[tokio::test]
async fn frozen_watch_is_reopened_at_another_node() {
    let (fake, address) = FakeMeta::start(OURS, &[101]).await;
    let (proxy, frozen) = freezing_proxy(address.clone()).await;
    let link = link(&[&proxy, &address]);
    let book = AddressBook::new();
    let watching = link.follow_catalog(OURS, &book, |_| {});
    let reopened = async {
        until("the watch opens", Duration::from_secs(10), || book.get(NodeId(101)).is_some()).await;
        assert_eq!(fake.watches(), 1);
        frozen.store(true, Ordering::SeqCst);
        // The keep-alive takes 10 s, the timeout of a silent watch 30 s.
        until("the watch is reopened", Duration::from_secs(20), || fake.watches() == 2).await;
    };
    tokio::select! {
        () = watching => {}
        () = reopened => {}
    }
}

#[tokio::test]
async fn snapshot_removes_the_addresses_of_deleted_nodes() {
    let (fake, address) = FakeMeta::start(OURS, &[101, 102]).await;
    let book = AddressBook::new();
    book.set(NodeId(102), "old:102");
    book.set(NodeId(103), "old:103");
    let link = link(&[&address]);
    let watching = link.follow_catalog(OURS, &book, |_| {});
    let opened = until("the watch opens", Duration::from_secs(10), || {
        book.get(NodeId(101)).as_deref() == Some("node:101")
    });
    tokio::select! {
        () = watching => {}
        () = opened => {}
    }
    assert_eq!(book.get(NodeId(102)).as_deref(), Some("node:102"));
    assert_eq!(book.get(NodeId(103)), None, "deleted while no watch was open");
    assert_eq!(book.start(NodeId(102)), BootNumber(2));
    let cluster = fake.watches.lock()[0].cluster_id.clone();
    assert_eq!(cluster, OURS.to_string(), "the watch names its cluster");
}

#[tokio::test]
async fn interrupted_watch_resumes_from_its_revision() {
    let (fake, address) = FakeMeta::start(OURS, &[101]).await;
    fake.breaks.store(true, Ordering::SeqCst);
    let book = AddressBook::new();
    let mut observed = Vec::new();
    let link = link(&[&address]);
    let watching = link.follow_catalog(OURS, &book, |event| observed.push(event.clone()));
    let limit = Duration::from_secs(20);
    let reopened = async {
        until("the watch is resumed twice", limit, || fake.watches() == 3).await;
        fake.has_lost_revisions.store(true, Ordering::SeqCst);
        until("the watch starts over", limit, || fake.watches() >= 5).await;
    };
    tokio::select! {
        () = watching => {}
        () = reopened => {}
    }
    let at = |revision| (INCARNATION, revision);
    assert_eq!(fake.positions()[..3], [(0, 0), at(5), at(6)]);
    let first_lost = fake.positions().iter().skip(1).position(|position| *position == (0, 0));
    assert!(first_lost.is_some(), "{:?}", fake.positions());
    let revisions = observed.iter().take(3).map(|event| match event {
        Event::Snapshot(snapshot) => snapshot.revision,
        Event::Delta(delta) => delta.revision,
        Event::CurrentRevision(revision) => *revision,
    });
    assert_eq!(revisions.collect::<Vec<_>>(), [5, 6, 7]);
}

#[test]
fn position_accepts_each_revision_once() {
    let delta = |revision| Event::Delta(v1::CatalogDelta { revision, ..Default::default() });
    let snapshot = |incarnation, revision| {
        Event::Snapshot(CatalogSnapshot { incarnation, revision, ..Default::default() })
    };
    let mut position = WatchPosition::default();
    assert!(position.follow(&delta(1)).is_err(), "no snapshot");
    assert!(position.follow(&snapshot(1, 7)).unwrap());
    assert!(position.follow(&delta(8)).unwrap());
    assert!(!position.follow(&delta(8)).unwrap(), "a repeat");
    assert!(position.follow(&Event::CurrentRevision(8)).unwrap());
    assert!(position.follow(&snapshot(2, 3)).unwrap(), "a restored catalog");
    assert!(position.follow(&delta(4)).unwrap());
    let refusal = position.follow(&delta(6)).unwrap_err();
    assert_eq!(refusal.reason, Reason::CatalogBehind);
    assert_eq!(position, WatchPosition::default(), "starts over with a snapshot");
}

#[tokio::test]
async fn catalog_of_another_cluster_is_ignored() {
    let (fake, address) = FakeMeta::start(OTHER, &[101]).await;
    let book = AddressBook::new();
    book.set(NodeId(7), "ours:7");
    let mut observed = 0;
    let link = link(&[&address]);
    let watching = link.follow_catalog(OURS, &book, |_| observed += 1);
    tokio::select! {
        () = watching => {}
        () = until("two watches", Duration::from_secs(10), || fake.watches() == 2) => {}
    }
    assert_eq!(observed, 0);
    assert_eq!(book.get(NodeId(7)).as_deref(), Some("ours:7"));
    assert_eq!(book.get(NodeId(101)), None);
}

#[test]
fn newest_starts_follow_from_deltas() {
    let book = AddressBook::new();
    let node = v1::Node { node_id: 101, boot: 7, ..v1::Node::default() };
    let delta = v1::CatalogDelta { node_upserts: vec![node], ..v1::CatalogDelta::default() };
    watch::record(&book, &Event::Delta(delta));
    assert_eq!(book.start(NodeId(101)), BootNumber(7));
}

#[test]
fn registration_ends_with_a_final_refusal() {
    let seconds = Duration::from_secs;
    let copied = || Refusal::new(Reason::DirectoryCopied, "a copy");
    let running = || copied().retry_after(seconds(1));
    // (refusal, time since the first attempt in seconds, final)
    let cases = [
        (copied(), 0, true),
        // The node may have just stopped at its other address.
        (running(), 0, false),
        (running(), 7, false),
        (running(), 8, true),
        (Refusal::new(Reason::NotLeader, "").retry_after(seconds(1)), 99, false),
        (Refusal::new(Reason::MemberExists, "").retry_after(seconds(1)), 99, false),
        (Refusal::new(Reason::NodeRemoved, ""), 0, true),
        (Refusal::new(Reason::ReleaseUnsupported, ""), 0, true),
    ];
    for (refusal, elapsed, is_final) in cases {
        let case = format!("{refusal} after {elapsed} s");
        assert_eq!(is_final_for_registration(&refusal, seconds(elapsed)), is_final, "{case}");
    }
}
