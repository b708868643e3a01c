use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use openraft::RaftLogReader;
use openraft::storage::{RaftLogStorage, RaftLogStorageExt};
use tempfile::TempDir;
use tidewater_common::ids::GroupId;

use super::*;
use crate::testing::faults::FaultyDisk;
use crate::testing::{callback, entries, entry, eventually, indexes};
use crate::types::{Vote, log_id};

mod committed;
mod crash;
mod durability;
mod full_disk;
mod layout;
mod reclaim;
mod reclaim_model;
mod speed;
mod suite;
mod torn_tail;

fn options() -> LogStoreOptions {
    LogStoreOptions { check_interval: Duration::from_millis(20), ..LogStoreOptions::default() }
}

fn open(dir: &Path) -> Arc<LogStore> {
    LogStore::open(dir, options()).unwrap()
}

fn open_faulty(dir: &Path) -> (Arc<LogStore>, Arc<FaultyDisk>) {
    let disk = Arc::new(FaultyDisk::default());
    let store = LogStore::open_on(dir, options(), Arc::clone(&disk) as _).unwrap();
    (store, disk)
}

async fn state(log: &mut GroupLog) -> (Option<u64>, Option<u64>) {
    let state = log.get_log_state().await.unwrap();
    (state.last_purged_log_id.map(|id| id.index), state.last_log_id.map(|id| id.index))
}

#[tokio::test]
async fn one_sync_completes_many_groups_in_order() {
    let dir = TempDir::new().unwrap();
    let (store, disk) = open_faulty(dir.path());
    disk.set_held(true);
    // Keeps the flusher busy while the others accumulate.
    let (first, first_done) = callback();
    store.group(GroupId(99)).append(entries(1, 0..1), first).await.unwrap();
    eventually("the flusher has taken it", || store.shared.queue.bytes() == 0).await;
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = Vec::new();
    for group in 0..20 {
        let (flushed, done) = callback();
        store.group(GroupId(group)).append(entries(1, 0..2), flushed).await.unwrap();
        let order = Arc::clone(&order);
        // Polled before the flush, on one thread: the tasks wake in the order of completion.
        tasks.push(tokio::spawn(async move {
            done.await.unwrap();
            order.lock().push(group);
        }));
    }
    tokio::task::yield_now().await;
    let before = store.stats();
    disk.set_held(false);
    first_done.await.unwrap();
    for task in tasks {
        task.await.unwrap();
    }
    let after = store.stats();
    assert_eq!(after.syncs - before.syncs, 2, "one for the first, one for twenty groups");
    assert_eq!(after.entries, 41);
    assert_eq!(*order.lock(), (0..20).collect::<Vec<_>>());
}

#[tokio::test]
async fn log_state_survives_a_restart() {
    let dir = TempDir::new().unwrap();
    {
        let store = open(dir.path());
        let mut one = store.group(GroupId(1));
        one.save_vote(&Vote::new_committed(3, 7)).await.unwrap();
        one.blocking_append(entries(3, 0..10)).await.unwrap();
        one.save_committed(Some(log_id(3, 6))).await.unwrap();
        one.purge(log_id(3, 3)).await.unwrap();
        one.truncate_after(Some(log_id(3, 7))).await.unwrap();
        one.blocking_append(entries(4, 8..9)).await.unwrap();
        let mut two = store.group(GroupId(2));
        two.save_vote(&Vote::new(1, 2)).await.unwrap();
        store.group(GroupId(3));
        store.shutdown();
    }
    let store = open(dir.path());
    assert_eq!(store.groups(), [GroupId(1), GroupId(2)]);
    let mut one = store.group(GroupId(1));
    assert_eq!(one.read_vote().await.unwrap(), Some(Vote::new_committed(3, 7)));
    assert_eq!(one.read_committed().await.unwrap(), Some(log_id(3, 6)));
    assert_eq!(state(&mut one).await, (Some(3), Some(8)));
    let read = one.try_get_log_entries(0..99).await.unwrap();
    assert_eq!(indexes(&read), [4, 5, 6, 7, 8]);
    assert_eq!(read[4], entry(4, 8, 8));
    let mut two = store.group(GroupId(2));
    assert_eq!(two.read_vote().await.unwrap(), Some(Vote::new(1, 2)));
    assert_eq!(state(&mut two).await, (None, None));
}

