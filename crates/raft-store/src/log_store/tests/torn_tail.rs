//! Damage to RocksDB's write-ahead log: a torn end is what a crash leaves, anything else is not.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use super::*;

/// A store with 200 entries, copied as a crash would leave it: all in the write-ahead log.
async fn crashed() -> (TempDir, PathBuf) {
    let dir = TempDir::new().unwrap();
    let store = open(&dir.path().join("live"));
    let mut log = store.group(GroupId(1));
    for index in 0..200 {
        log.blocking_append([entry(1, index, 100)]).await.unwrap();
    }
    let copy = dir.path().join("crashed");
    fs::create_dir(&copy).unwrap();
    for file in fs::read_dir(dir.path().join("live")).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), copy.join(file.file_name())).unwrap();
    }
    (dir, copy)
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
async fn a_torn_last_record_is_dropped() {
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
async fn damage_in_the_middle_is_an_error() {
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
