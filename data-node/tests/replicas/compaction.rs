//! Tests of compaction by the owner: requested and automatic, and its effect on followers.

use std::time::Duration;

use tidewater_common::ids::{GroupId, RegionId};
use tidewater_data_node::leadership::compactions::choose::CompactionPolicy;
use tidewater_data_node::options::GroupOptions;
use tidewater_proto::v1::Reason;
use tidewater_region_engine::index::Bloom;

use crate::cluster::{GROUP, Node, REGION, until, write};
use crate::single::{node_config, start_with_region};
use crate::three::ThreeNodes;

/// Options with this interval of automatic compaction: short enough not to delay a test, or too
/// long to occur in one.
fn check_every(interval: Duration) -> GroupOptions {
    let compactions = CompactionPolicy { every: interval, ..CompactionPolicy::default() };
    GroupOptions { compactions, ..GroupOptions::default() }
}

async fn flush_rows(node: &Node, serials: std::ops::Range<u64>) {
    for serial in serials {
        node.write(write(1, serial, &[1, serial as i64])).await.unwrap();
        node.flush().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requested_compaction_compacts_all_files() {
    let folder = tempfile::tempdir().unwrap();
    let config = node_config(&folder, check_every(Duration::from_secs(3_600))).await;
    let node = start_with_region(&config).await;
    node.write(write(1, 1, &[])).await.unwrap();
    assert_eq!(node.compact().await.unwrap().0.report, None, "there is nothing to compact");
    flush_rows(&node, 2..5).await;
    assert_eq!(node.info().await.unwrap().files, 3);
    let (last, _) = node.compact().await.unwrap();
    let report = last.report.unwrap();
    assert_eq!((report.files_in, report.files_out), (3, 1));
    let done = report.done.unwrap();
    assert_eq!((done.rows_read, done.rows_written), (6, 6));
    assert_eq!(report.why, "asked");
    let info = node.info().await.unwrap();
    assert_eq!((info.files, info.manifest_version), (1, report.manifest_version));
    assert_eq!(node.scan().await.unwrap(), [1, 1, 1, 2, 3, 4]);
    assert_eq!(node.compact().await.unwrap().0.report, None, "the files are one run already");
    node.stop().await;
    let node = Node::start(&config).await;
    until("the node serves", async || node.scan().await.is_ok()).await;
    assert_eq!(node.scan().await.unwrap(), [1, 1, 1, 2, 3, 4]);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn automatic_compaction_reaches_all_followers() {
    let mut three = ThreeNodes::start(check_every(Duration::from_millis(50))).await;
    let leader = three.leader().await;
    let node = three.node(leader);
    node.write(write(1, 1, &[])).await.unwrap();
    flush_rows(node, 2..6).await;
    until("four files become one on every node", async || {
        for node in three.running() {
            if node.info().await.is_none_or(|info| info.files != 1) {
                return false;
            }
        }
        true
    })
    .await;
    assert_eq!(node.scan().await.unwrap(), [1, 1, 1, 1, 2, 3, 4, 5]);
    three.agree().await;

    // A follower refuses to compact.
    let follower = (leader + 1) % 3;
    let refusal = three.node(follower).compact().await.unwrap_err();
    assert_eq!(refusal.reason, Reason::NotLeader);

    // The next owner continues from the same manifest.
    three.nodes[leader].take().unwrap().stop().await;
    let next = three.leader().await;
    let node = three.node(next);
    until("the new leader serves", async || node.scan().await.is_ok()).await;
    flush_rows(node, 6..9).await;
    let expected = [1, 1, 1, 1, 1, 1, 1, 2, 3, 4, 5, 6, 7, 8];
    assert_eq!(node.scan().await.unwrap(), expected);
    node.compact().await.unwrap();
    assert_eq!(node.scan().await.unwrap(), expected);
    assert_eq!(node.info().await.unwrap().files, 1);
    three.stop().await;
}

// Rows that are not due must not be flushed, however few: their file would need an index too.
#[tokio::test(flavor = "multi_thread")]
async fn built_index_advances_the_log_without_a_flush() {
    let folder = tempfile::tempdir().unwrap();
    let config = node_config(&folder, check_every(Duration::from_secs(3_600))).await;
    let node = start_with_region(&config).await;
    node.write(write(1, 1, &[])).await.unwrap();
    flush_rows(&node, 2..3).await;
    node.write(write(1, 3, &[7])).await.unwrap();
    let replica = node.groups.get(GroupId(GROUP)).unwrap();
    let region = replica.region(RegionId(REGION)).unwrap().region;
    let built = region.build_indexes(&Bloom).await.unwrap();
    assert_eq!(built.built, 1);
    let version = region.stats().manifest_version;
    until("the log has the version", async || {
        replica.shared.advanced_version(RegionId(REGION)) >= version
    })
    .await;
    let stats = region.stats();
    assert_eq!((stats.files, stats.memtable_rows, stats.manifest_version), (1, 1, version));
    drop(region);
    drop(replica);
    node.stop().await;
}
