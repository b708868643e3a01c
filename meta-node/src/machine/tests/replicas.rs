//! R2: replicas that have applied the same index have equal state, however they reached the index.

use std::fs;

use proptest::prelude::*;

use super::*;
use crate::commands::model_tests::any_command;

/// Entries after [`super::entries`], which register nodes.
fn log_of(kinds: Vec<Kind>) -> Vec<Entry> {
    let mut log = entries();
    let mut next = log.len() as u64;
    for kind in kinds {
        log.push(entry(next, kind));
        next += 1;
    }
    log.push(membership(next, &[1, 2, 3]));
    log
}

/// Applied log id and membership of a replica, and the digest of its state.
async fn standing(machine: &mut MetaMachine) -> (Option<LogId>, StoredMembership, u32) {
    let (last, membership) = machine.applied_state().await.unwrap();
    (last, membership, digest(&machine.view().read()).unwrap())
}

async fn apply_from(machine: &mut MetaMachine, log: &[Entry], next: usize) {
    apply(machine, log[next..].to_vec()).await;
}

/// Applies entries one by one; returns the digest after each index.
async fn digests(log: &[Entry]) -> Vec<u32> {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let mut machine = machine(dir.path(), &store);
    let mut digests = Vec::new();
    for entry in log {
        apply(&mut machine, vec![entry.clone()]).await;
        digests.push(standing(&mut machine).await.2);
    }
    digests
}

/// Applies the log with a restart at `cut`.
async fn restarted(log: &[Entry], cut: usize) -> (Option<LogId>, StoredMembership, u32) {
    let dir = tempfile::tempdir().unwrap();
    {
        let store = store(dir.path());
        apply(&mut machine(dir.path(), &store), log[..cut].to_vec()).await;
        store.shutdown();
    }
    let store = store(dir.path());
    let mut machine = machine(dir.path(), &store);
    apply_from(&mut machine, log, cut).await;
    standing(&mut machine).await
}

/// Starts from a snapshot that another replica built at `cut`.
async fn installed(log: &[Entry], cut: usize) -> (Option<LogId>, StoredMembership, u32) {
    let source = tempfile::tempdir().unwrap();
    let target = tempfile::tempdir().unwrap();
    let source_log = store(source.path());
    let target_log = store(target.path());
    let mut leader = machine(source.path(), &source_log);
    apply(&mut leader, log[..cut].to_vec()).await;
    let snapshot = leader.get_snapshot_builder().await.build_snapshot().await.unwrap();
    let mut follower = machine(target.path(), &target_log);
    follower.install_snapshot(&snapshot.meta, snapshot.snapshot).await.unwrap();
    apply_from(&mut follower, log, cut).await;
    let standing = standing(&mut follower).await;
    // The stored state equals the state in memory.
    drop(follower);
    target_log.shutdown();
    drop(target_log);
    let target_log = store(target.path());
    assert_eq!(self::standing(&mut machine(target.path(), &target_log)).await, standing);
    standing
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn replicas_at_the_same_index_are_equal(
        kinds in proptest::collection::vec(any_command(), 1..60),
        cut in any::<prop::sample::Index>(),
    ) {
        let log = log_of(kinds);
        let cut = 1 + cut.index(log.len() - 1);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let expected = *digests(&log).await.last().unwrap();
            let restarted = restarted(&log, cut).await;
            prop_assert_eq!(restarted.0, log.last().map(|entry| entry.log_id));
            prop_assert_eq!(restarted.2, expected);
            prop_assert_eq!(installed(&log, cut).await, restarted);
            Ok(())
        })?;
    }
}

/// File of RocksDB's write-ahead log, which holds all data that is not in its tables yet.
fn write_ahead_log(dir: &Path) -> std::path::PathBuf {
    let files = fs::read_dir(dir).unwrap().map(|file| file.unwrap().path());
    let logs = files.filter(|path| path.extension().is_some_and(|ending| ending == "log"));
    logs.max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap()
}

#[tokio::test]
async fn log_replay_restores_the_state_after_a_crash() {
    let table =
        |number, name: &str| Kind::CreateTable(crate::commands::testing::table(number, name));
    let group = v1::CreateGroup { first_members: vec![101, 102], home_groups: 0 };
    let mut kinds =
        vec![Kind::CreateGroup(group), Kind::ActivateGroup(v1::ActivateGroup { group_id: 1 })];
    for number in 10..20 {
        kinds.push(table(number, &format!("t{number}")));
        kinds.push(Kind::AdvanceTime(v1::AdvanceTime { now_ms: 1_000 * number, agreed_ms: 0 }));
    }
    let log = log_of(kinds);
    let digests = digests(&log).await;
    let dir = tempfile::tempdir().unwrap();
    let live = store(dir.path());
    let mut running = machine(dir.path(), &live);
    for entry in &log {
        apply(&mut running, vec![entry.clone()]).await;
        // Rows are queued behind the log: one durable write for each entry makes the cuts differ.
        let log = live.group(tidewater_common::ids::GroupId::META);
        log.write_durably(0, |_, _| Ok(())).await.unwrap();
    }
    let mut seen = BTreeSet::new();
    for lost in [0, 1, 700, 2_000, 5_000, 9_000] {
        // Simulates a crash: data that was not synced may be missing at the end.
        let crashed = tempfile::tempdir().unwrap();
        fs::create_dir(crashed.path().join("log")).unwrap();
        for file in fs::read_dir(dir.path().join("log")).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), crashed.path().join("log").join(file.file_name())).unwrap();
        }
        let ahead = write_ahead_log(&crashed.path().join("log"));
        let length = fs::metadata(&ahead).unwrap().len();
        let file = fs::OpenOptions::new().write(true).open(ahead).unwrap();
        file.set_len(length.saturating_sub(lost)).unwrap();

        let store = store(crashed.path());
        let mut machine = machine(crashed.path(), &store);
        let (last, _, found) = standing(&mut machine).await;
        let next = last.map_or(0, |id| id.index as usize + 1);
        if let Some(before) = next.checked_sub(1) {
            assert_eq!(found, digests[before], "rows and applied index are written together");
        }
        seen.insert(next);
        apply_from(&mut machine, &log, next).await;
        assert_eq!(standing(&mut machine).await.2, *digests.last().unwrap(), "{lost} lost");
    }
    assert!(seen.len() > 3, "all crashes lost the same entries: {seen:?}");
}
