//! Owners and jobs that race, each paused and resumed between any two storage calls (S4).

use parking_lot::Mutex;
use proptest::prelude::*;
use tidewater_common::ids::OwnerEpoch;

use super::*;
use crate::file_meta::FileMeta;
use crate::histories::histories;
use crate::schedule::{Actor, play, schedules};
use crate::storage::testing::Fault;

/// Results reported to the actors, in order.
#[derive(Debug, Clone, PartialEq)]
enum Reported {
    Committed(Arc<Delta>),
    Fenced,
}

type Log = Arc<Mutex<Vec<Reported>>>;

/// Fences, then flushes until it is fenced or finished. Each owner has its own file numbers.
fn owner_actor(store: FaultyStore, term: u64, log: Log) -> Actor {
    Box::pin(async move {
        let mut manager = RegionManifestManager::new(env(store.storage()), DIR);
        let mut change = fence(term);
        for number in 1..=4 {
            match manager.update(change).await {
                Ok(delta) => log.lock().push(Reported::Committed(delta)),
                Err(EngineError::Fenced { .. }) => return log.lock().push(Reported::Fenced),
                Err(error) => panic!("owner {term}: {error}"),
            }
            // Above all flushed sequences, as a memtable would be.
            let next = manager.state().flushed.get() / 10 + 1;
            let id = file_id(1_000_000 + next, term * 100 + number);
            let add = vec![FileMeta { file_id: id, ..file(next) }];
            let flushed = Some(file(next).max_sequence());
            change = by_owner(term, Edit { add, flushed, ..Edit::default() });
        }
    })
}

/// Replaces the first live file that it sees, a few times.
fn job_actor(store: FaultyStore, number: u64, log: Log) -> Actor {
    Box::pin(async move {
        let mut manager = RegionManifestManager::new(env(store.storage()), DIR);
        for round in 0..4 {
            manager.refresh().await.unwrap();
            let Some(input) = manager.state().files().next().cloned() else { continue };
            let output =
                FileMeta { file_id: file_id(1_500_000, number * 100 + round), ..input.clone() };
            let swap =
                Edit { add: vec![output], remove: vec![input.reference()], ..Edit::default() };
            match manager.update(by_job(swap)).await {
                Ok(delta) => log.lock().push(Reported::Committed(delta)),
                Err(EngineError::Refused { reason: Void::InputsGone { .. }, .. }) => {}
                Err(error) => panic!("job {number}: {error}"),
            }
        }
    })
}

/// Reads all deltas directly from the store: one total order without gaps.
async fn stored(store: &FaultyStore) -> Vec<Delta> {
    let mut deltas = Vec::new();
    for name in names(store).await.iter().filter(|name| name.ends_with(".delta")) {
        let path = DIR.manifest().join(name.as_str());
        let bytes = store.storage().get(&path).await.unwrap();
        deltas.push(codec::decode_delta(&bytes).unwrap());
    }
    for (at, delta) in deltas.iter().enumerate() {
        assert_eq!(delta.version, ManifestVersion(at as u64 + 1));
    }
    deltas
}

async fn verify(store: &FaultyStore, log: &Log) {
    let deltas = stored(store).await;
    let mut state = ManifestState::empty(DIR);
    let mut applied = Vec::new();
    let mut newest: Option<OwnerEpoch> = None;
    for delta in deltas {
        let outcome = replay::apply(&mut state, &delta);
        if outcome != replay::ReplayOutcome::Applied {
            continue;
        }
        if let Author::Owner(own) = delta.author {
            assert!(newest <= Some(own), "{own} committed after the fence of {newest:?}");
            newest = Some(own);
        }
        applied.push(delta);
    }
    // Every reported commit is present once, and no unreported one is present.
    let mut reported: Vec<Delta> = log
        .lock()
        .iter()
        .filter_map(|reported| match reported {
            Reported::Committed(delta) => Some((**delta).clone()),
            Reported::Fenced => None,
        })
        .collect();
    reported.sort_by_key(|delta| delta.version);
    assert_eq!(reported, applied);
    assert_eq!(read(store).await, state);
}

fn race(schedule: &[usize], fault_every: u64, fault: Fault) {
    let store = FaultyStore::new();
    if fault_every > 0 {
        store.plan(move |call| match call.number % fault_every {
            0 if call.operation == crate::storage::Operation::PutIfAbsent => fault,
            _ => Fault::None,
        });
    }
    let log = Log::default();
    let stepped = store.stepped();
    let actors = vec![
        owner_actor(stepped.clone(), 1, Arc::clone(&log)),
        owner_actor(stepped.clone(), 2, Arc::clone(&log)),
        owner_actor(stepped.clone(), 3, Arc::clone(&log)),
        job_actor(stepped.clone(), 7, Arc::clone(&log)),
        job_actor(stepped, 8, Arc::clone(&log)),
    ];
    play(actors, schedule, async {
        store.plan(|_| Fault::None);
        verify(&store, &log).await;
    });
}

// A single test would run too long on one core.
proptest! {
    #![proptest_config(histories(2_000))]

    #[test]
    fn racing_owners_and_jobs_keep_one_order(schedule in schedules(5)) {
        race(&schedule, 0, Fault::None);
    }

    #[test]
    fn order_holds_when_puts_fail_before_storing(schedule in schedules(5), every in 2..6_u64) {
        race(&schedule, every, Fault::ErrorBefore);
    }

    #[test]
    fn order_holds_when_puts_fail_after_storing(schedule in schedules(5), every in 2..6_u64) {
        race(&schedule, every, Fault::ErrorAfter);
    }

    #[test]
    fn order_holds_when_puts_report_false_conflicts(schedule in schedules(5), every in 2..6_u64) {
        race(&schedule, every, Fault::FalseConflict);
    }

    #[test]
    fn order_holds_when_puts_conflict_with_themselves(schedule in schedules(5), every in 2..6_u64) {
        race(&schedule, every, Fault::StoredConflict);
    }
}

#[test]
fn owner_paused_during_a_failover_commits_nothing_more() {
    for pause in 0..80 {
        // The first owner runs `pause` steps, the second to its end, then the first resumes.
        let schedule = [vec![0; pause], vec![1; 400]].concat();
        race(&schedule, 0, Fault::None);
    }
}
