//! Release of the disk space of purged entries.

use super::*;
use crate::log_store::reclaim::ReleasedBytes;

const KIB: usize = 1024;

/// Options with files of about 256 KiB and passes on request only. Files that are mostly dead are
/// compacted without a slack.
pub(super) fn small_files() -> LogStoreOptions {
    LogStoreOptions {
        write_buffer_bytes: KIB * KIB,
        cache_bytes_per_group: 0,
        reclaim_interval: Duration::from_secs(600),
        reclaim_slack_bytes: 0,
        ..options()
    }
}

/// Runs a pass of the reclaimer on a thread of its own, as the store does.
pub(super) fn reclaim(store: &LogStore) -> Result<ReleasedBytes, StoreError> {
    std::thread::scope(|scope| {
        scope.spawn(|| store.manual_reclaimer.pass()).join().expect("the pass ends")
    })
}

/// Writes all buffered entries to files of the last level.
pub(super) fn settle(store: &LogStore) {
    store
        .db()
        .read(|db| {
            let family = db.cf_handle(keys::LOG).unwrap();
            db.flush_cf(family)?;
            db.compact_range_cf(family, None::<&[u8]>, None::<&[u8]>);
            Ok(())
        })
        .unwrap();
}

async fn append(log: &mut GroupLog, indexes: std::ops::Range<u64>, bytes: usize) {
    let entries: Vec<_> = indexes.map(|index| entry(1, index, bytes)).collect();
    log.blocking_append(entries).await.unwrap();
}

/// Purges, and waits until the purge point is written.
async fn purge(log: &mut GroupLog, upto: u64) {
    log.purge(log_id(1, upto)).await.unwrap();
    log.save_vote(&Vote::new(1, 1)).await.unwrap();
}

fn file_bytes(store: &LogStore) -> u64 {
    reclaim(store).unwrap();
    store.usage().file_bytes
}

#[tokio::test]
async fn space_of_purged_entries_is_released() {
    let dir = TempDir::new().unwrap();
    let store = LogStore::open(dir.path(), small_files()).unwrap();
    let mut log = store.group(GroupId(1));
    for first in (0..2_000).step_by(100) {
        append(&mut log, first..first + 100, 4 * KIB).await;
    }
    settle(&store);
    let before = file_bytes(&store);
    assert!(before > 7 << 20, "{before}");
    purge(&mut log, 1_899).await;
    let released = reclaim(&store).unwrap();
    let usage = store.usage();
    // On a busy machine RocksDB may have joined the files, and the space is released by compaction.
    assert!(released.deleted + released.compacted > before / 2, "{released:?} of {before}");
    assert!(usage.file_bytes < 2 << 20, "{usage:?}");
    assert!(usage.live_bytes > 300 << 10 && usage.live_bytes <= usage.file_bytes, "{usage:?}");
    assert_eq!(usage.largest_group, Some((GroupId(1), usage.live_bytes)));
    let expected: Vec<u64> = (1_900..2_000).collect();
    assert_eq!(indexes(&log.try_get_log_entries(..).await.unwrap()), expected);
}

#[tokio::test]
async fn space_is_released_without_a_request() {
    let dir = TempDir::new().unwrap();
    let often = LogStoreOptions { reclaim_interval: Duration::from_millis(20), ..small_files() };
    let store = LogStore::open(dir.path(), often).unwrap();
    let mut log = store.group(GroupId(1));
    append(&mut log, 0..1_000, 4 * KIB).await;
    settle(&store);
    purge(&mut log, 989).await;
    eventually("the files are deleted", || {
        let usage = store.usage();
        usage.file_bytes > 0 && usage.file_bytes < 512 << 10
    })
    .await;
}

#[tokio::test]
async fn purge_point_in_memory_releases_nothing() {
    let dir = TempDir::new().unwrap();
    let disk = Arc::new(FaultyDisk::default());
    let store = LogStore::open_on(dir.path(), small_files(), Arc::clone(&disk) as _).unwrap();
    let mut log = store.group(GroupId(1));
    append(&mut log, 0..1_000, 4 * KIB).await;
    settle(&store);
    log.save_vote(&Vote::new(1, 1)).await.unwrap();
    // The flusher cannot write the purge point. The node dies before it can.
    let patient = store.stats().batches;
    store.shared.groups.lock()[&GroupId(1)].log.lock().purge(log_id(1, 899));
    assert_eq!(reclaim(&store).unwrap(), ReleasedBytes::default());
    assert_eq!(store.stats().batches, patient);
    drop((log, store));
    let store = LogStore::open(dir.path(), small_files()).unwrap();
    let mut log = store.group(GroupId(1));
    assert_eq!(state(&mut log).await, (None, Some(999)));
    assert_eq!(log.try_get_log_entries(..).await.unwrap().len(), 1_000);
}

