//! S7: collectors race with owners, compactors and clones, each paused and resumed between any two
//! storage calls, however long: what a manifest names in the end is there.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;
use tidewater_common::ids::FileId;

use super::*;
use crate::EngineError;
use crate::manifest::Void;
use crate::schedule::{Actor, play, schedules};

/// The time of all who look at it: every look moves it.
#[derive(Clone, Default)]
struct Time(Arc<AtomicU64>);

impl Time {
    fn now(&self) -> u64 {
        1_000_000 + self.0.fetch_add(1, Ordering::Relaxed)
    }
}

/// A file made now; its object is written before it is named.
async fn written(store: &FaultyStore, id: FileId) {
    put(&store.storage(), DIR.data(id)).await;
}

/// Flushes: an object, then its name. One that is refused is written again under a new id.
fn owner_actor(store: FaultyStore, time: Time, term: u64) -> Actor {
    Box::pin(async move {
        let manifest = ManifestContext::new(env(store.storage()), DIR);
        if manifest.fence(owner(term), GROUP).await.is_err() {
            return;
        }
        for number in 1..=4 {
            loop {
                let state = manifest.state();
                let next = state.flushed.get() / 10 + 1;
                let id = file_id(time.now().max(state.gc_floor_ms), term * 1_000 + number);
                written(&store, id).await;
                let added = FileMeta { file_id: id, ..file(next) };
                let flushed = Some(added.max_sequence());
                let edit = Edit { add: vec![added], flushed, ..Edit::default() };
                match manifest.update_manifest(by_owner(term, edit)).await {
                    Ok(_) => break,
                    Err(EngineError::Refused { reason: Void::BelowFloor { .. }, .. }) => {}
                    Err(EngineError::Fenced { .. }) => return,
                    Err(error) => panic!("owner {term}: {error}"),
                }
            }
        }
    })
}

/// Swaps files for others.
fn compactor(store: FaultyStore, time: Time, number: u64) -> Actor {
    Box::pin(async move {
        let manifest = ManifestContext::new(env(store.storage()), DIR);
        for round in 0..3 {
            manifest.refresh().await.unwrap();
            let Some(input) = manifest.state().files().next().cloned() else { continue };
            let id = file_id(time.now(), number * 1_000 + round);
            written(&store, id).await;
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
fn cloner(store: FaultyStore, term: u64) -> Actor {
    Box::pin(async move {
        let source = ManifestContext::new(env(store.storage()), DIR);
        let target = ManifestContext::new(env(store.storage()), OTHER);
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
fn collector(store: FaultyStore, time: Time, grace: u64) -> Actor {
    Box::pin(async move {
        for _ in 0..3 {
            let (sender, _receiver) = mpsc::channel(1_000);
            let floor_ms = time.now() - grace;
            let request = GcRequest { floor_ms, ..request(false) };
            let collector = Collector::new(env(store.storage()));
            collector.collect(&request, &sender).await.unwrap();
        }
    })
}

/// Everything that a region names live lies in the store.
async fn judge(store: &FaultyStore) {
    let there: std::collections::BTreeSet<Path> =
        objects(&store.storage()).await.into_iter().collect();
    for dir in [DIR, OTHER] {
        let manifest = ManifestContext::new(env(store.storage()), dir);
        manifest.refresh().await.unwrap();
        let state = manifest.state();
        for file in state.files() {
            let path = file.origin.data(file.file_id);
            assert!(there.contains(&path), "{dir} names {path}, which is gone");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn what_is_named_is_there(schedule in schedules(6), grace in 0_u64..6) {
        let store = FaultyStore::new();
        let time = Time::default();
        let stepped = || store.stepped();
        let actors = vec![
            owner_actor(stepped(), time.clone(), 1),
            compactor(stepped(), time.clone(), 1),
            cloner(stepped(), 1),
            collector(stepped(), time.clone(), grace),
            collector(stepped(), time.clone(), grace + 1),
            owner_actor(stepped(), time.clone(), 2),
        ];
        play(actors, &schedule, judge(&store));
    }
}
