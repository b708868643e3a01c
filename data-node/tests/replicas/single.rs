//! Tests of a group of one replica: contents of the node's disk and of the object store over
//! restarts.

use std::sync::Arc;

use tidewater_common::feature_level::FeatureLevel;
use tidewater_data_node::group::entry::EncodedEntry;
use tidewater_data_node::options::GroupOptions;
use tidewater_events::NoRecorder;
use tidewater_proto::v1::Reason;
use tidewater_region_engine::compaction::CompactionOptions;
use tidewater_region_engine::storage::Storage;

use super::cluster::*;

pub(crate) async fn node_config(folder: &tempfile::TempDir, options: GroupOptions) -> NodeConfig {
    let store = folder.path().join("store");
    NodeConfig {
        id: 1,
        folder: folder.path().join("node"),
        storage: Storage::open(&format!("file://{}", store.display())).await.unwrap(),
        options,
        memory: 1 << 30,
        compaction: CompactionOptions::default(),
        listen: "127.0.0.1:0".to_owned(),
        hooks: no_hooks(1),
        recorder: Arc::new(NoRecorder),
    }
}

pub(crate) async fn start_with_region(config: &NodeConfig) -> Node {
    let node = Node::start(config).await;
    node.start_group(&[node.member()], true).await;
    until("the node leads", async || node.open_region().await.is_ok()).await;
    node
}