#[tokio::test]
async fn established_log_is_listed_after_a_restart() {
    let dir = TempDir::new().unwrap();
    {
        let store = open(dir.path());
        store.group(GroupId(1)).establish().await.unwrap();
        let mut two = store.group(GroupId(2));
        two.save_vote(&Vote::new(3, 7)).await.unwrap();
        two.establish().await.unwrap();
        assert_eq!(store.groups(), [GroupId(1), GroupId(2)]);
        store.shutdown();
    }
    let store = open(dir.path());
    assert_eq!(store.groups(), [GroupId(1), GroupId(2)]);
    let mut one = store.group(GroupId(1));
    assert_eq!(state(&mut one).await, (None, None));
    assert_eq!(one.read_vote().await.unwrap(), Some(Vote::new(0, 0)));
    assert_eq!(store.group(GroupId(2)).read_vote().await.unwrap(), Some(Vote::new(3, 7)));
}

#[tokio::test]
async fn evicted_entries_are_read_from_the_database() {
    let dir = TempDir::new().unwrap();
    let store =
        LogStore::open(dir.path(), LogStoreOptions { cache_bytes_per_group: 300, ..options() })
            .unwrap();
    let mut log = store.group(GroupId(1));
    for index in 0..20 {
        log.blocking_append([entry(1, index, 8)]).await.unwrap();
    }
    let held = log.clone().last_log_id().unwrap().index;
    assert_eq!(held, 19);
    let all: Vec<u64> = (0..20).collect();
    assert_eq!(indexes(&log.try_get_log_entries(..).await.unwrap()), all);
    assert_eq!(indexes(&log.try_get_log_entries(3..5).await.unwrap()), [3, 4]);
    log.truncate_after(Some(log_id(1, 9))).await.unwrap();
    log.blocking_append(entries(2, 10..12)).await.unwrap();
    let read = log.try_get_log_entries(8..).await.unwrap();
    assert_eq!(indexes(&read), [8, 9, 10, 11]);
    assert_eq!(read[2].log_id, log_id(2, 10));
}

#[tokio::test]
async fn bounded_read_returns_at_least_one_entry() {
    let dir = TempDir::new().unwrap();
    let store =
        LogStore::open(dir.path(), LogStoreOptions { cache_bytes_per_group: 0, ..options() })
            .unwrap();
    let mut log = store.group(GroupId(1));
    let large: Vec<_> = (0..4).map(|index| entry(1, index, 3 * 1024 * 1024)).collect();
    log.blocking_append(large.clone()).await.unwrap();
    assert_eq!(indexes(&log.limited_get_log_entries(0, 4).await.unwrap()), [0], "from disk");
    assert_eq!(indexes(&log.limited_get_log_entries(0, 1).await.unwrap()), [0]);
    let wide = store.group(GroupId(2));
    wide.clone().blocking_append(large).await.unwrap();
    let mut reader = wide.clone();
    let stream = reader.entries_stream(1..4).await;
    let all: Vec<_> = futures::StreamExt::collect(stream).await;
    assert_eq!(all.len(), 3, "a stream continues after each bounded read");
}

#[tokio::test]
async fn hole_is_refused_by_writes_and_found_by_reads() {
    let dir = TempDir::new().unwrap();
    let store =
        LogStore::open(dir.path(), LogStoreOptions { cache_bytes_per_group: 0, ..options() })
            .unwrap();
    let mut log = store.group(GroupId(1));
    log.blocking_append(entries(1, 0..10)).await.unwrap();
    let (flushed, _done) = callback();
    let error = log.append(entries(1, 11..12), flushed).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    // Simulate a database that lost an entry.
    store
        .write_synced(|db, batch| {
            batch.delete_cf(db.cf_handle(keys::LOG).unwrap(), keys::log_key(GroupId(1), 4));
            Ok(())
        })
        .unwrap();
    let error = log.try_get_log_entries(0..10).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidData, "{error}");
    let error = log.try_get_log_entries(4..10).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidData, "{error}");
}

