//! Compaction by the owner: asked for, by itself, and what followers make of it.

use std::time::Duration;

use tidewater_common::ids::{GroupId, RegionId};
use tidewater_data_node::leadership::compactions::placement::CompactionPolicy;
use tidewater_data_node::options::GroupOptions;
use tidewater_proto::v1::Reason;
use tidewater_region_engine::index::Bloom;

use crate::cluster::{GROUP, Node, REGION, until, write};
use crate::single::{place, start_with_region};
use crate::three::Three;

/// So often that a test need not wait, or so rarely that it does not happen in one.
fn every(pause: Duration) -> GroupOptions {
    let compactions = CompactionPolicy { interval: pause, ..CompactionPolicy::default() };
    GroupOptions { compactions, ..GroupOptions::default() }
}

async fn flush_rows(node: &Node, serials: std::ops::Range<u64>) {
    for serial in serials {
        node.write(write(1, serial, &[1, serial as i64])).await.unwrap();
        node.flush().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_merged_when_somebody_asks() {
    let folder = tempfile::tempdir().unwrap();
    let place = place(&folder, every(Duration::from_secs(3_600))).await;
    let node = start_with_region(&place).await;
    node.write(write(1, 1, &[])).await.unwrap();
    assert_eq!(node.compact().await.unwrap().0.report, None, "there is nothing to merge");
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
    assert_eq!(node.compact().await.unwrap().0.report, None, "one run already");
    node.stop().await;
    let node = Node::start(&place).await;
    until("the node serves", async || node.scan().await.is_ok()).await;
    assert_eq!(node.scan().await.unwrap(), [1, 1, 1, 2, 3, 4]);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_merged_by_themselves_and_followers_load_the_version() {
    let mut three = Three::start(every(Duration::from_millis(50))).await;
    let leader = three.leader().await;
    let node = three.node(leader);
    node.write(write(1, 1, &[])).await.unwrap();
    flush_rows(node, 2..6).await;
    until("four files become one, everywhere", async || {
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

    // A follower compacts nothing and says who leads.
    let follower = (leader + 1) % 3;
    let refusal = three.node(follower).compact().await.unwrap_err();
    assert_eq!(refusal.reason, Reason::NotLeader);

    // The next owner goes on from the same manifest.
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

// Rows that are not due would otherwise be flushed, however few, and their file would want an index.
#[tokio::test(flavor = "multi_thread")]
async fn a_built_index_is_told_to_the_log_and_has_no_rows_flushed() {
    let folder = tempfile::tempdir().unwrap();
    let place = place(&folder, every(Duration::from_secs(3_600))).await;
    let node = start_with_region(&place).await;
    node.write(write(1, 1, &[])).await.unwrap();
    flush_rows(&node, 2..3).await;
    node.write(write(1, 3, &[7])).await.unwrap();
    let replica = node.groups.get(GroupId(GROUP)).unwrap();
    let region = replica.region(RegionId(REGION)).unwrap().region;
    let built = region.build_indexes(&Bloom).await.unwrap();
    assert_eq!(built.built, 1);
    let version = region.stats().manifest_version;
    until("the log is told", async || replica.shared.advanced_version(RegionId(REGION)) >= version)
        .await;
    let stats = region.stats();
    assert_eq!((stats.files, stats.memtable_rows, stats.manifest_version), (1, 1, version));
    drop(region);
    drop(replica);
    node.stop().await;
}
