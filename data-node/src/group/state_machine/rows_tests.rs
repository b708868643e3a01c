//! Tests of rows in memory: memory use, waiting for memory, snapshots.

use futures::FutureExt;
use tidewater_common::ids::{Epoch, OwnerEpoch, RegionId, Sequence, Term};
use tidewater_common::keys::KeyRange;
use tidewater_proto::v1::{Reason, WriteRequest};
use tidewater_raft_store::Command;
use tidewater_raft_store::types::{Entry, log_id};
use tidewater_region_engine::layout::RegionDir;
use tidewater_region_engine::region::Parent;
use tidewater_region_engine::storage::Storage;
use tidewater_region_engine::{Region, RowOp, RowsWrite};

use super::*;
use crate::group::descriptor::Descriptor;
use crate::group::entry;
use crate::group::state::{GroupState, RegionState};
use crate::group::testing::{
    batch, host, key, ledger, ledger_delete, ledger_row, ledger_write, region, shared, write,
};

/// Memory limit for rows in bytes; [`fill`] takes more than twice as much.
const MEMORY: u64 = 1_000;
const REGION: RegionId = RegionId(7);

fn machine(shared: &Arc<ReplicaState>) -> (GroupStateMachine, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let files = SnapshotFiles::open(folder.path().to_owned()).unwrap();
    // No task waits for this disk: a closed channel reports a healthy disk.
    let (_, disk) = watch::channel(DiskHealth::Ok);
    (GroupStateMachine::new(shared.clone(), Arc::new(files), disk, u64::MAX), folder)
}

/// Puts rows into region 7 that take more than twice the memory limit.
fn fill(shared: &ReplicaState) -> Arc<Region> {
    let region = host(shared, REGION.get());
    let batch = batch(&(0..200).collect::<Vec<i64>>());
    let sequence = Sequence(65_536);
    let op = RowOp::Put;
    region.apply(RowsWrite { sequence, epoch: Epoch(0), op, batch }).unwrap();
    assert!(shared.memory().used() >= 2 * MEMORY);
    region
}

