use std::collections::BTreeSet;
use std::path::Path;

use futures::stream;
use tidewater_common::feature_level::FeatureLevel;
use tidewater_common::ids::{NodeId, Revision};
use tidewater_events::RecordedEvent;
use tidewater_proto::v1::meta_command::Kind;
use tidewater_raft_store::types::{Entry, log_id};
use tidewater_raft_store::{Command, LogStoreOptions, Member};

use super::*;
use crate::catalog::digest;
use crate::catalog_events::testing::{NOW_MS, text, values};
use crate::commands::testing::{CLUSTER, command, registration};

mod golden;
mod replicas;
mod suite;

fn store(dir: &Path) -> Arc<LogStore> {
    let options = LogStoreOptions::default().with_column_family(STATE_FAMILY);
    LogStore::open(&dir.join("log"), options).unwrap()
}

fn machine(dir: &Path, log: &Arc<LogStore>) -> MetaMachine {
    MetaMachine::open(Arc::clone(log), dir.join("snapshots")).unwrap()
}

fn entry(index: u64, kind: Kind) -> Entry {
    let command = Command(command(kind).encode_to_vec().into());
    Entry { log_id: log_id(1, index), payload: openraft::EntryPayload::Normal(command) }
}

fn membership(index: u64, ids: &[u64]) -> Entry {
    let members: BTreeMap<u64, Member> =
        ids.iter().map(|id| (*id, Member::new(format!("m:{id}")))).collect();
    let membership = Membership::new(vec![ids.iter().copied().collect()], members).unwrap();
    Entry { log_id: log_id(1, index), payload: openraft::EntryPayload::Membership(membership) }
}

async fn apply(machine: &mut MetaMachine, entries: Vec<Entry>) {
    let entries = entries.into_iter().map(|entry| Ok((entry, None)));
    machine.apply(stream::iter(entries)).await.unwrap();
}

fn entries() -> Vec<Entry> {
    let bootstrap = v1::BootstrapCluster { cluster_id: CLUSTER.into(), now_ms: 5 };
    vec![
        membership(0, &[1, 2]),
        entry(1, Kind::Bootstrap(bootstrap)),
        entry(2, Kind::RegisterNode(registration(1))),
        entry(3, Kind::RegisterNode(registration(2))),
    ]
}

#[tokio::test]
async fn applied_state_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let log = store(dir.path());
    let mut first = machine(dir.path(), &log);
    assert_eq!(first.applied_state().await.unwrap(), (None, StoredMembership::default()));
    apply(&mut first, entries()).await;
    let expected = (first.view().read(), first.applied_state().await.unwrap());
    assert_eq!(expected.1.0, Some(log_id(1, 3)));
    assert_eq!(expected.0.node(NodeId(2)).unwrap().address, "m:2");
    drop(first);
    log.shutdown();
    drop(log);
    let log = store(dir.path());
    let mut again = machine(dir.path(), &log);
    assert_eq!((again.view().read(), again.applied_state().await.unwrap()), expected);
}

#[tokio::test]
async fn installed_snapshot_makes_replicas_equal() {
    let one = tempfile::tempdir().unwrap();
    let two = tempfile::tempdir().unwrap();
    let log_one = store(one.path());
    let log_two = store(two.path());
    let mut source = machine(one.path(), &log_one);
    apply(&mut source, entries()).await;
    let mut builder = source.get_snapshot_builder().await;
    // Frozen: later entries are not in it.
    apply(&mut source, vec![entry(4, Kind::RegisterNode(registration(3)))]).await;
    let snapshot = builder.build_snapshot().await.unwrap();
    assert_eq!(snapshot.meta.last_log_id, Some(log_id(1, 3)));
    assert_eq!(source.get_current_snapshot().await.unwrap().unwrap().meta, snapshot.meta);

    let mut replica = machine(two.path(), &log_two);
    // State of its own, which the snapshot must replace.
    apply(&mut replica, vec![membership(0, &[7])]).await;
    let arrived = two.path().join("snapshots/incoming-1");
    std::fs::copy(snapshot.snapshot.path(), &arrived).unwrap();
    let file = SnapshotFile::open(&arrived).unwrap();
    let changes = replica.view().subscribe();
    replica.install_snapshot(&snapshot.meta, file).await.unwrap();
    assert!(changes.has_changed().unwrap());
    assert!(!arrived.exists(), "kept under its final name");
    apply(&mut replica, vec![entry(4, Kind::RegisterNode(registration(3)))]).await;
    let left = source.view().read();
    let right = replica.view().read();
    assert_eq!(left, right);
    assert_eq!(digest(&left).unwrap(), digest(&right).unwrap());
    drop(replica);
    log_two.shutdown();
    drop(log_two);
    let log_two = store(two.path());
    let mut again = machine(two.path(), &log_two);
    assert_eq!(again.view().read(), right);
    assert_eq!(again.get_current_snapshot().await.unwrap().unwrap().meta, snapshot.meta);
}