#[tokio::test]
async fn purge_point_that_is_not_synced_releases_nothing() {
    let dir = TempDir::new().unwrap();
    let disk = Arc::new(FaultyDisk::default());
    let store = LogStore::open_on(dir.path(), small_files(), Arc::clone(&disk) as _).unwrap();
    let mut log = store.group(GroupId(1));
    append(&mut log, 0..1_000, 4 * KIB).await;
    purge(&mut log, 899).await;
    settle(&store);
    let before = file_bytes_without_pass(&store);
    disk.fail_with(Some("a sync fails"));
    assert!(matches!(reclaim(&store), Err(StoreError::Failed(_))));
    settle(&store);
    assert_eq!(file_bytes_without_pass(&store), before);
    disk.fail_with(None);
    assert_ne!(reclaim(&store).unwrap(), ReleasedBytes::default());
}

fn file_bytes_without_pass(store: &LogStore) -> usize {
    let files = store.db().read(|db| db.live_files()).unwrap();
    files.iter().filter(|file| file.column_family_name == keys::LOG).map(|file| file.size).sum()
}

#[tokio::test]
async fn first_live_entry_survives_as_last_of_a_file() {
    let dir = TempDir::new().unwrap();
    let store = LogStore::open(dir.path(), small_files()).unwrap();
    let mut log = store.group(GroupId(1));
    append(&mut log, 0..100, KIB).await;
    purge(&mut log, 98).await;
    settle(&store);
    reclaim(&store).unwrap();
    assert_eq!(indexes(&log.try_get_log_entries(..).await.unwrap()), [99]);
    drop((log, store));
    let store = LogStore::open(dir.path(), small_files()).unwrap();
    let mut log = store.group(GroupId(1));
    assert_eq!(state(&mut log).await, (Some(98), Some(99)));
    assert_eq!(indexes(&log.try_get_log_entries(..).await.unwrap()), [99]);
}

#[tokio::test]
async fn idle_group_pins_only_its_own_entries() {
    let dir = TempDir::new().unwrap();
    let store = LogStore::open(dir.path(), small_files()).unwrap();
    let mut logs: Vec<_> = (0..100).map(|group| store.group(GroupId(group))).collect();
    for first in (0..60).step_by(10) {
        for log in &mut logs {
            append(log, first..first + 10, 4 * KIB).await;
        }
    }
    settle(&store);
    let before = file_bytes(&store);
    assert!(before > 23 << 20, "{before}");
    for log in &mut logs {
        if log.group_id() != GroupId(50) {
            purge(log, 58).await;
        }
    }
    let mut passes = Vec::new();
    for _ in 0..4 {
        passes.push(file_bytes(&store));
    }
    // 60 live entries of group 50, one of each other group.
    let after = passes[3];
    assert!(after < 2 * (60 + 99) * 4 * KIB as u64 + (256 << 10), "{before} {passes:?}");
    for log in &mut logs {
        let live = log.try_get_log_entries(..).await.unwrap().len();
        assert_eq!(live, if log.group_id() == GroupId(50) { 60 } else { 1 });
    }
}

#[tokio::test]
async fn removed_group_releases_its_space() {
    let dir = TempDir::new().unwrap();
    let store = LogStore::open(dir.path(), small_files()).unwrap();
    for group in 1..=3 {
        append(&mut store.group(GroupId(group)), 0..500, 4 * KIB).await;
    }
    settle(&store);
    store.remove_group(GroupId(1)).await.unwrap();
    store.remove_group(GroupId(2)).await.unwrap();
    for _ in 0..3 {
        reclaim(&store).unwrap();
    }
    let usage = store.usage();
    assert!(usage.file_bytes < 3 << 20, "{usage:?}");
}

#[tokio::test]
async fn recreated_group_keeps_entries_below_old_purge_point() {
    let dir = TempDir::new().unwrap();
    let store = LogStore::open(dir.path(), small_files()).unwrap();
    let mut log = store.group(GroupId(1));
    append(&mut log, 0..100, KIB).await;
    purge(&mut log, 90).await;
    reclaim(&store).unwrap();
    drop(log);
    store.remove_group(GroupId(1)).await.unwrap();
    let mut log = store.group(GroupId(1));
    append(&mut log, 0..50, KIB).await;
    settle(&store);
    assert_eq!(log.try_get_log_entries(..).await.unwrap().len(), 50);
}

