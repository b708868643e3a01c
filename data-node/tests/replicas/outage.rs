//! The object store goes away and comes back.

use std::time::Duration;

use tidewater_data_node::leadership::pick::FlushPolicy;
use tidewater_data_node::options::GroupOptions;
use tidewater_proto::v1::Reason;
use tidewater_region_engine::storage::testing::{Fault, FaultyStore};

use super::cluster::*;

fn options() -> GroupOptions {
    GroupOptions {
        flush: FlushPolicy {
            region_bytes: 20_000,
            age: Duration::from_secs(600),
            worth: 1_000,
            concurrency: 2,
        },
        stall: Duration::from_millis(200),
        ..GroupOptions::default()
    }
}

fn place(folder: &tempfile::TempDir, store: &FaultyStore, memory: u64) -> Place {
    Place {
        id: 1,
        folder: folder.path().join("node"),
        storage: store.storage(),
        options: options(),
        memory,
        listen: "127.0.0.1:0".to_owned(),
    }
}

async fn start_with_region(place: &Place) -> Node {
    let node = Node::start(place).await;
    node.start_group(&[node.member()], true).await;
    until("the node leads", async || node.leads()).await;
    node.open_region().await.unwrap();
    until("the region can be read", async || node.scan().await.is_ok()).await;
    node
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_go_on_until_memory_is_used_up_and_flushes_catch_up() {
    let folder = tempfile::tempdir().unwrap();
    let store = FaultyStore::new();
    let place = place(&folder, &store, 150_000);
    let node = start_with_region(&place).await;
    node.write(write(1, 1, &[])).await.unwrap();
    store.plan(|_| Fault::ErrorBefore);

    let mut expected = Vec::new();
    let mut serial = 2;
    let refused = loop {
        let from = serial as i64 * 1_000;
        let ids: Vec<i64> = (from..from + 200).collect();
        match node.write(write(1, serial, &ids)).await {
            Ok(_) => expected.extend(ids),
            Err(refusal) => break refusal,
        }
        serial += 1;
        assert!(serial < 1_000, "memory is bounded");
    };
    assert_eq!(refused.reason, Reason::Overloaded);
    assert!(refused.retry_after.is_some());
    assert!(expected.len() > 1_000, "writes went on without the store");
    let flush = node.flush().await.unwrap_err();
    assert!(
        matches!(flush.reason, Reason::ObjectStoreUnavailable | Reason::Unavailable),
        "{flush:?}"
    );
    assert_eq!(node.scan().await.unwrap(), expected, "reads go on");

    store.plan(|_| Fault::None);
    let from = serial as i64 * 1_000;
    until("writes are taken again", async || node.write(write(1, serial, &[from])).await.is_ok())
        .await;
    expected.push(from);
    until("flushes catch up", async || node.info().await.unwrap().memtable_bytes < 20_000).await;
    assert_eq!(node.scan().await.unwrap(), expected, "each row once");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_whose_manifest_cannot_be_reached_takes_writes_and_refuses_reads() {
    let folder = tempfile::tempdir().unwrap();
    let store = FaultyStore::new();
    let place = place(&folder, &store, 1 << 30);
    let node = start_with_region(&place).await;
    node.write(write(1, 1, &[])).await.unwrap();
    node.write(write(1, 2, &[1])).await.unwrap();
    node.flush().await.unwrap();
    node.stop().await;

    store.plan(|_| Fault::ErrorBefore);
    let node = Node::start(&place).await;
    until("a write is taken", async || node.write(write(1, 3, &[2])).await.is_ok()).await;
    let refusal = node.scan().await.unwrap_err();
    assert_eq!(refusal.reason, Reason::RegionLoading);
    assert!(refusal.retry_after.is_some());
    assert_eq!(node.get(&[1]).await.unwrap_err().reason, Reason::RegionLoading);
    store.plan(|_| Fault::None);
    until("the region is read", async || node.scan().await.is_ok_and(|ids| ids == [1, 2])).await;
    node.stop().await;
}

// The put of the flush's delta takes effect and its answer is lost: nothing is flushed twice.
#[tokio::test(flavor = "multi_thread")]
async fn an_ambiguous_commit_does_not_double_rows() {
    let folder = tempfile::tempdir().unwrap();
    let store = FaultyStore::new();
    let place = place(&folder, &store, 1 << 30);
    let node = start_with_region(&place).await;
    node.write(write(1, 1, &[])).await.unwrap();
    node.write(write(1, 2, &[1, 2, 3])).await.unwrap();
    for fault in [Fault::ErrorAfter, Fault::StoredConflict, Fault::FalseConflict] {
        store.plan(move |call| {
            let first_delta = call.path.as_ref().ends_with(".delta") && call.number <= 2;
            if first_delta { fault } else { Fault::None }
        });
        until("the flush is done", async || node.flush().await.is_ok()).await;
        store.plan(|_| Fault::None);
        assert_eq!(node.scan().await.unwrap(), [1, 2, 3], "{fault:?}");
        let info = node.info().await.unwrap();
        assert_eq!((info.files, info.rows), (1, 3), "{fault:?}");
    }
    node.stop().await;
}
