//! S7: collectors race with owners, compactors and clones, each paused and resumed between any two
//! storage calls, however long: what a manifest names in the end is there, and every flush that was
//! acknowledged is live, once.

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

/// The time of all who look at it: every look moves it.
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

/// What all actors share.
#[derive(Clone)]
struct Shared {
    store: FaultyStore,
    time: Time,
    /// Deltas between two checkpoints.
    checkpoint_every: u64,
    /// The flushes that were acknowledged, by number.
    flushed: Arc<Mutex<BTreeSet<u64>>>,
}

impl Shared {
    fn new(checkpoint_every: u64) -> Self {
        let (store, time) = (FaultyStore::new().stepped(), Time::default());
        Self { store, time, checkpoint_every, flushed: Arc::default() }
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

    /// A file's object is written before it is named.
    async fn write(&self, id: FileId) {
        put(&self.store.storage(), DIR.data(id)).await;
    }
}

/// Flushes: an object, then its name. One that is refused is written again under a new id.
fn owner_actor(shared: Shared, term: u64) -> Actor {
    Box::pin(async move {
        let manifest = shared.manifest(DIR);
        if manifest.fence(owner(term), GROUP).await.is_err() {
            return;
        }
        for number in 1..=4 {
            loop {
                let state = manifest.state();
                let next = state.flushed.get() / 10 + 1;
                let id = file_id(shared.time.now().max(state.gc_floor_ms), term * 1_000 + number);
                shared.write(id).await;
                let added = FileMeta { file_id: id, ..file(next) };
                let flushed = Some(added.max_sequence());
                let edit = Edit { add: vec![added], flushed, ..Edit::default() };
                match manifest.update_manifest(by_owner(term, edit)).await {
                    Ok(_) => {
                        assert!(shared.flushed.lock().insert(next), "{next} was flushed twice");
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

/// Swaps files for others.
fn compactor(shared: Shared, number: u64) -> Actor {
    Box::pin(async move {
        let manifest = shared.manifest(DIR);
        for round in 0..3 {
            manifest.refresh().await.unwrap();
            let Some(input) = manifest.state().files().next().cloned() else { continue };
            let id = file_id(shared.time.now(), number * 1_000 + round);
            shared.write(id).await;
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

/// Names the lower region's files in the higher one, then looks whether they are still live there.
fn cloner(shared: Shared, term: u64) -> Actor {
    Box::pin(async move {
        let source = shared.manifest(DIR);
        let target = shared.manifest(OTHER);
        if target.fence(owner(term), GROUP).await.is_err() {
            return;
        }
        for _ in 0..3 {
            source.refresh().await.unwrap();
            let known = target.state();
            let there = source.state();
            let fresh = there.files().find(|file| {
                let named = |own: &FileMeta| own.file_id == file.file_id;
                let gone = known.removed.keys().any(|own| own.file_id == file.file_id);
                !known.files().any(named) && !gone
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

/// Passes whose floor is close to now: whoever is paused for a moment is below it.
fn collector(shared: Shared, grace: u64) -> Actor {
    Box::pin(async move {
        for _ in 0..3 {
            let (sender, _receiver) = mpsc::channel(1_000);
            let floor_ms = shared.time.now() - grace;
            let request = GcRequest { floor_ms, ..request(false) };
            let collector = GarbageCollector::new(shared.env());
            collector.collect(&request, &sender).await.unwrap();
        }
    })
}

/// Everything that a region names live lies in the store; nothing is lost, and nothing there twice.
async fn judge(shared: &Shared) {
    let there: BTreeSet<Path> = objects(&shared.store.storage()).await.into_iter().collect();
    for dir in [DIR, OTHER] {
        let manifest = shared.manifest(dir);
        manifest.refresh().await.unwrap();
        let state = manifest.state();
        for file in state.files() {
            let path = file.origin.data(file.file_id);
            assert!(there.contains(&path), "{dir} names {path}, which is gone");
        }
        if dir == DIR {
            let mut live: Vec<u64> =
                state.files().map(|file| file.min_sequence().get() / 10).collect();
            live.sort_unstable();
            let flushed: Vec<u64> = shared.flushed.lock().iter().copied().collect();
            assert_eq!(live, flushed);
        }
    }
}

fn race(schedule: &[usize], grace: u64, checkpoint_every: u64) {
    let shared = Shared::new(checkpoint_every);
    let actors = vec![
        owner_actor(shared.clone(), 1),
        compactor(shared.clone(), 1),
        cloner(shared.clone(), 1),
        collector(shared.clone(), grace),
        collector(shared.clone(), grace + 1),
        owner_actor(shared.clone(), 2),
    ];
    play(actors, schedule, judge(&shared));
}

// One test after another would be too long for one core.
proptest! {
    #![proptest_config(histories(3_000))]

    #[test]
    fn what_is_named_is_there(schedule in schedules(6), grace in 0_u64..3) {
        race(&schedule, grace, 1_000);
    }

    #[test]
    fn what_is_named_is_there_with_more_grace(schedule in schedules(6), grace in 3_u64..8) {
        race(&schedule, grace, 1_000);
    }

    /// Slots of deltas are freed under who still believes that they are next.
    #[test]
    fn what_is_named_is_there_while_deltas_go(schedule in schedules(6), grace in 0_u64..3) {
        race(&schedule, grace, 3);
    }

    #[test]
    fn what_is_named_is_there_while_deltas_go_later(schedule in schedules(6), grace in 3_u64..20) {
        race(&schedule, grace, 4);
    }
}