#[tokio::test]
async fn log_without_its_first_entry_is_not_opened() {
    let dir = TempDir::new().unwrap();
    {
        let store = open(dir.path());
        let mut log = store.group(GroupId(1));
        log.blocking_append(entries(1, 0..10)).await.unwrap();
        log.purge(log_id(1, 4)).await.unwrap();
        log.save_vote(&Vote::new(1, 1)).await.unwrap();
        store
            .write_synced(|db, batch| {
                batch.delete_cf(db.cf_handle(keys::LOG).unwrap(), keys::log_key(GroupId(1), 5));
                Ok(())
            })
            .unwrap();
    }
    let error = LogStore::open(dir.path(), options()).unwrap_err();
    assert!(matches!(error, StoreError::GroupDamaged { group: GroupId(1), .. }), "{error}");
}

#[tokio::test]
async fn installed_snapshot_may_be_ahead_of_the_log() {
    let dir = TempDir::new().unwrap();
    {
        let store = open(dir.path());
        let mut log = store.group(GroupId(1));
        log.blocking_append(entries(1, 0..5)).await.unwrap();
        log.purge(log_id(2, 50)).await.unwrap();
        assert_eq!(state(&mut log).await, (Some(50), Some(50)));
        log.blocking_append(entries(2, 51..53)).await.unwrap();
    }
    let store = open(dir.path());
    let mut log = store.group(GroupId(1));
    assert_eq!(state(&mut log).await, (Some(50), Some(52)));
    assert_eq!(indexes(&log.try_get_log_entries(..).await.unwrap()), [51, 52]);
}

#[tokio::test]
async fn removed_group_can_be_created_again() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    let mut old = store.group(GroupId(1));
    old.save_vote(&Vote::new(1, 1)).await.unwrap();
    old.blocking_append(entries(1, 0..5)).await.unwrap();
    store.group(GroupId(2)).blocking_append(entries(1, 0..5)).await.unwrap();
    store.remove_group(GroupId(1)).await.unwrap();
    assert_eq!(store.groups(), [GroupId(2)]);
    assert!(old.save_vote(&Vote::new(2, 1)).await.is_err(), "an old handle writes nothing");
    let mut new = store.group(GroupId(1));
    assert_eq!(state(&mut new).await, (None, None));
    assert_eq!(new.read_vote().await.unwrap(), None);
    new.blocking_append(entries(3, 0..1)).await.unwrap();
    drop((old, new));
    store.shutdown();
    drop(store);
    let store = open(dir.path());
    assert_eq!(store.groups(), [GroupId(1), GroupId(2)]);
    assert_eq!(state(&mut store.group(GroupId(1))).await, (None, Some(0)));
    assert_eq!(state(&mut store.group(GroupId(2))).await, (None, Some(4)));
}

#[tokio::test]
async fn appends_wait_while_the_queue_is_full() {
    let dir = TempDir::new().unwrap();
    let disk = Arc::new(FaultyDisk::default());
    let small = LogStoreOptions { pending_bytes: 1_000, ..options() };
    let store = LogStore::open_on(dir.path(), small, Arc::clone(&disk) as _).unwrap();
    disk.set_held(true);
    let (flushed, _first) = callback();
    store.group(GroupId(1)).append(entries(1, 0..1), flushed).await.unwrap();
    eventually("the flusher has taken it", || store.shared.queue.bytes() == 0).await;
    let (flushed, _second) = callback();
    store.group(GroupId(1)).append([entry(1, 1, 2_000)], flushed).await.unwrap();
    let (flushed, third) = callback();
    let mut log = store.group(GroupId(1));
    let mut waiting = std::pin::pin!(log.append(entries(1, 2..3), flushed));
    // Capacity is the only condition that an append waits for.
    assert!(futures::poll!(&mut waiting).is_pending());
    disk.set_held(false);
    waiting.await.unwrap();
    third.await.unwrap();
}