#[tokio::test]
async fn damaged_snapshot_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let log = store(dir.path());
    let mut source = machine(dir.path(), &log);
    apply(&mut source, entries()).await;
    let snapshot = source.get_snapshot_builder().await.build_snapshot().await.unwrap();
    let before = source.view().read();
    let bad = dir.path().join("snapshots/incoming-2");
    let mut bytes = std::fs::read(snapshot.snapshot.path()).unwrap();
    bytes[10] ^= 1;
    std::fs::write(&bad, bytes).unwrap();
    let file = SnapshotFile::stat(&bad).unwrap();
    assert!(source.install_snapshot(&snapshot.meta, file).await.is_err());
    assert_eq!(source.view().read(), before);
}

#[tokio::test]
async fn snapshot_with_a_mismatched_log_id_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let log = store(dir.path());
    let mut source = machine(dir.path(), &log);
    apply(&mut source, entries()).await;
    let snapshot = source.get_snapshot_builder().await.build_snapshot().await.unwrap();
    let before = (source.view().read(), source.applied_state().await.unwrap());
    let other = SnapshotMeta { last_log_id: Some(log_id(1, 9)), ..snapshot.meta };
    assert!(source.install_snapshot(&other, snapshot.snapshot).await.is_err());
    assert_eq!((source.view().read(), source.applied_state().await.unwrap()), before);
}

#[tokio::test]
async fn late_snapshot_does_not_replace_a_newer_one() {
    let one = tempfile::tempdir().unwrap();
    let two = tempfile::tempdir().unwrap();
    let log_one = store(one.path());
    let log_two = store(two.path());
    let mut slow = machine(one.path(), &log_one);
    let mut fast = machine(two.path(), &log_two);
    apply(&mut slow, entries()).await;
    apply(&mut fast, entries()).await;
    let mut late = slow.get_snapshot_builder().await;
    apply(&mut fast, vec![entry(4, Kind::RegisterNode(registration(3)))]).await;
    let newer = fast.get_snapshot_builder().await.build_snapshot().await.unwrap();
    slow.install_snapshot(&newer.meta, newer.snapshot).await.unwrap();
    late.build_snapshot().await.unwrap();
    let current = slow.get_current_snapshot().await.unwrap().unwrap();
    assert_eq!(current.meta, newer.meta);
    assert!(SnapshotFile::open(current.snapshot.path()).is_ok());
}

#[tokio::test]
async fn previous_snapshot_is_kept_until_replaced_twice() {
    let dir = tempfile::tempdir().unwrap();
    let log = store(dir.path());
    let mut machine = machine(dir.path(), &log);
    apply(&mut machine, entries()).await;
    machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
    let mut taken = Vec::new();
    for index in 4..6 {
        taken.push(machine.get_current_snapshot().await.unwrap().unwrap().snapshot);
        apply(&mut machine, vec![entry(index, Kind::RegisterNode(registration(index)))]).await;
        machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
    }
    assert!(SnapshotFile::open(taken[1].path()).is_ok(), "it was replaced once");
    assert!(!taken[0].path().exists(), "it was replaced twice");
}

#[tokio::test]
async fn malformed_command_is_rejected_and_counts_as_applied() {
    let dir = tempfile::tempdir().unwrap();
    let log = store(dir.path());
    let mut machine = machine(dir.path(), &log);
    apply(&mut machine, entries()).await;
    let revision = machine.view().read().header().revision;
    let garbage = Command(vec![0xff; 9].into());
    let entry = Entry { log_id: log_id(1, 4), payload: openraft::EntryPayload::Normal(garbage) };
    apply(&mut machine, vec![entry]).await;
    assert_eq!(machine.view().read().header().revision, revision);
    assert_eq!(machine.applied_state().await.unwrap().0, Some(log_id(1, 4)));
    assert!(revision > Revision(0));
}