async fn within(limit: Duration, expected: &str, mut condition: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(limit, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    assert!(waited.await.is_ok(), "timed out: {expected}");
}

// The entries that announce flushes are behind the waiting one: only the manifests show the
// flushes.
#[tokio::test(start_paused = true)]
async fn follower_reloads_manifests_while_waiting_for_memory() {
    let shared = shared(Storage::memory(), MEMORY);
    let region = fill(&shared);
    shared.targets.request(REGION, ManifestVersion(0));
    shared.targets.record_loaded(REGION, ManifestVersion(0));
    shared.set_replayed();
    let (machine, _folder) = machine(&shared);
    let waiting = tokio::spawn(async move { machine.wait_for_memory().await });
    for version in 1..=4 {
        within(MEMORY_RELOAD * 2, "a reload of the manifest", || shared.targets.is_open(REGION))
            .await;
        assert!(!waiting.is_finished());
        // The manifest is read and shows no flush.
        shared.targets.record_loaded(REGION, ManifestVersion(version));
    }
    region.close();
    within(MEMORY_POLL * 2, "free memory", || waiting.is_finished()).await;
}

// A replica cannot vote before it has replayed its log: after a restart of all nodes, no leader
// would be elected and nothing would be flushed.
#[tokio::test(start_paused = true)]
async fn replaying_replicas_and_leaders_do_not_wait_for_memory() {
    let shared = shared(Storage::memory(), MEMORY);
    fill(&shared);
    let (machine, _folder) = machine(&shared);
    let limit = Duration::from_secs(60);
    tokio::time::timeout(limit, machine.wait_for_memory())
        .await
        .expect("a replaying replica does not wait");
    shared.set_replayed();
    shared.set_leads(true);
    tokio::time::timeout(limit, machine.wait_for_memory()).await.expect("a leader does not wait");
    shared.set_leads(false);
    tokio::time::timeout(limit, machine.wait_for_memory()).await.expect_err("a follower waits");
}

#[tokio::test(start_paused = true)]
async fn follower_without_memory_applies_no_entries() {
    let shared = shared(Storage::memory(), MEMORY);
    let region = fill(&shared);
    shared.set_replayed();
    let (mut machine, _folder) = machine(&shared);
    let payload = EntryPayload::Normal(Command(entry::dropped(RegionId(9)).into()));
    let entry = Entry { log_id: log_id(1, 4), payload };
    let applying =
        tokio::spawn(
            async move { machine.apply(futures::stream::iter([Ok((entry, None))])).await },
        );
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!((applying.is_finished(), shared.applied()), (false, LogIndex(0)));
    region.close();
    applying.await.unwrap().unwrap();
    assert_eq!(shared.applied(), LogIndex(4));
}

// The manifest may be unreadable for long after a restart: flushed rows must not be held in memory
// again until then.
#[test]
fn flushed_rows_are_not_applied_again_after_install() {
    let shared = shared(Storage::memory(), MEMORY);
    let (mut machine, _folder) = machine(&shared);
    machine.apply_command(LogIndex(1), &entry::opened(region(7, None, None), Sequence(0))).unwrap();
    let flushed = Sequence::at(Sequence(0), LogIndex(3), 0).unwrap();
    let advance = entry::ManifestAdvance {
        region_id: REGION,
        version: ManifestVersion(2),
        flushed,
        owner: Default::default(),
        done: Default::default(),
    };
    machine.apply_command(LogIndex(2), &entry::manifest_advanced(&advance)).unwrap();
    install::install(&shared, machine.view()).unwrap();
    let region = shared.regions.get(REGION).unwrap().region;
    assert_eq!(region.flushed_sequence(), flushed);
    assert!(shared.targets.is_open(REGION), "the manifest has yet to be read");
    machine.apply_command(LogIndex(2), &entry::writes(vec![write(1, 1, &[])])).unwrap();
    for (index, rows) in [(3, 0), (4, 1)] {
        let write = WriteRequest { opening: 0, ..write(1, index - 1, &[1]) };
        machine.apply_command(LogIndex(index), &entry::writes(vec![write])).unwrap();
        assert_eq!(region.stats().memtable_rows, rows, "index {index}");
    }
}

#[test]
fn flushed_runs_of_a_snapshot_are_dropped() {
    let shared = shared(Storage::memory(), MEMORY);
    let (mut machine, _folder) = machine(&shared);
    machine.apply_command(LogIndex(1), &entry::opened(region(7, None, None), Sequence(0))).unwrap();
    machine.apply_command(LogIndex(2), &entry::writes(vec![write(1, 1, &[])])).unwrap();
    for (index, serial) in [(3, 2), (4, 3)] {
        let write = WriteRequest { opening: 0, ..write(1, serial, &[1]) };
        machine.apply_command(LogIndex(index), &entry::writes(vec![write])).unwrap();
    }
    let flushed = Sequence::at(Sequence(0), LogIndex(3), 0).unwrap();
    shared.state.write().regions.get_mut(&REGION).unwrap().flushed = flushed;
    // This replica has not read the manifest, so the snapshot holds both runs.
    let view = machine.view();
    assert_eq!(view.runs.len(), 2);
    install::install(&shared, view).unwrap();
    let region = shared.regions.get(REGION).unwrap().region;
    assert_eq!((region.stats().runs, region.stats().memtable_rows), (1, 1));
}

// The manifest records that the region was dropped or that another group owns it. The log has yet
// to reach that point, and the group's other regions must continue (A6).
#[test]
fn closed_region_does_not_stop_the_group() {
    let shared = shared(Storage::memory(), MEMORY);
    let (mut machine, _folder) = machine(&shared);
    machine.apply_command(LogIndex(1), &entry::opened(region(7, None, None), Sequence(0))).unwrap();
    machine.apply_command(LogIndex(2), &entry::writes(vec![write(1, 1, &[])])).unwrap();
    shared.regions.get(REGION).unwrap().region.close();
    let write = WriteRequest { opening: 0, ..write(1, 2, &[1]) };
    let reply = machine.apply_command(LogIndex(3), &entry::writes(vec![write])).unwrap();
    assert_eq!(entry::decode_reply(&reply).unwrap().len(), 1);
}

// The loaded files of a region are local to a replica. A write that no file can store must be
// refused by replicas that have yet to read the manifest, by those for which it is below the
// flushed sequence, and by those that have closed the region.
#[tokio::test]
async fn refusals_do_not_depend_on_the_loaded_manifest() {
    let storage = Storage::memory();
    let replicas = [(); 3].map(|()| shared(storage.clone(), 1 << 30));
    let mut machines: Vec<_> = replicas.iter().map(machine).collect();
    let mut apply = |index, command: entry::EncodedEntry| -> Vec<Vec<entry::EntryOutcome>> {
        let replies = machines.iter_mut().map(|(machine, _folder)| {
            let reply = machine.apply_command(LogIndex(index), &command).unwrap();
            entry::decode_reply(&reply).unwrap()
        });
        replies.collect()
    };
    apply(1, entry::opened(ledger(REGION.get()), Sequence(0)));
    apply(2, entry::writes(vec![write(1, 1, &[])]));

    let owner_node = shared(storage, 1 << 30);
    let descriptor = Descriptor::new(&ledger(REGION.get())).unwrap();
    let owner = owner_node.host(descriptor, Sequence(0), Sequence(0), Vec::new()).unwrap();
    owner
        .take_ownership(OwnerEpoch { move_epoch: 0, term: Term(1) }, owner_node.group)
        .await
        .unwrap();
    let flushed = Sequence::at(Sequence(0), LogIndex(100), 0).unwrap();
    let op = RowOp::Put;
    let batch = ledger_row(1, 1);
    owner.apply(RowsWrite { sequence: flushed, epoch: Epoch(0), op, batch }).unwrap();
    owner.flush().await.unwrap();
    let region = |replica: &Arc<ReplicaState>| replica.regions.get(REGION).unwrap().region;
    region(&replicas[1]).load().await.unwrap();
    assert_eq!(region(&replicas[1]).flushed_sequence(), flushed);
    region(&replicas[2]).close();

    let bad = [
        ledger_write(1, 2, i64::MAX, 0),
        // A repeat of the write above.
        ledger_write(1, 2, i64::MAX, 0),
        ledger_write(1, 2, 0, 1_000_000_000_000),
        ledger_delete(1, 2, 1_000_000_000_000),
    ];
    for (bad, index) in bad.into_iter().zip(3..) {
        let bad = WriteRequest { opening: 0, ..bad };
        let outcomes = apply(index, entry::writes(vec![bad]));
        let [entry::EntryOutcome::Refused { reason: Reason::SchemaMismatch, .. }] = outcomes[0][..]
        else {
            panic!("index {index}: {outcomes:?}")
        };
        assert!(
            outcomes.iter().all(|outcome| *outcome == outcomes[0]),
            "index {index}: {outcomes:?}"
        );
    }
    let digest = |replica: &Arc<ReplicaState>| replica.state.read().digest();
    assert!(replicas.iter().all(|replica| digest(replica) == digest(&replicas[0])));
    // The refused serial can be used again.
    let good = WriteRequest { opening: 0, ..ledger_write(1, 2, 1, 1) };
    for outcome in apply(7, entry::writes(vec![good])) {
        assert!(
            matches!(outcome[..], [entry::EntryOutcome::Done { repeated: false, .. }]),
            "{outcome:?}"
        );
    }
    assert!(replicas.iter().all(|replica| digest(replica) == digest(&replicas[0])));
}

// A snapshot may be delayed for seconds, at thousands of entries a second.
#[test]
fn housekeeping_is_notified_once_when_a_snapshot_is_due() {
    let shared = shared(Storage::memory(), MEMORY);
    let (mut machine, _folder) = machine(&shared);
    machine.snapshot_bytes = 1_000;
    let mut wakes_at = |index| {
        machine.record_applied(log_id(1, index), 600);
        shared.housekeeping.notified().now_or_never().is_some()
    };
    assert_eq!([1, 2, 3, 4].map(&mut wakes_at), [false, true, false, false]);
    shared.log_bytes.lock().record_snapshot();
    assert_eq!([5, 6, 7].map(&mut wakes_at), [false, true, false]);
}

// A group without writes has an entry for each barrier.
#[test]
fn small_entries_make_a_snapshot_due_by_their_number() {
    let shared = shared(Storage::memory(), MEMORY);
    let (mut machine, _folder) = machine(&shared);
    machine.snapshot_bytes = 3 * LEAST_ENTRY_BYTES;
    let mut wakes_at = |index| {
        machine.record_applied(log_id(1, index), 20);
        shared.housekeeping.notified().now_or_never().is_some()
    };
    assert_eq!([1, 2, 3, 4].map(&mut wakes_at), [false, false, true, false]);
}

fn view(machine: &GroupStateMachine) -> SnapshotView {
    SnapshotView { runs: Vec::new(), ..machine.view() }
}

#[tokio::test]
async fn snapshot_of_another_group_is_not_installed() {
    let shared = shared(Storage::memory(), MEMORY);
    let (machine, _folder) = machine(&shared);
    fill(&shared);
    let other = SnapshotView { group: tidewater_common::ids::GroupId(6), ..view(&machine) };
    let error = install::install(&shared, other).unwrap_err();
    assert!(error.to_string().contains("group 6"), "{error}");
    assert!(shared.regions.get(REGION).is_some(), "the region is unchanged");
}

#[test]
fn older_snapshot_does_not_replace_a_newer_one() {
    let shared = shared(Storage::memory(), MEMORY);
    let (mut machine, _folder) = machine(&shared);
    let files = machine.files.clone();
    for (index, current) in [(5, 5), (9, 9), (7, 9), (12, 12)] {
        machine.applied = Some(log_id(1, index));
        files.save(&view(&machine)).unwrap();
        let newest = files.current().unwrap().meta.last_log_id.unwrap();
        assert_eq!(newest.index, current);
        // A restart finds the same snapshot.
        let found = SnapshotFiles::open(machine.folder()).unwrap().current().unwrap();
        assert_eq!(found.meta.last_log_id.unwrap().index, current);
    }
}

#[test]
fn replaced_snapshot_is_kept_while_it_is_read() {
    let shared = shared(Storage::memory(), MEMORY);
    let (mut machine, _folder) = machine(&shared);
    let files = machine.files.clone();
    let mut save = |index| {
        machine.applied = Some(log_id(1, index));
        files.save(&view(&machine)).unwrap();
        std::fs::read_dir(machine.folder()).unwrap().count()
    };
    assert_eq!((save(5), save(6)), (1, 1));
    let sent = files.current().unwrap();
    assert_eq!(save(7), 2);
    assert!(sent.snapshot.reader().is_ok(), "a follower receives it");
    drop(sent);
    assert_eq!(save(8), 1);
    let sent = files.current().unwrap();
    assert_eq!(save(9), 2);
    drop(sent);
    SnapshotFiles::open(files.folder().to_owned()).unwrap();
    assert_eq!(std::fs::read_dir(files.folder()).unwrap().count(), 1, "after a restart");
}

// One row of an idle region would otherwise keep megabytes of other regions' rows in memory.
#[test]
fn memtable_rows_do_not_keep_log_entries_alive() {
    let shared = shared(Storage::memory(), 1 << 30);
    let (mut machine, _folder) = machine(&shared);
    let opened = entry::opened(region(7, None, None), Sequence(0));
    machine.apply_command(LogIndex(1), &opened).unwrap();
    let openings = (1..=9).map(|producer| write(producer, 1, &[])).collect();
    machine.apply_command(LogIndex(2), &entry::writes(openings)).unwrap();
    let writes = (1..=9).map(|producer| WriteRequest {
        opening: Sequence::at(Sequence(0), LogIndex(2), u32::from(producer) - 1).unwrap().get(),
        ..write(producer, 2, &[i64::from(producer)])
    });
    let bytes = entry::writes(writes.collect());
    machine.apply_command(LogIndex(3), &bytes).unwrap();
    let region = shared.regions.get(REGION).unwrap().region;
    assert_eq!((region.stats().runs, region.stats().memtable_rows), (9, 9));
    assert!(bytes.is_unique(), "no other reference to the entry");
}

// Between a split and the first deltas of its children.
#[tokio::test]
async fn children_in_a_snapshot_have_files_of_their_parent() {
    let shared = shared(Storage::memory(), 1 << 30);
    let (machine, _folder) = machine(&shared);
    let parent = fill(&shared);
    let own = OwnerEpoch { move_epoch: 0, term: Term(1) };
    parent.take_ownership(own, shared.group).await.unwrap();
    parent.flush().await.unwrap();
    let empty = KeyRange::new(Vec::new(), Some(Vec::new()));
    let sealed_at = parent.set_range(empty, None).await.unwrap();
    let spec = parent.spec();
    let dir = RegionDir {
        table_id: spec.table_id,
        region_id: spec.region_id,
        incarnation: spec.incarnation,
    };
    let descriptor = shared.regions.get(REGION).unwrap().descriptor;
    let ids = [RegionId(8), RegionId(9)];
    let mut state = GroupState::default();
    let mut of_parent = RegionState::new(descriptor.clone(), Sequence(0));
    of_parent.children = ids.to_vec();
    state.regions.insert(REGION, of_parent);
    let ranges = [KeyRange::new(Vec::new(), Some(key(10))), KeyRange::new(key(10), None)];
    for (id, range) in ids.into_iter().zip(ranges) {
        let of_child = descriptor.child(id, range).unwrap();
        let parents = vec![Parent { dir, sealed_at, last_sequence: parent.last_sequence() }];
        let of_child = RegionState { parents, ..RegionState::new(of_child, Sequence(0)) };
        state.regions.insert(id, of_child);
    }
    install::install(&shared, SnapshotView { state, ..view(&machine) }).unwrap();
    let serving = shared.regions.serving(REGION).unwrap();
    let served: Vec<RegionId> = serving.iter().map(|of| of.descriptor.region_id).collect();
    assert_eq!(served, ids);
    for hosted in serving {
        hosted.region.load().await.unwrap();
        assert_eq!(hosted.region.stats().files, 1);
    }
}
