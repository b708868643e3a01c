//! Tests of outages of the object store.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidewater_common::ids::{GroupId, Incarnation, RegionId, TableId};
use tidewater_data_node::leadership::flush_policy::FlushPolicy;
use tidewater_data_node::options::GroupOptions;
use tidewater_events::NoRecorder;
use tidewater_proto::v1::group_control_server::GroupControl;
use tidewater_proto::v1::{Reason, RequestFlushRequest};
use tidewater_region_engine::compaction::CompactionOptions;
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
        memory_wait: Duration::from_millis(200),
        ..GroupOptions::default()
    }
}

fn node_config(folder: &tempfile::TempDir, store: &FaultyStore, memory: u64) -> NodeConfig {
    NodeConfig {
        id: 1,
        folder: folder.path().join("node"),
        storage: store.storage(),
        options: options(),
        memory,
        compaction: CompactionOptions::default(),
        listen: "127.0.0.1:0".to_owned(),
        hooks: no_hooks(1),
        recorder: Arc::new(NoRecorder),
    }
}

async fn start_with_region(config: &NodeConfig) -> Node {
    let node = Node::start(config).await;
    node.start_group(&[node.member()], true).await;
    until("the node leads", async || node.open_region().await.is_ok()).await;
    until("the region can be read", async || node.scan().await.is_ok()).await;
    node
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_continue_without_the_store_until_memory_is_full() {
    let folder = tempfile::tempdir().unwrap();
    let store = FaultyStore::new();
    let config = node_config(&folder, &store, 150_000);
    let node = start_with_region(&config).await;
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
    assert!(expected.len() > 1_000, "writes continued without the store");
    let flush = node.flush().await.unwrap_err();
    assert!(
        matches!(flush.reason, Reason::ObjectStoreUnavailable | Reason::Unavailable),
        "{flush:?}"
    );
    assert_eq!(node.scan().await.unwrap(), expected, "reads continue");

    store.plan(|_| Fault::None);
    let from = serial as i64 * 1_000;
    until("writes are accepted again", async || {
        node.write(write(1, serial, &[from])).await.is_ok()
    })
    .await;
    expected.push(from);
    until("flushes catch up", async || node.info().await.unwrap().memtable_bytes < 20_000).await;
    assert_eq!(node.scan().await.unwrap(), expected, "each row once");
    node.stop().await;
}

/// Few rows are flushed without a request, so that the log can be purged.
#[tokio::test(flavor = "multi_thread")]
async fn old_rows_are_flushed() {
    let folder = tempfile::tempdir().unwrap();
    let store = FaultyStore::new();
    let mut config = node_config(&folder, &store, 1 << 30);
    config.options.flush.max_age = Duration::from_millis(100);
    let node = start_with_region(&config).await;
    node.write(write(1, 1, &[])).await.unwrap();
    node.write(write(1, 2, &[1])).await.unwrap();
    until("the row is in a file", async || {
        let info = node.info().await.unwrap();
        (info.files, info.memtable_rows) == (1, 0)
    })
    .await;
    assert_eq!(node.scan().await.unwrap(), [1]);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn region_with_unreadable_manifest_accepts_writes_and_refuses_reads() {
    let folder = tempfile::tempdir().unwrap();
    let store = FaultyStore::new();
    let config = node_config(&folder, &store, 1 << 30);
    let node = start_with_region(&config).await;
    node.write(write(1, 1, &[])).await.unwrap();
    node.write(write(1, 2, &[1])).await.unwrap();
    node.flush().await.unwrap();
    node.stop().await;

    store.plan(|_| Fault::ErrorBefore);
    let node = Node::start(&config).await;
    until("a write is accepted", async || node.write(write(1, 3, &[2])).await.is_ok()).await;
    let refusal = node.scan().await.unwrap_err();
    assert_eq!(refusal.reason, Reason::RegionLoading);
    assert!(refusal.retry_after.is_some());
    assert_eq!(node.get(&[1]).await.unwrap_err().reason, Reason::RegionLoading);
    store.plan(|_| Fault::None);
    until("the region is read", async || node.scan().await.is_ok_and(|ids| ids == [1, 2])).await;
    node.stop().await;
}

// The put of the flush's delta takes effect and its reply is lost: the rows must not be flushed
// twice.
#[tokio::test(flavor = "multi_thread")]
async fn ambiguous_commit_does_not_duplicate_rows() {
    let folder = tempfile::tempdir().unwrap();
    let store = FaultyStore::new();
    let config = node_config(&folder, &store, 1 << 30);
    let node = start_with_region(&config).await;
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

/// Manifest versions of the region: the last one read by this node, and the last one in the log.
async fn versions(node: &Node) -> (u64, u64) {
    let replica = node.groups.get(GroupId(GROUP)).unwrap();
    let logged = replica.shared.advanced_version(RegionId(REGION)).get();
    (node.info().await.unwrap().manifest_version, logged)
}

// The delta of a flush is stored, then the store becomes unavailable before the owner learns of it.
// The next flush has nothing to write, but must still advance the log.
#[tokio::test(flavor = "multi_thread")]
async fn unacknowledged_flush_is_announced_by_the_next_flush() {
    let folder = tempfile::tempdir().unwrap();
    let store = FaultyStore::new();
    let config = node_config(&folder, &store, 1 << 30);
    let node = start_with_region(&config).await;
    node.write(write(1, 1, &[])).await.unwrap();
    node.write(write(1, 2, &[1])).await.unwrap();
    node.flush().await.unwrap();
    let (before, logged) = versions(&node).await;
    assert_eq!(before, logged);
    node.write(write(1, 3, &[2])).await.unwrap();
    let stored = Arc::new(AtomicBool::new(false));
    store.plan({
        let stored = stored.clone();
        move |call| {
            if stored.load(Ordering::SeqCst) {
                return Fault::ErrorBefore;
            }
            let delta = call.path.as_ref().ends_with(".delta");
            if delta && call.operation == Operation::PutIfAbsent {
                stored.store(true, Ordering::SeqCst);
                return Fault::ErrorAfter;
            }
            Fault::None
        }
    });
    node.flush().await.unwrap_err();
    assert_eq!(versions(&node).await, (before, logged), "the commit is not known yet");
    store.plan(|_| Fault::None);
    let flushed = node.flush().await.unwrap();
    assert_eq!((flushed.files, flushed.rows), (0, 0), "the rows were already written");
    assert_eq!(versions(&node).await, (before + 1, before + 1));
    assert_eq!(node.info().await.unwrap().memtable_rows, 0);
    node.stop().await;
}

// A leader that committed, lost the leadership before the advance was logged, and leads again: the
// region is idle, and its followers still hold the rows.
#[tokio::test(flavor = "multi_thread")]
async fn owner_announces_newer_manifests_of_idle_regions() {
    let folder = tempfile::tempdir().unwrap();
    let store = FaultyStore::new();
    let config = node_config(&folder, &store, 1 << 30);
    let node = start_with_region(&config).await;
    node.write(write(1, 1, &[])).await.unwrap();
    node.write(write(1, 2, &[1])).await.unwrap();
    node.flush().await.unwrap();
    let (before, logged) = versions(&node).await;
    assert_eq!(before, logged);
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
    until("the log has the version", async || versions(&node).await == (before + 1, before + 1))
        .await;
    drop(replica);
    node.stop().await;
}

/// An owner that crashed right after a commit has not announced it, and the replaced file is
/// deleted.
#[tokio::test(flavor = "multi_thread")]
async fn missing_file_triggers_a_manifest_reload() {
    let folder = tempfile::tempdir().unwrap();
    let store = FaultyStore::new();
    let config = node_config(&folder, &store, 1 << 30);
    let node = start_with_region(&config).await;
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
    assert_eq!(refusal.reason, Reason::FileDamaged, "{refusal:?}");
    until("the manifest is reloaded", async || node.scan().await.is_ok()).await;
    assert_eq!(node.scan().await.unwrap(), [1, 2]);
    drop(replica);
    node.stop().await;
}

// The region is far too small to be flushed by the owner's own policy.
#[tokio::test(flavor = "multi_thread")]
async fn owner_flushes_the_bytes_a_follower_requests() {
    let folder = tempfile::tempdir().unwrap();
    let store = FaultyStore::new();
    let mut config = node_config(&folder, &store, 1 << 30);
    let large = FlushPolicy { region_bytes: 1 << 30, min_bytes: 1 << 30, ..config.options.flush };
    config.options.flush = large;
    let node = start_with_region(&config).await;
    node.write(write(1, 1, &[])).await.unwrap();
    node.write(write(1, 2, &[1, 2, 3])).await.unwrap();
    let request_flush = async |over_bytes| {
        let request = RequestFlushRequest { header: node.header(), group_id: GROUP, over_bytes };
        node.control.request_flush(tonic::Request::new(request)).await.unwrap();
    };
    request_flush(1).await;
    until("the region is flushed", async || node.info().await.unwrap().files == 1).await;
    node.stop().await;
}