#[tokio::test]
async fn damaged_row_fails_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let log = store(dir.path());
    let mut first = machine(dir.path(), &log);
    apply(&mut first, entries()).await;
    drop(first);
    log.shutdown();
    drop(log);
    let log = store(dir.path());
    log.write_synced(|db, batch| {
        let family = db.cf_handle(STATE_FAMILY).unwrap();
        batch.put_cf(family, b"row/catalog/version", b"\x01bad");
        Ok(())
    })
    .unwrap();
    let error = MetaMachine::open(Arc::clone(&log), dir.path().join("snapshots")).unwrap_err();
    assert!(matches!(error, StateError::Catalog(_)), "{error}");
}

fn tick(index: u64, leader_digest: Option<v1::StateDigest>) -> Entry {
    let kind = Kind::AdvanceTime(v1::AdvanceTime { now_ms: 1_000 * index, agreed_ms: 0 });
    let command = v1::MetaCommand { leader_digest, ..command(kind) };
    let command = Command(command.encode_to_vec().into());
    Entry { log_id: log_id(1, index), payload: openraft::EntryPayload::Normal(command) }
}

#[tokio::test]
async fn replica_with_another_state_is_reported_until_replaced() {
    let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let logs = [0, 1, 2].map(|at| store(dirs[at].path()));
    let mut leader = machine(dirs[0].path(), &logs[0]);
    let mut equal = machine(dirs[1].path(), &logs[1]);
    let mut damaged = machine(dirs[2].path(), &logs[2]);
    let difference = |machine: &MetaMachine| {
        machine.comparison().difference().map(|at| (at.first.get(), at.last.get()))
    };
    let mut other = entries();
    other[3] = entry(3, Kind::RegisterNode(registration(9)));
    apply(&mut leader, entries()).await;
    apply(&mut equal, entries()).await;
    apply(&mut damaged, other).await;
    // Ticks with the digest of the tick before.
    let mut sent = None;
    for index in 4..=6 {
        for machine in [&mut leader, &mut equal, &mut damaged] {
            apply(machine, vec![tick(index, sent)]).await;
        }
        sent = leader.comparison().latest();
        assert_eq!(sent.map(|digest| digest.index), Some(index));
    }
    assert_eq!(difference(&leader), None);
    assert_eq!(difference(&equal), None);
    assert_eq!(difference(&damaged), Some((4, 5)));
    // Replicated time, when the leader's digest of entry 4 came with entry 5.
    let since_ms = damaged.comparison().difference().map(|at| at.since_ms);
    assert!(since_ms.is_some_and(|since_ms| since_ms > 0), "{since_ms:?}");
    // A restart repairs nothing.
    drop(damaged);
    logs[2].shutdown();
    let [_, _, last_log] = logs;
    drop(last_log);
    let log = store(dirs[2].path());
    let mut damaged = machine(dirs[2].path(), &log);
    for index in 7..=8 {
        for machine in [&mut leader, &mut damaged] {
            apply(machine, vec![tick(index, sent)]).await;
        }
        sent = leader.comparison().latest();
    }
    assert_eq!(difference(&damaged), Some((7, 7)));
    // A snapshot does.
    let snapshot = leader.get_snapshot_builder().await.build_snapshot().await.unwrap();
    let arrived = dirs[2].path().join("snapshots/incoming-1");
    std::fs::copy(snapshot.snapshot.path(), &arrived).unwrap();
    let file = SnapshotFile::open(&arrived).unwrap();
    damaged.install_snapshot(&snapshot.meta, file).await.unwrap();
    for index in 9..=10 {
        for machine in [&mut leader, &mut damaged] {
            apply(machine, vec![tick(index, sent)]).await;
        }
        sent = leader.comparison().latest();
    }
    assert_eq!(difference(&damaged), None);
}

/// Events of the last entries of a replica.
fn recent_events(machine: &MetaMachine) -> Vec<RecordedEvent> {
    values(&machine.recent_events().events_from(0, usize::MAX).events)
}

