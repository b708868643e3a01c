use std::time::Duration;

use tidewater_common::refusal::{Leader, Refusal};
use tidewater_proto::v1::Reason;

use super::Client;
use crate::error::ClientError;
use crate::fake::{ChangesAnswer, FakeCluster, WatchMode};

/// Returns an address without a listener.
fn closed_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

#[tokio::test]
async fn connect_error_names_every_address() {
    let cluster = FakeCluster::start(&[], 1).await;
    let mut options = cluster.options();
    options.meta = vec![closed_address(), closed_address()];
    options.connect_deadline = Duration::from_millis(100);
    let expected = options.meta.clone();
    let error = Client::connect(options).await.unwrap_err();
    let ClientError::NoMetaReachable { tried } = &error else { panic!("{error}") };
    for address in expected {
        let (_, error) = tried.iter().find(|(tried, _)| *tried == address).unwrap();
        assert!(error.contains("cannot connect"), "{error}");
    }
}

#[tokio::test]
async fn connect_rejects_an_empty_address_list() {
    let cluster = FakeCluster::start(&[], 1).await;
    let mut options = cluster.options();
    options.meta.clear();
    options.connect_deadline = Duration::from_millis(20);
    let error = Client::connect(options).await.unwrap_err();
    assert!(error.to_string().contains("no address was given"), "{error}");
}

#[tokio::test]
async fn connect_needs_only_one_reachable_address() {
    let cluster = FakeCluster::start(&[], 1).await;
    let mut options = cluster.options();
    options.meta = vec![closed_address(), cluster.meta.clone()];
    let client = Client::connect(options).await.unwrap();
    assert_eq!(client.catalog().tables().count(), 1);
}

#[tokio::test]
async fn connect_follows_hint_to_unlisted_meta_node() {
    let cluster = FakeCluster::start(&[], 1).await;
    let follower = FakeCluster::start(&[], 1).await;
    let leader = Some(Leader { node_id: 1.into(), address: cluster.meta.clone() });
    let refusal = Refusal::new(Reason::NotLeader, "not the leader").leader(leader);
    follower.state.lock().meta_refusals.push_back(refusal);
    let client = Client::connect(follower.options()).await.unwrap();
    // Only the leader's cluster knows this node's address.
    let address = cluster.state.lock().addresses[&11].clone();
    assert_eq!(client.catalog().node(11.into()).unwrap().address, address);
}

#[tokio::test]
async fn connect_waits_for_an_election() {
    let cluster = FakeCluster::start(&[], 1).await;
    for _ in 0..3 {
        let refusal = Refusal::new(Reason::NotLeader, "no leader yet");
        cluster.state.lock().meta_refusals.push_back(refusal);
    }
    assert!(Client::connect(cluster.options()).await.is_ok());
}

#[tokio::test]
async fn connect_returns_definite_errors() {
    let cluster = FakeCluster::start(&[], 1).await;
    let refusal = Refusal::new(Reason::WrongCluster, "this is another cluster");
    cluster.state.lock().meta_refusals.push_back(refusal);
    let error = Client::connect(cluster.options()).await.unwrap_err();
    let ClientError::Refused { refusal, .. } = error else { panic!("{error}") };
    assert_eq!(refusal.reason, Reason::WrongCluster);
}

#[tokio::test]
async fn catalog_watch_delivers_changes() {
    let cluster = FakeCluster::start(&[], 1).await;
    let client = cluster.client().await;
    assert!(client.catalog().route(201.into()).is_none());
    cluster.change(|state| {
        state.split(100, 5, (201, 202));
        state.publish_routes();
    });
    let mut published = client.core.published.clone();
    let arrived = published.wait_for(|now| now.catalog.route(201.into()).is_some());
    tokio::time::timeout(Duration::from_secs(60), arrived).await.unwrap().unwrap();
}

#[tokio::test]
async fn client_reloads_the_catalog_of_a_restored_cluster() {
    let cluster = FakeCluster::start(&[], 1).await;
    let client = cluster.client().await;
    cluster.change(|state| {
        state.catalog.incarnation = 2;
        state.catalog.revision = 1;
        state.catalog.tables.clear();
        state.catalog.routes.clear();
    });
    let mut published = client.core.published.clone();
    let arrived = published.wait_for(|now| now.catalog.incarnation().get() == 2);
    tokio::time::timeout(Duration::from_secs(60), arrived).await.unwrap().unwrap();
    let error = client.table("t").await.unwrap_err();
    assert!(matches!(error, ClientError::TableNotFound(_)), "{error}");
}

#[tokio::test]
async fn client_ahead_of_the_meta_leader_waits_for_it() {
    let cluster = FakeCluster::start(&[], 1).await;
    cluster.change(|state| state.publish_routes());
    let client = cluster.client().await;
    let known = client.catalog().revision().get();
    // The leader has lost the last revision, or has yet to apply it.
    cluster.change(|state| {
        state.catalog.revision -= 1;
        state.watch_mode = WatchMode::Broken;
    });
    let refused = async {
        while cluster.state.lock().watches_ahead < 6 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), refused).await.unwrap();
    assert_eq!(client.catalog().revision().get(), known, "a catalog never goes back");
    assert!(client.table("t").await.is_ok());
    assert!(
        cluster.state.lock().snapshots_read > 1,
        "a client without a watch requests the catalog"
    );
    cluster.change(|state| {
        state.watch_mode = WatchMode::Deltas;
        state.catalog.revision = known;
        state.publish_schema();
    });
    let mut published = client.core.published.clone();
    let arrived = published.wait_for(|now| now.catalog.revision().get() == known + 1);
    tokio::time::timeout(Duration::from_secs(60), arrived).await.unwrap().unwrap();
    let refused = cluster.state.lock().watches_ahead;
    cluster.change(|state| state.publish_schema());
    let arrived = published.wait_for(|now| now.catalog.revision().get() == known + 2);
    tokio::time::timeout(Duration::from_secs(60), arrived).await.unwrap().unwrap();
    assert_eq!(cluster.state.lock().watches_ahead, refused, "the watch is open again");
}

#[tokio::test]
async fn client_rejects_another_cluster_at_the_same_address() {
    let cluster = FakeCluster::start(&[], 1).await;
    let client = cluster.client().await;
    cluster.change(|state| {
        state.catalog.cluster_id = "018f3c1e-0000-7000-8000-000000000002".into();
        state.catalog.revision += 1;
    });
    let error = client.core.refresh_catalog().await.unwrap_err();
    assert!(matches!(error, ClientError::OtherCluster { .. }), "{error}");
}

// All clients of a cluster without a leader read at the same time.
#[tokio::test]
async fn client_without_a_watch_reads_changes_once_per_attempt() {
    let cluster = FakeCluster::start(&[], 1).await;
    let _client = cluster.client().await;
    let mut before = (0, 0);
    cluster.change(|state| {
        state.watch_mode = WatchMode::Broken;
        let refusal = || ChangesAnswer::Refuse(Refusal::new(Reason::NotLeader, "no leader"));
        state.changes_answers = std::iter::repeat_with(refusal).take(10_000).collect();
        before = (state.watches, state.changes_read.len());
    });
    let many = async {
        while cluster.state.lock().watches < before.0 + 10 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), many).await.unwrap();
    let state = cluster.state.lock();
    let (watches, reads) = (state.watches - before.0, state.changes_read.len() - before.1);
    assert!((1..=watches).contains(&reads), "{reads} reads for {watches} attempts to watch");
}