#[tokio::test]
async fn second_handle_on_the_database_is_refused() {
    let dir = TempDir::new().unwrap();
    let _store = open(dir.path());
    let error = LogStore::open(dir.path(), options()).unwrap_err();
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
}

#[tokio::test]
async fn callers_column_family_survives_a_restart() {
    let dir = TempDir::new().unwrap();
    let with_state = || options().with_column_family("state");
    {
        let store = LogStore::open(dir.path(), with_state()).unwrap();
        store
            .write_synced(|db, batch| {
                batch.put_cf(db.cf_handle("state").unwrap(), b"k", b"v");
                Ok(())
            })
            .unwrap();
    }
    let store = LogStore::open(dir.path(), with_state()).unwrap();
    let value = store.db().read(|db| db.get_cf(db.cf_handle("state").unwrap(), b"k")).unwrap();
    assert_eq!(value.as_deref(), Some(&b"v"[..]));
}

fn put_row(value: u64) -> impl Fn(&DB, &mut WriteBatch) -> Result<(), StoreError> + Send {
    move |db, batch| {
        batch.put_cf(db.cf_handle("state").unwrap(), b"row", value.to_be_bytes());
        Ok(())
    }
}

fn row(store: &LogStore) -> Option<u64> {
    let row = store.db().read(|db| db.get_cf(db.cf_handle("state").unwrap(), b"row")).unwrap();
    row.map(|bytes| u64::from_be_bytes(bytes.try_into().unwrap()))
}

#[tokio::test]
async fn lazy_writes_are_written_with_the_next_append() {
    let dir = TempDir::new().unwrap();
    let patient = LogStoreOptions { check_interval: Duration::from_secs(600), ..options() };
    let store = LogStore::open(dir.path(), patient.with_column_family("state")).unwrap();
    let mut log = store.group(GroupId(1));
    for index in 0..100 {
        log.blocking_append(entries(1, index..index + 1)).await.unwrap();
        log.save_committed(Some(log_id(1, index))).await.unwrap();
        log.write_behind(16, put_row(index)).await.unwrap();
    }
    let stats = store.stats();
    assert_eq!((stats.batches, stats.syncs), (100, 100));
    assert_eq!(row(&store), Some(98), "the last one waits for the next entry");
    log.write_durably(16, put_row(100)).await.unwrap();
    assert_eq!((store.stats().syncs, row(&store)), (101, Some(100)));
}

#[tokio::test]
async fn lazy_writes_are_written_after_interval_or_size() {
    let dir = TempDir::new().unwrap();
    let store = LogStore::open(dir.path(), options().with_column_family("state")).unwrap();
    let log = store.group(GroupId(1));
    log.write_behind(16, put_row(1)).await.unwrap();
    eventually("it is written after the interval", || row(&store) == Some(1)).await;
    assert_eq!(store.stats().syncs, 0);
    store.shutdown();
    drop((log, store));
    let patient = LogStoreOptions { check_interval: Duration::from_secs(600), ..options() };
    let store = LogStore::open(dir.path(), patient.with_column_family("state")).unwrap();
    let log = store.group(GroupId(1));
    log.write_behind(16 << 20, put_row(2)).await.unwrap();
    eventually("many bytes are written immediately", || row(&store) == Some(2)).await;
    log.write_behind(16, put_row(3)).await.unwrap();
    store.shutdown();
    drop((log, store));
    let store = LogStore::open(dir.path(), options().with_column_family("state")).unwrap();
    assert_eq!(row(&store), Some(3), "the rest is written when the store is closed");
}
