//! The object store goes away and comes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidewater_common::ids::{GroupId, Incarnation, RegionId, TableId};
use tidewater_data_node::leadership::flush_policy::FlushPolicy;
use tidewater_data_node::options::GroupOptions;
use tidewater_proto::v1::group_control_server::GroupControl;
use tidewater_proto::v1::{Reason, RequestFlushRequest};
use tidewater_region_engine::file_meta::FileMeta;
use tidewater_region_engine::layout::RegionDir;
use tidewater_region_engine::manifest::{ActionKind, Author, Change, Edit, ManifestContext};
use tidewater_region_engine::storage::Operation;
use tidewater_region_engine::storage::testing::{Fault, FaultyStore};

use super::cluster::*;

fn options() -> GroupOptions {
    GroupOptions {
        flush: FlushPolicy {
            region_bytes: 20_000,
            max_age: Duration::from_secs(600),
            min_bytes: 1_000,
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
        hooks: no_hooks(1),
    }
}

async fn start_with_region(place: &Place) -> Node {
    let node = Node::start(place).await;
    node.start_group(&[node.member()], true).await;
    until("the node leads", async || node.open_region().await.is_ok()).await;
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

/// Few rows, and nobody asks: so that the log can be purged.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_old_are_flushed() {
    let folder = tempfile::tempdir().unwrap();
    let store = FaultyStore::new();
    let mut place = place(&folder, &store, 1 << 30);
    place.options.flush.max_age = Duration::from_millis(100);
    let node = start_with_region(&place).await;
    node.write(write(1, 1, &[])).await.unwrap();
    node.write(write(1, 2, &[1])).await.unwrap();
    until("they are in a file", async || {
        let info = node.info().await.unwrap();
        (info.files, info.memtable_rows) == (1, 0)
    })
    .await;
    assert_eq!(node.scan().await.unwrap(), [1]);
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

/// The manifest versions of the region: as it was last read here, and as the log knows it.
async fn versions(node: &Node) -> (u64, u64) {
    let replica = node.groups.get(GroupId(GROUP)).unwrap();
    let told = replica.shared.advanced_version(RegionId(REGION)).get();
    (node.info().await.unwrap().manifest_version, told)
}

// The delta of a flush lands, and then the store is gone before anybody can see that it did. The
// flush after that has nothing to write, and still has something to tell.
#[tokio::test(flavor = "multi_thread")]
async fn a_flush_that_landed_unseen_is_told_to_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let store = FaultyStore::new();
    let place = place(&folder, &store, 1 << 30);
    let node = start_with_region(&place).await;
    node.write(write(1, 1, &[])).await.unwrap();
    node.write(write(1, 2, &[1])).await.unwrap();
    node.flush().await.unwrap();
    let (before, told) = versions(&node).await;
    assert_eq!(before, told);
    node.write(write(1, 3, &[2])).await.unwrap();
    let landed = Arc::new(AtomicBool::new(false));
    store.plan({
        let landed = landed.clone();
        move |call| {
            if landed.load(Ordering::SeqCst) {
                return Fault::ErrorBefore;
            }
            let delta = call.path.as_ref().ends_with(".delta");
            if delta && call.operation == Operation::PutIfAbsent {
                landed.store(true, Ordering::SeqCst);
                return Fault::ErrorAfter;
            }
            Fault::None
        }
    });
    node.flush().await.unwrap_err();
    assert_eq!(versions(&node).await, (before, told), "nobody knows yet");
    store.plan(|_| Fault::None);
    let flushed = node.flush().await.unwrap();
    assert_eq!((flushed.files, flushed.rows), (0, 0), "it was written already");
    assert_eq!(versions(&node).await, (before + 1, before + 1));
    assert_eq!(node.info().await.unwrap().memtable_rows, 0);
    node.stop().await;
}

// As when a leader has committed, lost its office before the log took the advance, and leads again:
// the region is idle, and its followers still hold the rows.
#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_told_of_a_manifest_that_is_ahead_though_the_region_is_idle() {
    let folder = tempfile::tempdir().unwrap();
    let store = FaultyStore::new();
    let place = place(&folder, &store, 1 << 30);
    let node = start_with_region(&place).await;
    node.write(write(1, 1, &[])).await.unwrap();
    node.write(write(1, 2, &[1])).await.unwrap();
    node.flush().await.unwrap();
    let (before, told) = versions(&node).await;
    assert_eq!(before, told);
    let replica = node.groups.get(GroupId(GROUP)).unwrap();
    let dir = RegionDir {
        table_id: TableId(3),
        region_id: RegionId(REGION),
        incarnation: Incarnation(1),
    };
    let manifest = ManifestContext::new(replica.shared.env.clone(), dir);
    let floor = ActionKind::GcFloor { floor_ms: 1 };
    manifest.update_manifest(Change::new(Author::System, vec![floor])).await.unwrap();
    replica.shared.targets.reload(RegionId(REGION));
    until("the log knows", async || versions(&node).await == (before + 1, before + 1)).await;
    drop(replica);
    node.stop().await;
}