#[tokio::test]
async fn group_removal_waits_for_deletion_of_files() {
    let dir = TempDir::new().unwrap();
    let store = LogStore::open(dir.path(), small_files()).unwrap();
    append(&mut store.group(GroupId(1)), 0..10, 100).await;
    let gate = store.shared.reclaim_gate.lock().await;
    let mut removal = Box::pin(store.remove_group(GroupId(1)));
    let waited = tokio::time::timeout(Duration::from_millis(300), &mut removal).await;
    assert!(waited.is_err(), "a pass may still delete files by the old purge point");
    let mut old = store.group(GroupId(1));
    assert!(old.save_vote(&Vote::new(1, 1)).await.is_err(), "and the group is not created again");
    drop(gate);
    removal.await.unwrap();
}

#[tokio::test]
async fn read_during_a_purge_finds_no_hole() {
    let dir = TempDir::new().unwrap();
    let store = LogStore::open(dir.path(), small_files()).unwrap();
    let mut log = store.group(GroupId(1));
    append(&mut log, 0..100, 100).await;
    // Files are deleted in any order: the entries 10 to 79 are deleted, the first ones are not.
    store
        .write_synced(|db, batch| {
            let group = GroupId(1);
            let family = db.cf_handle(keys::LOG).unwrap();
            batch.delete_range_cf(family, keys::log_key(group, 10), keys::log_key(group, 80));
            Ok(())
        })
        .unwrap();
    let group = store.shared.groups.lock()[&GroupId(1)].clone();
    let read = || crate::log_store::read::read_stored(store.db(), &group, 5, 100, usize::MAX);
    assert!(read().is_err(), "a hole in the live log");
    log.purge(log_id(1, 79)).await.unwrap();
    assert_eq!(indexes(&read().unwrap()), (80..100).collect::<Vec<_>>());
    log.purge(log_id(1, 90)).await.unwrap();
    assert_eq!(indexes(&read().unwrap()).last(), Some(&99));
}

#[tokio::test]
async fn compaction_leaves_space_above_the_floor() {
    let dir = TempDir::new().unwrap();
    let disk = Arc::new(FaultyDisk::default());
    let with_floor = LogStoreOptions { free_space_floor: 100 << 20, ..small_files() };
    let store = LogStore::open_on(dir.path(), with_floor, Arc::clone(&disk) as _).unwrap();
    let mut logs: Vec<_> = (0..20).map(|group| store.group(GroupId(group))).collect();
    for log in &mut logs {
        append(log, 0..20, 4 * KIB).await;
    }
    settle(&store);
    for log in &mut logs {
        purge(log, 17).await;
    }
    disk.set_free(126 << 20);
    assert_eq!(reclaim(&store).unwrap().compacted, 0);
    disk.set_free(1 << 30);
    assert!(reclaim(&store).unwrap().compacted > 0);
}

/// Sizes during a long run: each group keeps a tail, and is purged as the tail moves.
#[tokio::test]
async fn disk_stays_bounded_over_a_long_run() {
    const GROUPS: u64 = 8;
    const TAIL: u64 = 128;
    let dir = TempDir::new().unwrap();
    let slack = LogStoreOptions { reclaim_slack_bytes: 2 << 20, ..small_files() };
    let store = LogStore::open(dir.path(), slack).unwrap();
    let mut logs: Vec<_> = (0..GROUPS).map(|group| store.group(GroupId(group))).collect();
    let mut curve = Vec::new();
    for round in 0..200 {
        for log in &mut logs {
            append(log, round * 16..(round + 1) * 16, 4 * KIB).await;
            if let Some(upto) = ((round + 1) * 16).checked_sub(TAIL + 1) {
                log.purge(log_id(1, upto)).await.unwrap();
            }
        }
        if round % 4 == 3 {
            reclaim(&store).unwrap();
        }
        if round % 20 == 19 {
            let usage = store.usage();
            curve.push((round / 2 + 1, usage.file_bytes >> 20, usage.wal_bytes >> 20));
        }
    }
    println!("(MiB written, MiB of files, MiB of write-ahead log): {curve:?}");
    // 4 MiB are live. 100 MiB were written.
    let most = curve.iter().map(|(_, files, _)| *files).max().unwrap();
    assert!(most <= 2 * 4 + 2 + 4, "{curve:?}");
    assert!(curve.iter().all(|(_, _, wal)| *wal <= 4), "{curve:?}");
}
