//! Damage to RocksDB's write-ahead log: a crash leaves a torn end; any other damage is an error.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use super::*;

/// A store with 200 entries, copied as after a crash: all in the write-ahead log.
async fn crashed() -> (TempDir, PathBuf) {
    let dir = TempDir::new().unwrap();
    let store = open(&dir.path().join("live"));
    let mut log = store.group(GroupId(1));
    for index in 0..200 {
        log.blocking_append([entry(1, index, 100)]).await.unwrap();
    }
    let copy = dir.path().join("crashed");
    copy_files(&dir.path().join("live"), &copy);
    (dir, copy)
}

fn copy_files(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

fn write_ahead_log(dir: &Path) -> (PathBuf, u64) {
    let mut logs: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "log"))
        .map(|path| (path.clone(), fs::metadata(&path).unwrap().len()))
        .collect();
    logs.sort_by_key(|(_, length)| *length);
    logs.pop().unwrap()
}

#[tokio::test]
async fn torn_last_record_is_dropped() {
    for cut in [1, 5, 60] {
        let (_dir, copy) = crashed().await;
        let (path, length) = write_ahead_log(&copy);
        OpenOptions::new().write(true).open(path).unwrap().set_len(length - cut).unwrap();
        let store = open(&copy);
        let mut log = store.group(GroupId(1));
        assert_eq!(state(&mut log).await, (None, Some(198)), "cut by {cut}");
        let read = log.try_get_log_entries(..).await.unwrap();
        assert_eq!(indexes(&read), (0..199).collect::<Vec<_>>());
        log.blocking_append(entries(2, 199..201)).await.unwrap();
    }
}

#[tokio::test]
async fn damage_before_the_last_record_is_an_error() {
    let (_dir, copy) = crashed().await;
    let (path, length) = write_ahead_log(&copy);
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let at = length / 2;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0xff], at).unwrap();
    let error = LogStore::open(&copy, options()).unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
}

/// Wherever a crash truncates the log, the state machine's rows are not ahead of the entries that
/// they came from, and not behind the purged entries.
#[tokio::test]
async fn rows_written_behind_stay_consistent_with_the_log() {
    // One write per operation, so that a cut can fall between any two.
    let with_state = || LogStoreOptions { batch_bytes: 1, ..options() }.with_column_family("state");
    let dir = TempDir::new().unwrap();
    let live = dir.path().join("live");
    let store = LogStore::open(&live, with_state()).unwrap();
    let mut log = store.group(GroupId(1));
    for index in 0..200 {
        let (flushed, done) = callback();
        log.append([entry(1, index, 100)], flushed).await.unwrap();
        log.write_behind(16, put_row(index)).await.unwrap();
        if index % 3 == 0 {
            done.await.unwrap();
        }
        if index % 10 == 9 {
            log.purge(log_id(1, index)).await.unwrap();
        }
    }
    log.write_durably(16, put_row(199)).await.unwrap();
    let copy = dir.path().join("crashed");
    let mut rows = std::collections::BTreeSet::new();
    let (_, length) = write_ahead_log(&live);
    for cut in (0..length).step_by(509) {
        copy_files(&live, &copy);
        let (path, _) = write_ahead_log(&copy);
        OpenOptions::new().write(true).open(path).unwrap().set_len(length - cut).unwrap();
        let store = LogStore::open(&copy, with_state()).unwrap();
        let (purged, last) = state(&mut store.group(GroupId(1))).await;
        let row = row(&store);
        assert!(purged <= row && row <= last, "cut by {cut}: {purged:?} {row:?} {last:?}");
        rows.insert(row);
        drop(store);
        fs::remove_dir_all(&copy).unwrap();
    }
    assert!(rows.len() > 20, "cuts that differ: {rows:?}");
}

#[tokio::test]
async fn truncation_is_durable_when_it_returns() {
    let dir = TempDir::new().unwrap();
    let live = dir.path().join("live");
    let copy = dir.path().join("crashed");
    // The interval never triggers a write.
    let patient = LogStoreOptions { check_interval: Duration::from_secs(600), ..options() };
    let store = LogStore::open(&live, patient).unwrap();
    let mut log = store.group(GroupId(1));
    log.blocking_append(entries(3, 0..10)).await.unwrap();
    let before = store.stats().syncs;
    log.truncate_after(Some(log_id(3, 4))).await.unwrap();
    assert_eq!(store.stats().syncs, before + 1);
    copy_files(&live, &copy);
    let crashed = open(&copy);
    assert_eq!(state(&mut crashed.group(GroupId(1))).await, (None, Some(4)));
    // A truncation that removes nothing does not sync.
    log.truncate_after(Some(log_id(3, 4))).await.unwrap();
    assert_eq!(store.stats().syncs, before + 1);
}
