//! Stored layout of the database: names, keys and values of an older release must stay readable.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::reclaim::{reclaim, settle};
use super::*;
use crate::types::{Command, Entry, EntryPayload, Member, Membership};

/// Column family, key and value of group 7 (vote, committed, purged; a blank entry, a command, a
/// membership) and of group 258 (a vote that is not committed).
const GOLDEN: &str = "\
raft_log 00000000000000070000000000000002 0a040802100212036f6e65
raft_log 00000000000000070000000000000003 \
0a04080310031a210a040a0201020a030a01021209080112056e313a37341209080212056e323a3734
raft_state 000000000000000701 080310021801
raft_state 000000000000000702 08021002
raft_state 000000000000000703 08021001
raft_state 000000000000010201 08091004
";

fn command(term: u64, index: u64, text: &'static str) -> Entry {
    let command = Command(Bytes::from_static(text.as_bytes()));
    Entry { log_id: log_id(term, index), payload: EntryPayload::Normal(command) }
}

fn blank(term: u64, index: u64) -> Entry {
    Entry { log_id: log_id(term, index), payload: EntryPayload::Blank }
}

fn membership(term: u64, index: u64) -> Entry {
    let members = BTreeMap::from([(1, Member::new("n1:74")), (2, Member::new("n2:74"))]);
    let sets = vec![[1, 2].into(), [2].into()];
    let membership = Membership::new(sets, members).unwrap();
    Entry { log_id: log_id(term, index), payload: EntryPayload::Membership(membership) }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

fn stored(store: &LogStore) -> String {
    let mut text = String::new();
    for family in ["raft_log", "raft_state"] {
        let rows = store.db().read(|db| {
            let rows = db.iterator_cf(db.cf_handle(family).unwrap(), rocksdb::IteratorMode::Start);
            rows.collect::<Result<Vec<_>, _>>()
        });
        for (key, value) in rows.unwrap() {
            text += &format!("{family} {} {}\n", hex(&key), hex(&value));
        }
    }
    text
}

#[tokio::test]
async fn log_has_its_frozen_keys_and_bytes() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    let mut log = store.group(GroupId(7));
    log.blocking_append([blank(1, 0), blank(2, 1)]).await.unwrap();
    log.purge(log_id(2, 1)).await.unwrap();
    log.blocking_append([command(2, 2, "one"), membership(3, 3)]).await.unwrap();
    log.save_committed(Some(log_id(2, 2))).await.unwrap();
    log.save_vote(&Vote::new_committed(3, 2)).await.unwrap();
    store.group(GroupId(258)).save_vote(&Vote::new(9, 4)).await.unwrap();
    reclaim(&store).unwrap();
    settle(&store);
    assert_eq!(stored(&store), GOLDEN);
}

#[tokio::test]
async fn log_of_an_older_release_is_readable() {
    let dir = TempDir::new().unwrap();
    {
        let store = open(dir.path());
        store
            .write_synced(|db, batch| {
                for line in GOLDEN.lines() {
                    let words: Vec<&str> = line.split(' ').collect();
                    let family = db.cf_handle(words[0]).unwrap();
                    batch.put_cf(family, unhex(words[1]), unhex(words[2]));
                }
                Ok(())
            })
            .unwrap();
    }
    let store = open(dir.path());
    assert_eq!(store.groups(), [GroupId(7), GroupId(258)]);
    let mut log = store.group(GroupId(7));
    assert_eq!(state(&mut log).await, (Some(1), Some(3)));
    assert_eq!(log.read_vote().await.unwrap(), Some(Vote::new_committed(3, 2)));
    assert_eq!(log.read_committed().await.unwrap(), Some(log_id(2, 2)));
    assert_eq!(log.purged(), Some(log_id(2, 1)));
    let read = log.try_get_log_entries(..).await.unwrap();
    assert_eq!(read, [command(2, 2, "one"), membership(3, 3)]);
    let mut other = store.group(GroupId(258));
    assert_eq!(other.read_vote().await.unwrap(), Some(Vote::new(9, 4)));
    assert_eq!(state(&mut other).await, (None, None));
}
