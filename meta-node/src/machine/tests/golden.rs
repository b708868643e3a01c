//! Frozen bytes of the state machine: rows in the log's database, and snapshots.

use tidewater_common::ids::GroupId;

use super::*;
use crate::catalog::MetaState;
use crate::commands::testing::{hex, one_of_each, unhex};
use crate::machine::snapshot::SnapshotDir;
use crate::machine::store::StateStore;

const GOLDEN_SNAPSHOT: &str = include_str!("golden_snapshot.txt");

fn meta() -> SnapshotMeta {
    let members = BTreeMap::from([(1, Member::new("m:1")), (2, Member::new("m:2"))]);
    let membership = Membership::new(vec![[1, 2].into()], members).unwrap();
    SnapshotMeta {
        last_log_id: Some(log_id(2, 300)),
        last_membership: StoredMembership::new(Some(log_id(1, 7)), membership),
    }
}

/// 64 bytes a line, so that differences are visible in the test output.
fn lines(bytes: &[u8]) -> String {
    bytes.chunks(64).map(|line| hex(line) + "\n").collect()
}

#[test]
fn snapshot_bytes_are_frozen() {
    let dir = tempfile::tempdir().unwrap();
    let written = SnapshotDir::open(dir.path().to_owned()).unwrap();
    let snapshot = written.write(&one_of_each(), meta()).unwrap();
    let bytes = std::fs::read(snapshot.snapshot.path()).unwrap();
    assert_eq!(lines(&bytes), GOLDEN_SNAPSHOT, "older snapshots must stay readable");
    let name = snapshot.snapshot.path().file_name().unwrap();
    assert_eq!(name, "catalog-00000000000000000002-00000000000000000300");
}

#[test]
fn snapshot_of_an_older_release_is_readable() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("catalog-00000000000000000002-00000000000000000300");
    let bytes: Vec<u8> = GOLDEN_SNAPSHOT.lines().flat_map(unhex).collect();
    std::fs::write(&path, bytes).unwrap();
    let found = SnapshotDir::open(dir.path().to_owned()).unwrap();
    let snapshot = found.current().unwrap();
    assert_eq!(snapshot.meta, meta());
    let (state, rows) = found.install(meta(), snapshot.snapshot).unwrap();
    assert_eq!(state, one_of_each());
    assert_eq!(rows, one_of_each().rows().unwrap());
}

fn stored(log: &LogStore) -> Vec<(String, Vec<u8>)> {
    let rows = log.db().read(|db| {
        let family = db.cf_handle("state").unwrap();
        db.iterator_cf(family, rocksdb::IteratorMode::Start).collect::<Result<Vec<_>, _>>()
    });
    let text = |key: &[u8]| String::from_utf8_lossy(key).into_owned();
    rows.unwrap().into_iter().map(|(key, value)| (text(&key), value.into_vec())).collect()
}

#[tokio::test]
async fn stored_state_keys_and_bytes_are_frozen() {
    let dir = tempfile::tempdir().unwrap();
    let log = store(dir.path());
    let mut machine = machine(dir.path(), &log);
    apply(&mut machine, entries()).await;
    // Rows are queued behind the log; a durable write flushes them.
    log.group(GroupId::META).write_durably(0, |_, _| Ok(())).await.unwrap();
    let mut rows = stored(&log);
    let membership = rows.iter().position(|row| row.0 == "membership").unwrap();
    let members = "0a02080112180a040a0201021207080112036d3a311207080212036d3a32";
    assert_eq!(hex(&rows.remove(membership).1), members);
    let applied = rows.iter().position(|row| row.0 == "applied").unwrap();
    assert_eq!(hex(&rows.remove(applied).1), "080110011803");
    // The bytes of prefixed rows are frozen by the catalog's tests.
    let mut expected: Vec<_> = machine
        .view()
        .read()
        .rows()
        .unwrap()
        .into_iter()
        .map(|(key, value)| (format!("row/{}", String::from_utf8_lossy(&key)), value))
        .collect();
    // Not changed so far, so not written.
    expected.retain(|row| !row.0.starts_with("row/catalog/"));
    expected.sort();
    rows.sort();
    assert_eq!(rows, expected);
}

#[tokio::test]
async fn rows_of_an_older_release_are_readable() {
    let dir = tempfile::tempdir().unwrap();
    let log = store(dir.path());
    log.write_synced(|db, batch| {
        let family = db.cf_handle("state").unwrap();
        for (key, value) in one_of_each().rows().unwrap() {
            batch.put_cf(family, [b"row/", key.as_slice()].concat(), value);
        }
        batch.put_cf(family, b"applied", unhex("0801100118ac02"));
        batch.put_cf(family, b"membership", unhex("0a0408011007"));
        Ok(())
    })
    .unwrap();
    let (state, applied) = StateStore::new(log).load().unwrap();
    assert_eq!(state, one_of_each());
    assert_eq!(applied.last, Some(log_id(1, 300)));
    assert_eq!(applied.membership.log_id(), &Some(log_id(1, 7)));
    assert_ne!(state, MetaState::default());
}
