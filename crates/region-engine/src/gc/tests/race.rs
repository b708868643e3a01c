//! S7: collectors race with owners, compactors and clones, each paused and resumed between any two
//! storage calls, for any time. At the end every referenced file exists, and every acknowledged
//! flush is live exactly once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use proptest::prelude::*;
use tidewater_common::ids::FileId;

use super::*;
use crate::EngineError;
use crate::env::RegionEnv;
use crate::histories::histories;
use crate::manifest::Void;
use crate::schedule::{Actor, play, schedules};

/// A context clock; every reading advances it.
#[derive(Debug, Clone, Default)]
struct Time(Arc<AtomicU64>);

impl Time {
    fn now(&self) -> u64 {
        1_000_000 + self.0.fetch_add(1, Ordering::Relaxed)
    }
}

impl Clock for Time {
    fn now_ms(&self) -> u64 {
        self.now()
    }
}

/// State context by all actors.
#[derive(Clone)]
struct RaceContext {
    store: FaultyStore,
    time: Time,
    /// Deltas between two checkpoints.
    checkpoint_every: u64,
    /// Acknowledged flushes, by number.
    flushed: Arc<Mutex<BTreeSet<u64>>>,
}

impl RaceContext {
    fn new(checkpoint_every: u64) -> Self {
        Self {
            store: FaultyStore::new().stepped(),
            time: Time::default(),
            checkpoint_every,
            flushed: Arc::default(),
        }
    }

    fn env(&self) -> RegionEnv {
        let mut env = env(self.store.storage());
        env.clock = Arc::new(self.time.clone());
        env.options.manifest.checkpoint_every = self.checkpoint_every;
        env
    }

    fn manifest(&self, dir: RegionDir) -> ManifestContext {
        ManifestContext::new(self.env(), dir)
    }

    /// Writes a file's object, before a manifest references it.
    async fn write(&self, id: FileId) {
        put(&self.store.storage(), DIR.data(id)).await;
    }
}

/// Flushes: writes an object, then commits its reference. A flush that is refused is rewritten
/// under a new id.
fn owner_actor(context: RaceContext, term: u64) -> Actor {
    Box::pin(async move {
        let manifest = context.manifest(DIR);
        if manifest.fence(owner(term), GROUP).await.is_err() {
            return;
        }
        for number in 1..=4 {
            loop {
                let state = manifest.state();
                let next = state.flushed.get() / 10 + 1;
                let id = file_id(context.time.now().max(state.gc_floor_ms), term * 1_000 + number);
                context.write(id).await;
                let added = FileMeta { file_id: id, ..file(next) };
                let flushed = Some(added.max_sequence());
                let edit = Edit { add: vec![added], flushed, ..Edit::default() };
                match manifest.update_manifest(by_owner(term, edit)).await {
                    Ok(_) => {
                        assert!(context.flushed.lock().insert(next), "{next} was flushed twice");
                        break;
                    }
                    Err(EngineError::Refused { reason: Void::BelowFloor { .. }, .. }) => {}
                    Err(EngineError::Fenced { .. }) => return,
                    Err(error) => panic!("owner {term}: {error}"),
                }
            }
        }
    })
}

/// Replaces files by others.
fn compactor_actor(context: RaceContext, number: u64) -> Actor {
    Box::pin(async move {
        let manifest = context.manifest(DIR);
        for round in 0..3 {
            manifest.refresh().await.unwrap();
            let Some(input) = manifest.state().files().next().cloned() else { continue };
            let id = file_id(context.time.now(), number * 1_000 + round);
            context.write(id).await;
            let output = FileMeta { file_id: id, ..input.clone() };
            let edit =
                Edit { add: vec![output], remove: vec![input.reference()], ..Edit::default() };
            match manifest.update_manifest(by_job(edit)).await {
                Ok(_)
                | Err(EngineError::Refused {
                    reason: Void::InputsGone { .. } | Void::BelowFloor { .. },
                    ..
                }) => {}
                Err(error) => panic!("compactor {number}: {error}"),
            }
        }
    })
}

