//! A group of one replica: what a node's disk and the object store keep.

use tidewater_data_node::options::GroupOptions;
use tidewater_proto::v1::Reason;
use tidewater_region_engine::storage::Storage;

use super::cluster::*;

async fn place(folder: &tempfile::TempDir, options: GroupOptions) -> Place {
    let store = folder.path().join("store");
    Place {
        id: 1,
        folder: folder.path().join("node"),
        storage: Storage::open(&format!("file://{}", store.display())).await.unwrap(),
        options,
        memory: 1 << 30,
        listen: "127.0.0.1:0".to_owned(),
    }
}

async fn start_with_region(place: &Place) -> Node {
    let node = Node::start(place).await;
    node.start_group(&[node.member()], true).await;
    until("the node leads", async || node.leads()).await;
    node.open_region().await.unwrap();
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
async fn rows_survive_restart_flush_and_restart() {
    let folder = tempfile::tempdir().unwrap();
    let place = place(&folder, GroupOptions::default()).await;
    let node = start_with_region(&place).await;
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

    // From the log.
    let node = Node::start(&place).await;
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

    // From the log over the manifest.
    let node = Node::start(&place).await;
    assert_eq!(scanned(&node).await, [1, 2, 3, 4, 5]);
    assert_eq!(node.info().await.unwrap().memtable_rows, 1);
    assert_eq!(node.flush().await.unwrap().rows, 1);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_takes_the_place_of_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let options =
        GroupOptions { snapshot_bytes: 40_000, log_tail_bytes: 10_000, ..GroupOptions::default() };
    let place = place(&folder, options).await;
    let node = start_with_region(&place).await;
    node.write(write(1, 1, &[])).await.unwrap();
    let ids: Vec<i64> = (0..100).collect();
    for serial in 2..60 {
        let from = serial as i64 * 100;
        let ids: Vec<i64> = ids.iter().map(|id| from + id).collect();
        node.write(write(1, serial, &ids)).await.unwrap();
    }
    let snapshots = place.folder.join("snapshots").join(GROUP.to_string());
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

    let node = Node::start(&place).await;
    assert_eq!(scanned(&node).await.len(), 5_800);
    assert_eq!(node.info().await.unwrap().digest, before.digest);
    assert!(node.write(write(1, 59, &ids)).await.unwrap().repeated);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_refusal_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let place = place(&folder, GroupOptions::default()).await;
    let node = Node::start(&place).await;
    let reason = |answer: Result<_, tidewater_common::refusal::Refusal>| {
        answer.map(|_: tidewater_proto::v1::WriteResponse| ()).unwrap_err().reason
    };
    assert_eq!(reason(node.write(write(1, 1, &[])).await), Reason::GroupNotHosted);
    node.start_group(&[node.member()], true).await;
    until("the node leads", async || node.leads()).await;
    assert_eq!(reason(node.write(write(1, 1, &[])).await), Reason::RegionNotFound);
    node.open_region().await.unwrap();
    assert_eq!(reason(node.write(write(1, 2, &[1])).await), Reason::ProducerForgotten);
    node.write(write(1, 1, &[])).await.unwrap();
    assert_eq!(reason(node.write(write(1, 3, &[1])).await), Reason::SerialOutOfOrder);
    assert_eq!(reason(node.write(write(1, 2, &[2, 1])).await), Reason::InvalidArgument);
    node.write(write(1, 2, &[1, 2])).await.unwrap();
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_region_is_gone_and_stays_gone() {
    use tidewater_proto::v1::group_control_server::GroupControl;
    let folder = tempfile::tempdir().unwrap();
    let place = place(&folder, GroupOptions::default()).await;
    let node = start_with_region(&place).await;
    node.write(write(1, 1, &[])).await.unwrap();
    for _ in 0..2 {
        let request = tidewater_proto::v1::DropRegionRequest {
            header: node.header(),
            group_id: GROUP,
            region_id: REGION,
        };
        node.control.drop_region(tonic::Request::new(request)).await.unwrap();
    }
    assert!(!node.hosts_region());
    assert_eq!(node.open_region().await.unwrap_err().reason, Reason::RegionNotFound);
    node.stop().await;
}
