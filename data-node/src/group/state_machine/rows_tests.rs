//! Rows in memory: what holds them, what waits for them to go, what a snapshot brings back.

use futures::FutureExt;
use tidewater_common::ids::{Epoch, OwnerEpoch, RegionId, Sequence, Term};
use tidewater_proto::v1::{Reason, WriteRequest};
use tidewater_raft_store::Command;
use tidewater_raft_store::types::{Entry, log_id};
use tidewater_region_engine::storage::Storage;
use tidewater_region_engine::{Region, RowOp, RowsWrite};

use super::*;
use crate::group::descriptor::Descriptor;
use crate::group::entry;
use crate::group::testing::{
    batch, host, ledger, ledger_delete, ledger_row, ledger_write, region, shared, write,
};

/// Bytes for rows; [`fill`] takes more than twice as many.
const MEMORY: u64 = 1_000;
const REGION: RegionId = RegionId(7);

fn machine(shared: &Arc<Shared>) -> (GroupStateMachine, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let files = SnapshotFiles::open(folder.path().to_owned()).unwrap();
    // Nobody waits for this disk: a closed channel says all is well.
    let (_, disk) = watch::channel(DiskHealth::Ok);
    (GroupStateMachine::new(shared.clone(), Arc::new(files), disk, u64::MAX), folder)
}

/// Puts rows into region 7 that take more than twice the memory that there is.
fn fill(shared: &Shared) -> Arc<Region> {
    let region = host(shared, REGION.get());
    let batch = batch(&(0..200).collect::<Vec<i64>>());
    let (sequence, op) = (Sequence(65_536), RowOp::Put);
    region.apply(RowsWrite { sequence, epoch: Epoch(0), op, batch }).unwrap();
    assert!(shared.memory().used() >= 2 * MEMORY);
    region
}

