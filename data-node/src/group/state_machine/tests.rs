//! Tests of the complete state machine: openraft's storage suite, and R2 through its files.

use std::collections::BTreeMap;

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use proptest::prelude::*;
use tempfile::TempDir;
use tidewater_common::clock::SystemClock;
use tidewater_common::feature_level::FeatureLevel;
use tidewater_common::ids::{GroupId, NodeId, OwnerEpoch, RegionId, Sequence, Term};
use tidewater_hook_kinds::EventTables;
use tidewater_proto::v1::WriteRequest;
use tidewater_raft_store::types::{Entry, Membership, log_id};
use tidewater_raft_store::{Command, GroupLog, LogStore, LogStoreOptions, Member};
use tidewater_region_engine::MemoryBudget;
use tidewater_region_engine::env::{EngineOptions, RegionEnv, SystemIds};
use tidewater_region_engine::storage::Storage;

use super::*;
use crate::group::entry::{
    EncodedEntry, ManifestAdvance, dropped, level_raised, manifest_advanced, opened, writes,
};
use crate::group::testing::{region, write};

const GROUP: GroupId = GroupId(5);

fn machine(folder: &TempDir) -> GroupStateMachine {
    let env = RegionEnv::new(
        Storage::memory(),
        Arc::new(SystemClock),
        Arc::new(SystemIds),
        MemoryBudget::new(1 << 30),
        EngineOptions::default(),
    );
    let shared = ReplicaState::new(GROUP, NodeId(1), env, EventTables::default(), 1 << 20);
    let snapshots = folder.path().join("snapshots");
    std::fs::create_dir_all(&snapshots).unwrap();
    let files = Arc::new(SnapshotFiles::open(snapshots).unwrap());
    // No task waits for this disk: a closed channel reports a healthy disk.
    let (_, disk) = tokio::sync::watch::channel(tidewater_raft_store::DiskHealth::Ok);
    GroupStateMachine::new(shared, files, disk, u64::MAX)
}

struct Builder;

/// Keeps store and directory for the duration of a test.
struct Guard {
    _store: Arc<LogStore>,
    _folder: TempDir,
}

