use std::sync::atomic::Ordering;
use std::time::Duration;

use tidewater_common::ids::NodeId;

use super::*;
use crate::testing::FakeMeta;

fn options(meta: String) -> CompactorOptions {
    CompactorOptions {
        heartbeat: Duration::from_millis(5),
        ..CompactorOptions::new("127.0.0.1:1", vec![meta], "memory:///")
    }
}

#[tokio::test]
async fn compactor_registers_sends_heartbeats_and_drains() {
    let meta = Arc::new(FakeMeta::default());
    let node = CompactorNode::start(options(meta.clone().serve().await)).await.unwrap();
    assert_eq!(node.node_id(), NodeId(7));
    tokio::time::timeout(Duration::from_secs(10), async {
        while meta.beats.load(Ordering::Relaxed) < 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
    tokio::time::timeout(Duration::from_secs(10), node.shutdown()).await.unwrap();
}

#[tokio::test]
async fn removed_compactor_reports_a_failure() {
    let meta = Arc::new(FakeMeta { remove_after: 1, ..FakeMeta::default() });
    let node = CompactorNode::start(options(meta.serve().await)).await.unwrap();
    let reason = tokio::time::timeout(Duration::from_secs(10), node.failed()).await.unwrap();
    assert!(reason.contains("removed"), "{reason}");
    node.shutdown().await;
}
