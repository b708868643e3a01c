//! S4 and S2 with compactors: flushing owners and compactors race on the real commit code, each paused and
//! resumed between any two storage calls. Every acknowledged row is live exactly once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use proptest::prelude::*;
use tidewater_common::ids::{Epoch, JobId};
use uuid::Uuid;

use crate::EngineError;
use crate::compaction::commit::commit;
use crate::compaction::{CompactionJob, CompactionReason, OutputOptions};
use crate::file_meta::FileMeta;
use crate::histories::histories;
use crate::manifest::samples::*;
use crate::manifest::{Edit, ManifestContext, ManifestOptions, Void};
use crate::schedule::{Actor, play, schedules};
use crate::storage::Operation;
use crate::storage::testing::{Fault, FaultyStore};

/// Acknowledged flushes, by file number. The sequences of a file show which flushes it contains.
type Acknowledged = Arc<Mutex<BTreeSet<u64>>>;

fn owner_actor(store: FaultyStore, term: u64, acknowledged: Acknowledged) -> Actor {
    Box::pin(async move {
        let manifest = ManifestContext::new(env(store.storage()), DIR);
        match manifest.fence(owner(term), GROUP).await {
            Ok(_) => {}
            Err(EngineError::Fenced { .. }) => return,
            Err(error) => panic!("owner {term}: {error}"),
        }
        for number in 1..=5 {
            let next = manifest.state().flushed.get() / 10 + 1;
            let id = file_id(1_000_000 + next, term * 100 + number);
            let added = FileMeta { file_id: id, rows: 1, ..file(next) };
            let flushed = Some(added.max_sequence());
            let edit = Edit { add: vec![added], flushed, ..Edit::default() };
            match manifest.update_manifest(by_owner(term, edit)).await {
                Ok(_) => assert!(acknowledged.lock().insert(next), "{next} was flushed twice"),
                Err(EngineError::Fenced { .. }) => return,
                Err(error) => panic!("owner {term}: {error}"),
            }
        }
    })
}

/// Compacts some of the files that it sees, as a compactor would: the output represents all their rows.
fn compactor(store: FaultyStore, number: u64) -> Actor {
    Box::pin(async move {
        let manifest = ManifestContext::new(env(store.storage()), DIR);
        for round in 0..4 {
            manifest.refresh().await.unwrap();
            let state = manifest.state();
            let inputs: Vec<FileMeta> = state
                .files()
                .enumerate()
                .filter(|(at, _)| !(*at as u64 + number + round).is_multiple_of(3))
                .map(|(_, file)| file.clone())
                .collect();
            let (Some(first), Some(last)) = (
                inputs.iter().min_by_key(|file| file.min_sequence()),
                inputs.iter().max_by_key(|file| file.max_sequence()),
            ) else {
                continue;
            };
            let output = FileMeta {
                file_id: file_id(1_500_000, number * 100 + round),
                rows: inputs.iter().map(|file| file.rows).sum(),
                stored_min_sequence: first.min_sequence(),
                stored_max_sequence: last.max_sequence(),
                ..first.clone()
            };
            let job = job(number * 100 + round, inputs);
            let outputs = [output];
            match commit(&manifest, &job, &outputs).await {
                // A repeated report does not commit it again.
                Ok(_) => {
                    let again = commit(&manifest, &job, &outputs).await;
                    assert!(again.is_ok(), "{again:?}");
                }
                Err(EngineError::Refused { reason: Void::InputsGone { .. }, .. }) => {}
                Err(error) => panic!("compactor {number}: {error}"),
            }
        }
    })
}

fn job(number: u64, inputs: Vec<FileMeta>) -> CompactionJob {
    CompactionJob {
        job_id: JobId(Uuid::from_u128(u128::from(number))),
        dir: DIR,
        schema: schema(1),
        options: tidewater_common::schema::TableOptions::append_only(),
        inputs,
        older: Vec::new(),
        since: Epoch(0),
        now_ms: 0,
        expired: crate::manifest::ExpiryMarks::default(),
        gc_floor_ms: 0,
        output: OutputOptions { level: 1, target_file_bytes: 1 },
        window_ms: None,
        why: CompactionReason::Tier,
    }
}