/// An owner that died right after a commit has told nobody of it, and what it replaced is collected.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_gone_has_the_manifest_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = FaultyStore::new();
    let place = place(&folder, &store, 1 << 30);
    let node = start_with_region(&place).await;
    node.write(write(1, 1, &[])).await.unwrap();
    node.write(write(1, 2, &[1, 2])).await.unwrap();
    node.flush().await.unwrap();
    let replica = node.groups.get(GroupId(GROUP)).unwrap();
    let env = replica.shared.env.clone();
    let dir = RegionDir {
        table_id: TableId(3),
        region_id: RegionId(REGION),
        incarnation: Incarnation(1),
    };
    let manifest = ManifestContext::new(env.clone(), dir);
    manifest.refresh().await.unwrap();
    let old = manifest.state().files().next().cloned().unwrap();
    let now_ms = env.clock.now_ms();
    let new = FileMeta { file_id: env.ids.file_id(now_ms, 0), ..old.clone() };
    let rows = env.storage.get(&dir.data(old.file_id)).await.unwrap();
    env.storage.put(&dir.data(new.file_id), rows).await.unwrap();
    let edit = Edit { add: vec![new], remove: vec![old.reference()], ..Edit::default() };
    let job = Author::Job(env.ids.job_id(now_ms));
    manifest.update_manifest(Change::new(job, vec![ActionKind::Edit(edit)])).await.unwrap();
    env.storage.delete(&dir.data(old.file_id)).await.unwrap();
    let refusal = node.scan().await.unwrap_err();
    assert_eq!(refusal.reason, Reason::ObjectStoreUnavailable, "{refusal:?}");
    until("it is read again", async || node.scan().await.is_ok()).await;
    assert_eq!(node.scan().await.unwrap(), [1, 2]);
    drop(replica);
    node.stop().await;
}

// The one region is far too small to be flushed by itself.
#[tokio::test(flavor = "multi_thread")]
async fn the_owner_flushes_as_much_as_a_follower_must_get_rid_of() {
    let folder = tempfile::tempdir().unwrap();
    let store = FaultyStore::new();
    let mut place = place(&folder, &store, 1 << 30);
    let large = FlushPolicy { region_bytes: 1 << 30, min_bytes: 1 << 30, ..place.options.flush };
    place.options.flush = large;
    let node = start_with_region(&place).await;
    node.write(write(1, 1, &[])).await.unwrap();
    node.write(write(1, 2, &[1, 2, 3])).await.unwrap();
    let ask = async |over_bytes| {
        let request = RequestFlushRequest { header: node.header(), group_id: GROUP, over_bytes };
        node.control.request_flush(tonic::Request::new(request)).await.unwrap();
    };
    ask(1).await;
    until("it is flushed", async || node.info().await.unwrap().files == 1).await;
    node.stop().await;
}
