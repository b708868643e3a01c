//! Durability: no operation completes before it is durable.

use futures::{StreamExt, poll};

use super::*;

#[tokio::test]
async fn appended_entries_are_readable_before_they_are_durable() {
    let dir = TempDir::new().unwrap();
    let (store, disk) = open_faulty(dir.path());
    let mut log = store.group(GroupId(1));
    disk.set_held(true);
    let (flushed, mut done) = callback();
    log.append(entries(1, 0..3), flushed).await.unwrap();
    assert_eq!(indexes(&log.try_get_log_entries(0..9).await.unwrap()), [0, 1, 2]);
    eventually("the flusher has taken it", || store.shared.queue.bytes() == 0).await;
    assert_eq!(store.stats().entries, 0);
    assert!(poll!(&mut done).is_pending(), "completed before it is written");
    disk.set_held(false);
    done.await.unwrap();
    assert_eq!(store.stats().entries, 3);
}

#[tokio::test]
async fn vote_is_durable_before_the_call_returns() {
    let dir = TempDir::new().unwrap();
    let (store, disk) = open_faulty(dir.path());
    let mut log = store.group(GroupId(1));
    disk.set_held(true);
    let vote = Vote::new(4, 2);
    let mut saving = Box::pin(log.save_vote(&vote));
    assert!(poll!(&mut saving).is_pending());
    eventually("the flusher has taken it", || store.shared.queue.bytes() == 0).await;
    assert!(poll!(&mut saving).is_pending(), "completed before it is written");
    let before = store.stats();
    disk.set_held(false);
    saving.await.unwrap();
    assert_eq!(store.stats().syncs, before.syncs + 1, "and synced");
}

#[tokio::test]
async fn lazy_writes_are_written_without_a_sync() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    let mut log = store.group(GroupId(1));
    log.blocking_append(entries(1, 0..3)).await.unwrap();
    let before = store.stats();
    log.save_committed(Some(log_id(1, 1))).await.unwrap();
    eventually("it is written", || store.stats().batches > before.batches).await;
    assert_eq!(store.stats().syncs, before.syncs);
}

#[tokio::test]
async fn entry_stored_at_another_index_is_damage() {
    let dir = TempDir::new().unwrap();
    let store =
        LogStore::open(dir.path(), LogStoreOptions { cache_bytes_per_group: 0, ..options() })
            .unwrap();
    let mut log = store.group(GroupId(1));
    log.blocking_append(entries(1, 0..5)).await.unwrap();
    store
        .write_synced(|db, batch| {
            let family = db.cf_handle(keys::LOG).unwrap();
            let other = db.get_cf(family, keys::log_key(GroupId(1), 4)).unwrap().unwrap();
            batch.put_cf(family, keys::log_key(GroupId(1), 2), other);
            Ok(())
        })
        .unwrap();
    let error = log.try_get_log_entries(0..5).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidData, "{error}");
}

#[tokio::test]
async fn entries_are_returned_only_while_their_leader_leads() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    let mut log = store.group(GroupId(1));
    log.save_vote(&Vote::new_committed(1, 7)).await.unwrap();
    let large: Vec<_> = (0..3).map(|index| entry(1, index, 3 * 1024 * 1024)).collect();
    log.blocking_append(large).await.unwrap();
    let leader = Vote::new_committed(1, 7).leader_id;
    let mut reader = log.clone();
    let mut stream = Box::pin(reader.leader_bounded_stream(leader, 0..3).await);
    assert_eq!(stream.next().await.unwrap().unwrap().log_id, log_id(1, 0));
    log.save_vote(&Vote::new(2, 8)).await.unwrap();
    assert!(stream.next().await.unwrap().is_err(), "another node may lead now");
    assert!(stream.next().await.is_none());
}
