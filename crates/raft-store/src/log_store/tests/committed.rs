//! Committed entries are neither removed nor replaced.

use super::*;
use crate::types::Entry;

fn vote(term: u64) -> Vote {
    Vote::new_committed(term, 2)
}

async fn committed_log(store: &LogStore) -> GroupLog {
    let mut log = store.group(GroupId(1));
    log.save_vote(&vote(3)).await.unwrap();
    log.blocking_append(entries(2, 0..5)).await.unwrap();
    log.blocking_append(entries(3, 5..10)).await.unwrap();
    log.save_committed(Some(log_id(3, 7))).await.unwrap();
    log
}

#[tokio::test]
async fn truncation_of_committed_entries_changes_nothing() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    let mut log = committed_log(&store).await;
    let error = log.truncate_after(Some(log_id(2, 4))).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    assert!(error.to_string().contains("committed up to 7"), "{error}");
    assert_eq!(log.try_get_log_entries(..).await.unwrap().len(), 10);
    // The store and the group continue.
    log.truncate_after(Some(log_id(3, 7))).await.unwrap();
    log.blocking_append(entries(4, 8..9)).await.unwrap();
    assert_eq!(*store.health().borrow(), DiskHealth::Ok);
    drop((log, store));
    let store = open(dir.path());
    let mut log = store.group(GroupId(1));
    assert!(log.truncate_after(None).await.is_err(), "also after a restart");
    assert_eq!(log.try_get_log_entries(..).await.unwrap().len(), 9);
}

#[tokio::test]
async fn append_that_contradicts_committed_entries_is_refused() {
    let dir = TempDir::new().unwrap();
    let small = LogStoreOptions { cache_bytes_per_group: 0, ..options() };
    let store = LogStore::open(dir.path(), small).unwrap();
    let log = committed_log(&store).await;
    let check = async |previous, sent: Vec<Entry>| {
        let result = log.check_append(&vote(50), previous, &sent).await;
        result.map_err(|error| match error {
            StoreError::ContradictsCommitted { found, local, .. } => (found.index, local.index),
            other => panic!("{other}"),
        })
    };
    assert_eq!(check(None, vec![]).await, Ok(()));
    assert_eq!(check(Some(log_id(3, 9)), entries(50, 10..12)).await, Ok(()));
    assert_eq!(check(Some(log_id(3, 7)), entries(50, 8..12)).await, Ok(()), "not committed");
    // Entries that were sent before; the stored ones are read from the disk.
    assert_eq!(check(Some(log_id(2, 3)), entries(2, 4..5)).await, Ok(()));
    assert_eq!(check(Some(log_id(2, 6)), vec![]).await, Err((6, 6)));
    assert_eq!(check(Some(log_id(2, 4)), entries(50, 5..6)).await, Err((5, 7)));
    assert_eq!(check(None, entries(2, 0..8)).await, Err((7, 7)));
    assert_eq!(log.check_append(&vote(2), None, &entries(2, 0..8)).await, Ok(()), "openraft's");
}