#[tokio::test]
async fn replicas_derive_equal_events_in_any_batches() {
    let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let logs = [0, 1, 2].map(|at| store(dirs[at].path()));
    let [mut one, mut two, mut three] = [0, 1, 2].map(|at| machine(dirs[at].path(), &logs[at]));
    let mut log = entries();
    let agreed = v1::AdvanceTime { now_ms: NOW_MS, agreed_ms: NOW_MS };
    log.push(entry(4, Kind::AdvanceTime(agreed)));
    log.push(membership(5, &[2]));
    apply(&mut one, log.clone()).await;
    for entry in log {
        apply(&mut two, vec![entry]).await;
    }
    let events = recent_events(&one);
    let types: Vec<&str> = events.iter().map(|event| event.event_type.as_str()).collect();
    assert_eq!(types, ["node_up", "node_up", "node_up", "node_up", "node_down"]);
    let kinds: Vec<String> = events.iter().map(|event| text(event, "node_kind")).collect();
    assert_eq!(kinds, ["meta", "meta", "data", "data", "meta"]);
    assert!(events.is_sorted_by(|one, other| one.id < other.id));
    assert_eq!(recent_events(&two), events);

    // Recording the events of a snapshot was the duty of the former leader.
    apply(&mut three, entries()).await;
    let snapshot = one.get_snapshot_builder().await.build_snapshot().await.unwrap();
    let arrived = dirs[2].path().join("snapshots/incoming-1");
    std::fs::copy(snapshot.snapshot.path(), &arrived).unwrap();
    let file = SnapshotFile::open(&arrived).unwrap();
    three.install_snapshot(&snapshot.meta, file).await.unwrap();
    assert_eq!(recent_events(&three), []);
    let later = entry(6, Kind::RegisterNode(registration(3)));
    for machine in [&mut one, &mut three] {
        apply(machine, vec![later.clone()]).await;
    }
    assert_eq!(recent_events(&three), recent_events(&one)[5..]);

    // Events of earlier entries are kept: the leader may not have recorded them.
    let snapshot = one.get_snapshot_builder().await.build_snapshot().await.unwrap();
    let arrived = dirs[1].path().join("snapshots/incoming-1");
    std::fs::copy(snapshot.snapshot.path(), &arrived).unwrap();
    let file = SnapshotFile::open(&arrived).unwrap();
    two.install_snapshot(&snapshot.meta, file).await.unwrap();
    assert_eq!(recent_events(&two), events);
}

// Other replicas apply the raise: a replica that went on without it would differ from them.
#[tokio::test]
async fn replica_stops_at_a_level_above_its_release() {
    let dir = tempfile::tempdir().unwrap();
    let log = store(dir.path());
    let mut machine = machine(dir.path(), &log);
    apply(&mut machine, entries()).await;
    let nodes = [1, 2, 101, 102].map(|node_id| v1::SupportingNode { node_id, boot: 0 });
    let raise = |index, level: FeatureLevel| {
        let raise = v1::RaiseFeatureLevel { level: level.get(), nodes: nodes.to_vec() };
        entry(index, Kind::RaiseFeatureLevel(raise))
    };
    let highest = FeatureLevel::HIGHEST;
    let mut index = 4;
    let mut level = FeatureLevel::FIRST;
    while level < highest {
        level = level.next();
        apply(&mut machine, vec![raise(index, level)]).await;
        index += 1;
    }
    let before = machine.view().read();
    assert_eq!(before.header().feature_level, highest);
    let beyond = stream::iter([Ok((raise(index, highest.next()), None))]);
    let error = machine.apply(beyond).await.unwrap_err();
    let named = format!("feature level {}", highest.next());
    assert!(error.to_string().contains(&named), "{error}");
    assert_eq!(machine.view().read(), before);
}

#[test]
fn state_above_the_releases_level_is_not_loaded() {
    let dir = tempfile::tempdir().unwrap();
    let log = store(dir.path());
    let header = v1::MetaHeader {
        feature_level: FeatureLevel::HIGHEST.next().get(),
        ..v1::MetaHeader::default()
    };
    let payload = header.encode_to_vec();
    let row = [&[2], &crc32c::crc32c(&payload).to_be_bytes()[..], &payload].concat();
    log.write_synced(|db, batch| {
        batch.put_cf(db.cf_handle("state").unwrap(), b"row/meta/header", &row);
        Ok(())
    })
    .unwrap();
    let error = MetaMachine::open(log, dir.path().join("snapshots")).unwrap_err();
    assert!(matches!(error, StateError::Release(_)), "{error}");
    let remedy = format!("start a release that supports level {}", FeatureLevel::HIGHEST.next());
    assert!(error.to_string().contains(&remedy), "{error}");
}