/// Adopts the lower region's files into the higher one, then verifies that they are still live in
/// the lower one.
fn clone_actor(context: RaceContext, term: u64) -> Actor {
    Box::pin(async move {
        let source = context.manifest(DIR);
        let target = context.manifest(OTHER);
        if target.fence(owner(term), GROUP).await.is_err() {
            return;
        }
        for _ in 0..3 {
            source.refresh().await.unwrap();
            let known = target.state();
            let source_state = source.state();
            let fresh = source_state.files().find(|file| {
                let is_same = |own: &FileMeta| own.file_id == file.file_id;
                let was_removed = known.removed.keys().any(|own| own.file_id == file.file_id);
                !known.files().any(is_same) && !was_removed
            });
            let Some(file) = fresh.cloned() else { continue };
            let edit = Edit { add: vec![file.clone()], ..Edit::default() };
            match target.update_manifest(by_owner(term, edit)).await {
                Ok(_) => {}
                Err(EngineError::Fenced { .. }) => return,
                Err(error) => panic!("cloner {term}: {error}"),
            }
            source.refresh().await.unwrap();
            if !source.state().live.contains_key(&file.reference()) {
                let edit = Edit { remove: vec![file.reference()], ..Edit::default() };
                match target.update_manifest(by_owner(term, edit)).await {
                    Ok(_) => {}
                    Err(EngineError::Fenced { .. }) => return,
                    Err(error) => panic!("cloner {term}: {error}"),
                }
            }
        }
    })
}

/// Runs passes whose floor is close to now: an actor that is paused briefly is below it.
fn collector_actor(context: RaceContext, grace: u64) -> Actor {
    Box::pin(async move {
        for _ in 0..3 {
            let (sender, _receiver) = mpsc::channel(1_000);
            let floor_ms = context.time.now() - grace;
            let request = GcRequest { floor_ms, ..request(false) };
            let collector = GarbageCollector::new(context.env());
            collector.collect(&request, &sender).await.unwrap();
        }
    })
}

/// Verifies that every live file exists in the store; no flush is lost or present twice.
async fn verify(context: &RaceContext) {
    let stored: BTreeSet<Path> = objects(&context.store.storage()).await.into_iter().collect();
    for dir in [DIR, OTHER] {
        let manifest = context.manifest(dir);
        manifest.refresh().await.unwrap();
        let state = manifest.state();
        for file in state.files() {
            let path = file.origin.data(file.file_id);
            assert!(stored.contains(&path), "{dir} references {path}, which does not exist");
        }
        if dir == DIR {
            let mut live: Vec<u64> =
                state.files().map(|file| file.min_sequence().get() / 10).collect();
            live.sort_unstable();
            let flushed: Vec<u64> = context.flushed.lock().iter().copied().collect();
            assert_eq!(live, flushed);
        }
    }
}

fn race(schedule: &[usize], grace: u64, checkpoint_every: u64) {
    let context = RaceContext::new(checkpoint_every);
    let actors = vec![
        owner_actor(context.clone(), 1),
        compactor_actor(context.clone(), 1),
        clone_actor(context.clone(), 1),
        collector_actor(context.clone(), grace),
        collector_actor(context.clone(), grace + 1),
        owner_actor(context.clone(), 2),
    ];
    play(actors, schedule, verify(&context));
}

// A single test would run too long on one core.
proptest! {
    #![proptest_config(histories(1_500))]

    #[test]
    fn referenced_files_exist_after_a_race(schedule in schedules(6), grace in 0_u64..3) {
        race(&schedule, grace, 1_000);
    }

    #[test]
    fn referenced_files_exist_after_a_race_with_longer_grace(schedule in schedules(6), grace in 3_u64..8) {
        race(&schedule, grace, 1_000);
    }

    /// Slots of deltas are freed while a writer still expects them next.
    #[test]
    fn referenced_files_exist_while_deltas_are_cleaned(schedule in schedules(6), grace in 0_u64..3) {
        race(&schedule, grace, 3);
    }

    #[test]
    fn referenced_files_exist_while_deltas_are_cleaned_later(schedule in schedules(6), grace in 3_u64..20) {
        race(&schedule, grace, 4);
    }
}