impl StoreBuilder<TypeConfig, GroupLog, GroupStateMachine, Guard> for Builder {
    async fn build(
        &self,
    ) -> Result<(Guard, GroupLog, GroupStateMachine), StorageError<TypeConfig>> {
        let folder = TempDir::new().unwrap();
        let store = LogStore::open(&folder.path().join("log"), LogStoreOptions::default()).unwrap();
        let log = store.group(GROUP);
        let machine = machine(&folder);
        Ok((Guard { _store: store, _folder: folder }, log, machine))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn state_machine_passes_the_openraft_storage_suite() {
    Suite::test_all(Builder).await.unwrap();
}

fn commands() -> impl Strategy<Value = Vec<EncodedEntry>> {
    let write = (0u8..3, 1u64..5, 0i64..50, 0usize..3).prop_map(|(producer, serial, from, n)| {
        let ids: Vec<i64> = (from..).take(if serial == 1 { 0 } else { n }).collect();
        // Judged by its serial alone, like a write of an older release.
        WriteRequest { opening: 0, ..write(producer, serial, &ids) }
    });
    // Below every sequence of a write: nothing counts as flushed, so all rows are compared.
    let advance = (1u64..5, 0u64..1_000, 1u64..3).prop_map(|(version, flushed, term)| {
        manifest_advanced(&ManifestAdvance {
            region_id: RegionId(7),
            version: ManifestVersion(version),
            flushed: Sequence(flushed),
            owner: OwnerEpoch { move_epoch: 0, term: Term(term) },
            done: Sequence(0),
        })
    });
    let command = prop_oneof![
        8 => proptest::collection::vec(write, 1..4).prop_map(writes),
        1 => advance,
        1 => Just(opened(region(8, None, None), Sequence(0))),
        1 => Just(dropped(RegionId(8))),
        1 => (0..=FeatureLevel::HIGHEST.get()).prop_map(|level| level_raised(FeatureLevel::new(level))),
    ];
    proptest::collection::vec(command, 1..30)
}

/// The commands, after a membership and the opening of region 7.
fn log_of(commands: Vec<impl Into<bytes::Bytes>>) -> Vec<Entry> {
    let members = BTreeMap::from([(1, Member::new("d:1"))]);
    let membership = Membership::new(vec![[1].into()], members).unwrap();
    let first = [
        EntryPayload::Membership(membership),
        EntryPayload::Normal(Command(opened(region(7, None, None), Sequence(0)).into())),
    ];
    let rest = commands.into_iter().map(|command| EntryPayload::Normal(Command(command.into())));
    let entry = |(index, payload)| Entry { log_id: log_id(2, index), payload };
    (0..).zip(first.into_iter().chain(rest)).map(entry).collect()
}

async fn apply(machine: &mut GroupStateMachine, entries: &[Entry]) {
    let entries: Vec<_> = entries.iter().map(|entry| Ok((entry.clone(), None))).collect();
    machine.apply(futures::stream::iter(entries)).await.unwrap();
}

#[tokio::test]
async fn entry_that_is_no_entry_is_skipped() {
    let folder = TempDir::new().unwrap();
    let mut machine = machine(&folder);
    let garbage = [&b""[..], b"\xff\xff", b"\x1a\x02\xff\xff"].map(bytes::Bytes::from_static);
    let log = log_of(garbage.to_vec());
    apply(&mut machine, &log[..2]).await;
    let before = machine.shared.state.read().clone();
    apply(&mut machine, &log[2..]).await;
    assert_eq!(*machine.shared.state.read(), before);
    assert_eq!(machine.applied, Some(log_id(2, 4)));
}

#[tokio::test(flavor = "multi_thread")]
async fn received_snapshot_is_read_before_it_is_installed() {
    let folder = TempDir::new().unwrap();
    let mut machine = machine(&folder);
    apply(&mut machine, &log_of(vec![writes(vec![write(1, 1, &[])])])).await;
    let snapshot = machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
    let check = |group, meta: &SnapshotMeta, file: &SnapshotFile| {
        let checked = GroupStateMachine::check_snapshot(group, meta, file);
        checked.map_err(|error| error.kind())
    };
    assert_eq!(check(GROUP, &snapshot.meta, &snapshot.snapshot), Ok(()));
    let damaged = Err(io::ErrorKind::InvalidData);
    assert_eq!(check(GroupId(6), &snapshot.meta, &snapshot.snapshot), damaged);
    let later = SnapshotMeta { last_log_id: Some(log_id(2, 9)), ..snapshot.meta.clone() };
    assert_eq!(check(GROUP, &later, &snapshot.snapshot), damaged);
    for (name, content) in [("empty", &[][..]), ("garbage", &[7; 700][..])] {
        let path = folder.path().join(name);
        let mut writer = tidewater_raft_store::SnapshotWriter::create(path).unwrap();
        io::Write::write_all(&mut writer, content).unwrap();
        let file = writer.finish().unwrap();
        let refused = check(GROUP, &snapshot.meta, &file).unwrap_err();
        let expected = [io::ErrorKind::InvalidData, io::ErrorKind::UnexpectedEof];
        assert!(expected.contains(&refused), "{name}: {refused:?}");
    }
}

/// All replicated state, rows included, as held by a snapshot.
fn contents(machine: &GroupStateMachine) -> Vec<u8> {
    let mut bytes = Vec::new();
    machine.view().write(&mut bytes).unwrap();
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    // R2: a replica that applied all entries, one that was restarted from its own snapshot, and one
    // that installed another replica's snapshot are equal, with all their rows.
    #[test]
    fn replicas_agree_after_restart_and_snapshot_install(
        commands in commands(),
        cut in any::<prop::sample::Index>(),
    ) {
        let log = log_of(commands);
        let cut = 1 + cut.index(log.len() - 1);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let folders = [TempDir::new().unwrap(), TempDir::new().unwrap()];
            let mut whole = machine(&folders[0]);
            apply(&mut whole, &log[..cut]).await;
            whole.get_snapshot_builder().await.build_snapshot().await.unwrap();
            apply(&mut whole, &log[cut..]).await;
            let expected = contents(&whole);

            let mut restarted = machine(&folders[0]);
            let snapshot = restarted.get_current_snapshot().await.unwrap().unwrap();
            prop_assert_eq!(snapshot.meta.last_log_id, Some(log[cut - 1].log_id));
            restarted.install_snapshot(&snapshot.meta, snapshot.snapshot.clone()).await.unwrap();
            apply(&mut restarted, &log[cut..]).await;
            prop_assert!(contents(&restarted) == expected);

            // The install must remove its previous state.
            let mut installed = machine(&folders[1]);
            apply(&mut installed, &log[..cut.min(2)]).await;
            installed.install_snapshot(&snapshot.meta, snapshot.snapshot).await.unwrap();
            apply(&mut installed, &log[cut..]).await;
            prop_assert!(contents(&installed) == expected);
            let digest = |machine: &GroupStateMachine| machine.shared.state.read().digest();
            prop_assert_eq!(digest(&installed), digest(&whole));
            prop_assert_eq!(
                installed.applied_state().await.unwrap(),
                whole.applied_state().await.unwrap()
            );
            Ok(())
        })?;
    }
}