async fn within(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(limit, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    assert!(waited.await.is_ok(), "waited in vain: {what}");
}

// The entries that tell of flushes stand behind the one that waits: only the manifests can tell.
#[tokio::test(start_paused = true)]
async fn a_follower_that_waits_for_memory_has_manifests_read_again_and_again() {
    let shared = shared(Storage::memory(), MEMORY);
    let region = fill(&shared);
    shared.targets.want(REGION, ManifestVersion(0));
    shared.targets.reached(REGION, ManifestVersion(0));
    shared.set_replayed();
    let (machine, _folder) = machine(&shared);
    let waiting = tokio::spawn(async move { machine.wait_for_memory().await });
    for version in 1..=4 {
        within(MEMORY_RELOAD * 2, "the manifest is to be read", || shared.targets.is_open(REGION))
            .await;
        assert!(!waiting.is_finished());
        // It is read, and shows nothing flushed.
        shared.targets.reached(REGION, ManifestVersion(version));
    }
    region.close();
    within(MEMORY_POLL * 2, "there is memory", || waiting.is_finished()).await;
}

// It cannot vote before it has replayed its log: after a restart of all nodes nobody might lead, and
// so nobody flush.
#[tokio::test(start_paused = true)]
async fn neither_a_replaying_replica_nor_a_leader_waits_for_memory() {
    let shared = shared(Storage::memory(), MEMORY);
    fill(&shared);
    let (machine, _folder) = machine(&shared);
    let limit = Duration::from_secs(60);
    tokio::time::timeout(limit, machine.wait_for_memory()).await.expect("it replays its log");
    shared.set_replayed();
    shared.set_leads(true);
    tokio::time::timeout(limit, machine.wait_for_memory()).await.expect("it leads");
    shared.set_leads(false);
    tokio::time::timeout(limit, machine.wait_for_memory()).await.expect_err("it follows");
}

#[tokio::test(start_paused = true)]
async fn no_entry_is_applied_by_a_follower_without_memory() {
    let shared = shared(Storage::memory(), MEMORY);
    let region = fill(&shared);
    shared.set_replayed();
    let (mut machine, _folder) = machine(&shared);
    let payload = EntryPayload::Normal(Command(entry::dropped(RegionId(9))));
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

// The manifest may not be readable for long after a restart: what lies in files must not be held in
// memory again until then.
#[test]
fn rows_that_the_snapshot_says_are_flushed_are_not_taken_in_again() {
    let shared = shared(Storage::memory(), MEMORY);
    let (mut machine, _folder) = machine(&shared);
    machine.apply_command(LogIndex(1), &entry::opened(region(7, None, None), Sequence(0))).unwrap();
    let flushed = Sequence::at(Sequence(0), LogIndex(3), 0).unwrap();
    let advance = entry::Advance {
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
    assert!(shared.targets.is_open(REGION), "its manifest is to be read");
    machine.apply_command(LogIndex(2), &entry::writes(vec![write(1, 1, &[])])).unwrap();
    for (index, rows) in [(3, 0), (4, 1)] {
        let write = WriteRequest { opening: 0, ..write(1, index - 1, &[1]) };
        machine.apply_command(LogIndex(index), &entry::writes(vec![write])).unwrap();
        assert_eq!(region.stats().memtable_rows, rows, "index {index}");
    }
}

#[test]
fn runs_of_a_snapshot_that_are_flushed_are_not_kept() {
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
    // The manifest has not been read here, so the snapshot holds both runs.
    let view = machine.view();
    assert_eq!(view.runs.len(), 2);
    install::install(&shared, view).unwrap();
    let region = shared.regions.get(REGION).unwrap().region;
    assert_eq!((region.stats().runs, region.stats().memtable_rows), (1, 1));
}

// Its manifest says that it was dropped, or another group has taken it over: the log has yet to say
// so, and the group's other regions must not stop for it (A6).
#[test]
fn a_region_that_takes_no_more_rows_does_not_stop_the_group() {
    let shared = shared(Storage::memory(), MEMORY);
    let (mut machine, _folder) = machine(&shared);
    machine.apply_command(LogIndex(1), &entry::opened(region(7, None, None), Sequence(0))).unwrap();
    machine.apply_command(LogIndex(2), &entry::writes(vec![write(1, 1, &[])])).unwrap();
    shared.regions.get(REGION).unwrap().region.close();
    let write = WriteRequest { opening: 0, ..write(1, 2, &[1]) };
    let reply = machine.apply_command(LogIndex(3), &entry::writes(vec![write])).unwrap();
    assert_eq!(entry::decode_reply(&reply).unwrap().len(), 1);
}

// What a replica knows of a region's files is its own affair: a write that no file can hold must be
// refused by those that have yet to read the manifest, by those for which it lies below what is
// flushed, and by those that have put the region away.
#[tokio::test]
async fn a_refusal_does_not_depend_on_what_a_replica_has_loaded() {
    let storage = Storage::memory();
    let replicas = [(); 3].map(|()| shared(storage.clone(), 1 << 30));
    let mut machines: Vec<_> = replicas.iter().map(machine).collect();
    let mut apply = |index, command: bytes::Bytes| -> Vec<Vec<entry::Outcome>> {
        let replies = machines.iter_mut().map(|(machine, _folder)| {
            let reply = machine.apply_command(LogIndex(index), &command).unwrap();
            entry::decode_reply(&reply).unwrap()
        });
        replies.collect()
    };
    apply(1, entry::opened(ledger(REGION.get()), Sequence(0)));
    apply(2, entry::writes(vec![write(1, 1, &[])]));

    let elsewhere = shared(storage, 1 << 30);
    let descriptor = Descriptor::new(&ledger(REGION.get())).unwrap();
    let owner = elsewhere.host(descriptor, Sequence(0), Sequence(0)).unwrap();
    owner
        .take_ownership(OwnerEpoch { move_epoch: 0, term: Term(1) }, elsewhere.group)
        .await
        .unwrap();
    let flushed = Sequence::at(Sequence(0), LogIndex(100), 0).unwrap();
    let (op, batch) = (RowOp::Put, ledger_row(1, 1));
    owner.apply(RowsWrite { sequence: flushed, epoch: Epoch(0), op, batch }).unwrap();
    owner.flush().await.unwrap();
    let region = |replica: &Arc<Shared>| replica.regions.get(REGION).unwrap().region;
    region(&replicas[1]).load().await.unwrap();
    assert_eq!(region(&replicas[1]).flushed_sequence(), flushed);
    region(&replicas[2]).close();

    let bad = [
        ledger_write(1, 2, i64::MAX, 0),
        // A repeat.
        ledger_write(1, 2, i64::MAX, 0),
        ledger_write(1, 2, 0, 1_000_000_000_000),
        ledger_delete(1, 2, 1_000_000_000_000),
    ];
    for (bad, index) in bad.into_iter().zip(3..) {
        let bad = WriteRequest { opening: 0, ..bad };
        let outcomes = apply(index, entry::writes(vec![bad]));
        let [entry::Outcome::Refused { reason: Reason::SchemaMismatch, .. }] = outcomes[0][..]
        else {
            panic!("index {index}: {outcomes:?}")
        };
        assert!(outcomes.iter().all(|one| *one == outcomes[0]), "index {index}: {outcomes:?}");
    }
    let digest = |replica: &Arc<Shared>| replica.state.read().digest();
    assert!(replicas.iter().all(|replica| digest(replica) == digest(&replicas[0])));
    // The serial was not used up.
    let good = WriteRequest { opening: 0, ..ledger_write(1, 2, 1, 1) };
    for outcome in apply(7, entry::writes(vec![good])) {
        assert!(
            matches!(outcome[..], [entry::Outcome::Done { repeated: false, .. }]),
            "{outcome:?}"
        );
    }
    assert!(replicas.iter().all(|replica| digest(replica) == digest(&replicas[0])));
}

// A snapshot may be held back for seconds, at thousands of entries a second.
#[test]
fn housekeeping_is_woken_when_a_snapshot_becomes_due_and_not_by_every_entry_after() {
    let shared = shared(Storage::memory(), MEMORY);
    let (mut machine, _folder) = machine(&shared);
    machine.snapshot_bytes = 100;
    let mut wakes_at = |index| {
        machine.note(log_id(1, index), 60);
        shared.housekeeping.notified().now_or_never().is_some()
    };
    assert_eq!([1, 2, 3, 4].map(&mut wakes_at), [false, true, false, false]);
    shared.log_bytes.lock().snapshot_begun();
    assert_eq!([5, 6, 7].map(&mut wakes_at), [false, true, false]);
}

fn view(machine: &GroupStateMachine) -> SnapshotView {
    SnapshotView { runs: Vec::new(), ..machine.view() }
}

#[tokio::test]
async fn a_snapshot_of_another_group_is_not_installed() {
    let shared = shared(Storage::memory(), MEMORY);
    let (machine, _folder) = machine(&shared);
    fill(&shared);
    let other = SnapshotView { group: tidewater_common::ids::GroupId(6), ..view(&machine) };
    let error = install::install(&shared, other).unwrap_err();
    assert!(error.to_string().contains("group 6"), "{error}");
    assert!(shared.regions.get(REGION).is_some(), "nothing was touched");
}

#[test]
fn an_older_snapshot_does_not_take_the_place_of_a_newer_one() {
    let shared = shared(Storage::memory(), MEMORY);
    let (mut machine, _folder) = machine(&shared);
    let files = machine.files.clone();
    for (index, current) in [(5, 5), (9, 9), (7, 9), (12, 12)] {
        machine.applied = Some(log_id(1, index));
        files.save(&view(&machine)).unwrap();
        let newest = files.current().unwrap().meta.last_log_id.unwrap();
        assert_eq!(newest.index, current);
        // As a restart finds it.
        let found = SnapshotFiles::open(machine.folder()).unwrap().current().unwrap();
        assert_eq!(found.meta.last_log_id.unwrap().index, current);
    }
    let kept = std::fs::read_dir(machine.folder()).unwrap().count();
    assert_eq!(kept, 2, "the newest, and the one before for whoever reads it");
}

// One row of a cold region would otherwise keep megabytes of other regions' rows in memory.
#[test]
fn rows_in_memory_do_not_hold_on_to_the_log_entry() {
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
    assert!(bytes.is_unique(), "nothing else holds the entry");
}