fn race(schedule: &[usize], fault_every: u64, fault: Fault) {
    let store = FaultyStore::new();
    if fault_every > 0 {
        store.plan(move |call| match call.number % fault_every {
            0 if call.operation == crate::storage::Operation::PutIfAbsent => fault,
            _ => Fault::None,
        });
    }
    let acknowledged = Acknowledged::default();
    let stepped = store.stepped();
    let actors = vec![
        owner_actor(stepped.clone(), 1, acknowledged.clone()),
        owner_actor(stepped.clone(), 2, acknowledged.clone()),
        compactor(stepped.clone(), 1),
        compactor(stepped.clone(), 2),
        compactor(stepped, 3),
    ];
    // The retries that resolve an unknown outcome have no backoff.
    play(actors, schedule, async {
        store.plan(|_| Fault::None);
        let manifest = ManifestContext::new(env(store.storage()), DIR);
        manifest.refresh().await.unwrap();
        let state = manifest.state();
        let rows: u64 = state.files().map(|file| file.rows).sum();
        let flushed = acknowledged.lock();
        assert_eq!(rows, flushed.len() as u64, "each flushed row is live once");
        assert_eq!(state.flushed.get() / 10, flushed.last().copied().unwrap_or(0));
    });
}

proptest! {
    #![proptest_config(histories(2_000))]

    #[test]
    fn racing_owners_and_compactors_keep_each_row_once(
        schedule in schedules(5),
        fault_every in prop_oneof![Just(0_u64), 2..6_u64],
        fault in prop_oneof![
            Just(Fault::ErrorBefore),
            Just(Fault::ErrorAfter),
            Just(Fault::FalseConflict),
            Just(Fault::StoredConflict),
        ],
    ) {
        race(&schedule, fault_every, fault);
    }
}

#[test]
fn compactor_paused_at_any_step_keeps_each_row_once() {
    for pause in 0..120 {
        // An owner flushes, a compactor runs up to the pause, the others complete, then it resumes.
        let schedule = [vec![0; 200], vec![1; pause], vec![2; 400], vec![1; 400]].concat();
        race(&schedule, 0, Fault::None);
    }
}

#[tokio::test]
async fn empty_job_commits_when_another_call_resolves_its_outcome() {
    let store = FaultyStore::new();
    let manifest = ManifestContext::new(env(store.stepped().storage()), DIR);
    manifest.fence(owner(1), GROUP).await.unwrap();
    manifest.update_manifest(flush(1, 1)).await.unwrap();
    let inputs: Vec<FileMeta> = manifest.state().files().cloned().collect();
    let expires = job(1, inputs.clone());
    let late = job(2, inputs);
    // The first put is stored, but its response and all reads of the first call fail. The reads of the
    // second call, which waits for the lock, succeed.
    let failing_reads = u64::from(ManifestOptions::default().settle_attempts);
    let puts = AtomicU64::new(0);
    store.plan(move |call| match call.operation {
        Operation::PutIfAbsent if puts.fetch_add(1, Ordering::Relaxed) == 0 => Fault::ErrorAfter,
        Operation::Get if puts.load(Ordering::Relaxed) <= failing_reads => Fault::ErrorBefore,
        _ => Fault::None,
    });
    let (committed, refreshed) = tokio::join!(commit(&manifest, &expires, &[]), manifest.refresh());
    assert_eq!(committed.unwrap(), refreshed.unwrap());
    assert!(manifest.state().live.is_empty());
    // Another job of the same files is refused.
    let refused = commit(&manifest, &late, &[]).await;
    assert!(
        matches!(refused, Err(EngineError::Refused { reason: Void::InputsGone { .. }, .. })),
        "{refused:?}"
    );
}