/// Scans as soon as the region can be read.
async fn scanned(node: &Node) -> Vec<i64> {
    let mut ids = None;
    until("the region can be read", async || match node.scan().await {
        Ok(found) => {
            ids = Some(found);
            true
        }
        Err(refusal) => {
            assert!(
                matches!(refusal.reason, Reason::NotLeader | Reason::RegionLoading),
                "{refusal:?}"
            );
            false
        }
    })
    .await;
    ids.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_survive_restarts_and_a_flush() {
    let folder = tempfile::tempdir().unwrap();
    let config = node_config(&folder, GroupOptions::default()).await;
    let node = start_with_region(&config).await;
    node.open_region().await.unwrap();
    node.write(write(1, 1, &[])).await.unwrap();
    let first = node.write(write(1, 2, &[1, 2, 3])).await.unwrap();
    assert_eq!((first.rows_applied, first.repeated), (3, false));
    let again = node.write(write(1, 2, &[1, 2, 3])).await.unwrap();
    assert_eq!((again.sequence, again.repeated), (first.sequence, true));
    assert_eq!(scanned(&node).await, [1, 2, 3]);
    assert_eq!(node.get(&[2, 9]).await.unwrap(), [2]);
    let before = node.info().await.unwrap();
    node.stop().await;

    // Rows come from the log.
    let node = Node::start(&config).await;
    assert_eq!(scanned(&node).await, [1, 2, 3]);
    assert_eq!(node.info().await.unwrap().digest, before.digest);
    let again = node.write(write(1, 2, &[1, 2, 3])).await.unwrap();
    assert!(again.repeated, "the producer table survives");
    node.write(write(1, 3, &[4])).await.unwrap();
    let flushed = node.flush().await.unwrap();
    assert_eq!((flushed.rows, flushed.files), (4, 1));
    let again = node.flush().await.unwrap();
    assert_eq!((again.rows, again.files), (0, 0), "nothing is flushed twice");
    assert_eq!(node.info().await.unwrap().memtable_rows, 0);
    node.write(write(1, 4, &[5])).await.unwrap();
    assert_eq!(scanned(&node).await, [1, 2, 3, 4, 5]);
    node.stop().await;

    // Rows come from the log on top of the manifest.
    let node = Node::start(&config).await;
    assert_eq!(scanned(&node).await, [1, 2, 3, 4, 5]);
    assert_eq!(node.info().await.unwrap().memtable_rows, 1);
    assert_eq!(node.flush().await.unwrap().rows, 1);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshot_replaces_the_purged_log() {
    let folder = tempfile::tempdir().unwrap();
    let options =
        GroupOptions { snapshot_bytes: 40_000, log_tail_bytes: 10_000, ..GroupOptions::default() };
    let config = node_config(&folder, options).await;
    let node = start_with_region(&config).await;
    node.write(write(1, 1, &[])).await.unwrap();
    let ids: Vec<i64> = (0..100).collect();
    for serial in 2..60 {
        let from = serial as i64 * 100;
        let ids: Vec<i64> = ids.iter().map(|id| from + id).collect();
        node.write(write(1, serial, &ids)).await.unwrap();
    }
    let snapshots = config.folder.join("snapshots").join(GROUP.to_string());
    until("a snapshot is written", async || {
        std::fs::read_dir(&snapshots)
            .unwrap()
            .any(|entry| entry.unwrap().path().extension().is_some_and(|end| end == "snapshot"))
    })
    .await;
    let replica = node.groups.get(tidewater_common::ids::GroupId(GROUP)).unwrap();
    until("the log is purged", async || replica.purged().is_some()).await;
    drop(replica);
    let before = node.info().await.unwrap();
    node.stop().await;

    let node = Node::start(&config).await;
    assert_eq!(scanned(&node).await.len(), 5_800);
    assert_eq!(node.info().await.unwrap().digest, before.digest);
    assert!(node.write(write(1, 59, &ids)).await.unwrap().repeated);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_writes_have_their_reasons() {
    let folder = tempfile::tempdir().unwrap();
    let config = node_config(&folder, GroupOptions::default()).await;
    let node = Node::start(&config).await;
    let reason = |reply: Result<_, tidewater_common::refusal::Refusal>| {
        reply.map(|_: tidewater_proto::v1::WriteResponse| ()).unwrap_err().reason
    };
    assert_eq!(reason(node.write(write(1, 1, &[])).await), Reason::GroupNotHosted);
    node.start_group(&[node.member()], true).await;
    until("the node leads", async || {
        reason(node.write(write(1, 1, &[])).await) == Reason::RegionNotFound
    })
    .await;
    until("the region is open", async || node.open_region().await.is_ok()).await;
    let unknown_opening = tidewater_proto::v1::WriteRequest { opening: 9, ..write(1, 2, &[1]) };
    assert_eq!(reason(node.write(unknown_opening).await), Reason::ProducerForgotten);
    node.write(write(1, 1, &[])).await.unwrap();
    assert_eq!(reason(node.write(write(1, 3, &[1])).await), Reason::SerialOutOfOrder);
    assert_eq!(reason(node.write(write(1, 2, &[2, 1])).await), Reason::InvalidArgument);
    node.write(write(1, 2, &[1, 2])).await.unwrap();
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_region_stays_dropped() {
    use tidewater_proto::v1::group_control_server::GroupControl;
    let folder = tempfile::tempdir().unwrap();
    let config = node_config(&folder, GroupOptions::default()).await;
    let node = start_with_region(&config).await;
    node.write(write(1, 1, &[])).await.unwrap();
    let drop = || {
        let request = tidewater_proto::v1::DropRegionRequest {
            header: node.header(),
            group_id: GROUP,
            region_id: REGION,
        };
        node.control.drop_region(tonic::Request::new(request))
    };
    let early = drop().await.unwrap_err();
    assert_eq!(tidewater_common::refusal::Refusal::from(early).reason, Reason::InvalidArgument);
    assert!(node.hosts_region(), "the catalog still has it");
    node.forget_region();
    for _ in 0..2 {
        drop().await.unwrap();
    }
    assert!(!node.hosts_region());
    node.know(&[]);
    assert_eq!(node.open_region().await.unwrap_err().reason, Reason::RegionNotFound);
    node.stop().await;
}

/// An entry that this release does not write.
fn foreign_entry(bytes: &'static [u8]) -> EncodedEntry {
    EncodedEntry::from_bytes(bytes::Bytes::from_static(bytes), FeatureLevel::FIRST)
}

// An entry of a later release, like a disk error, stops a replica permanently. The node must exit
// instead of answering for it. An entry of no release is refused.
#[tokio::test(flavor = "multi_thread")]
async fn permanently_failed_replica_makes_the_node_exit() {
    let folder = tempfile::tempdir().unwrap();
    let config = node_config(&folder, GroupOptions::default()).await;
    let node = start_with_region(&config).await;
    let mut failed = node.groups.failed();
    assert_eq!(*failed.borrow(), None);
    let replica = node.groups.get(tidewater_common::ids::GroupId(GROUP)).unwrap();
    let garbage = foreign_entry(b"\xff\xff\xff");
    let refused = replica.propose(garbage, LIMIT).await.unwrap().into_result().unwrap_err();
    assert_eq!(refused.reason, Reason::InvalidArgument);
    let later = foreign_entry(b"\xfa\x01\x00");
    let refusal = replica.propose(later, LIMIT).await.unwrap_err();
    assert_eq!(refusal.reason, Reason::LeadershipLost, "the outcome is unknown: {refusal:?}");
    let reason = tokio::time::timeout(LIMIT, failed.wait_for(Option::is_some)).await.unwrap();
    let reason = reason.unwrap().clone().unwrap();
    assert!(reason.contains("group 5") && reason.contains("newer release"), "{reason}");
    let refusal = node.write(write(1, 1, &[])).await.unwrap_err();
    let reasons = [Reason::NotLeader, Reason::Unavailable, Reason::LeadershipLost];
    assert!(reasons.contains(&refusal.reason), "{refusal:?}");
    drop(replica);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_or_overloaded_node_refuses_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let options = GroupOptions { open_scans: 0, ..GroupOptions::default() };
    let config = node_config(&folder, options).await;
    let mut node = start_with_region(&config).await;
    let refusal = node.scan().await.unwrap_err();
    assert_eq!(refusal.reason, Reason::Overloaded);
    assert!(refusal.retry_after.is_some());
    node.write(write(1, 1, &[])).await.unwrap();
    let closing = tokio_util::sync::CancellationToken::new();
    node.data = tidewater_data_node::data::DataService::new(node.groups.clone(), closing.clone());
    assert!(!node.write(write(1, 2, &[1])).await.unwrap().repeated);
    closing.cancel();
    assert_eq!(node.write(write(1, 3, &[2])).await.unwrap_err().reason, Reason::ShuttingDown);
    assert_eq!(node.scan().await.unwrap_err().reason, Reason::ShuttingDown);
    assert_eq!(node.get(&[1]).await.unwrap_err().reason, Reason::ShuttingDown);
    node.stop().await;
}

// A crash between the deletion of a replica's log and of its snapshots leaves the snapshots: a new
// replica must not use them.
#[tokio::test(flavor = "multi_thread")]
async fn snapshots_of_an_earlier_replica_are_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let config = node_config(&folder, GroupOptions::default()).await;
    let snapshots = config.folder.join("snapshots").join(GROUP.to_string());
    std::fs::create_dir_all(&snapshots).unwrap();
    let leftover = snapshots.join(format!("{:020}-{:020}.snapshot", 9, 1));
    std::fs::write(&leftover, b"of an earlier replica").unwrap();
    let node = start_with_region(&config).await;
    assert!(!leftover.exists());
    node.stop().await;
}
