//! Splits and merges under changes of leaders, bulk loads, truncations, late compactions, clones and garbage
//! collection, each paused and resumed between any two storage calls, for any time. No schedule loses a row or
//! a file, or shows a row twice (S7 to S9).

use std::sync::Arc;

use proptest::prelude::*;
use tidewater_common::ids::{ManifestVersion, RegionId};
use tokio::sync::mpsc;

use super::family::{Family, Half};
use crate::file_meta::FileMeta;
use crate::gc::{GarbageCollector, GcRequest};
use crate::histories::histories;
use crate::manifest::samples::{DIR, GROUP, by_owner, owner};
use crate::manifest::{Change, Edit, ManifestContext};
use crate::schedule::{Actor, play, schedules};
use crate::{EngineError, Region};

/// Region that copies files of the first parent. Its id is above those of the children.
const CLONE: RegionId = RegionId(30);
/// First child.
const CHILD: RegionId = RegionId(20);
/// Number of actors of a race.
const ACTORS: usize = 9;

/// Returns `None` if a later leader has the region or has removed it; panics on other errors.
#[track_caller]
fn unless_replaced<T>(result: Result<T, EngineError>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(
            EngineError::Fenced { .. } | EngineError::NotOwner { .. } | EngineError::Removed { .. },
        ) => None,
        Err(error) => panic!("{error}"),
    }
}

/// Leader of a term: divides the parents unless an earlier leader has, and completes the division.
fn leader(family: Family, term: u64, abandons: bool) -> Actor {
    Box::pin(async move {
        family.elect(term);
        if family.children().is_none() {
            let divided = divide(&family, term, abandons).await;
            if unless_replaced(divided).is_none() {
                return;
            }
        }
        let Some(children) = family.children() else { return };
        if term == 2 {
            // Refused, unless the children are born.
            remove_parents(&family, term).await;
        }
        for (child, half) in children.iter().zip([Half::Low, Half::High]) {
            child.load().await.unwrap();
            family.verify(child);
            if term % 2 == 1 {
                child.begin().await.unwrap();
                family.verify(child);
            }
            // A lower term continues with the other child: its calls must change nothing.
            let _ = unless_replaced(own_child(&family, child, term, half).await);
        }
        remove_parents(&family, term).await;
    })
}

/// Takes the parents, seals them and has the log divide them. An abandoning leader restores their ranges once
/// in between. Without an error, the term may have ended before.
async fn divide(family: &Family, term: u64, abandons: bool) -> Result<(), EngineError> {
    let parents = family.parents();
    for parent in &parents {
        parent.take_ownership(owner(term), GROUP).await?;
    }
    if !family.is_held() {
        work(family, &parents, term).await?;
    }
    if abandons && family.hold(term, true) {
        seal(family, &parents).await?;
        if family.hold(term, false) {
            work(family, &parents, term).await?;
        }
    }
    if family.hold(term, true) {
        let seals = seal(family, &parents).await?;
        family.divide(term, &seals);
    }
    Ok(())
}

/// Restores the ranges, writes, flushes and loads.
async fn work(family: &Family, parents: &[Arc<Region>], term: u64) -> Result<(), EngineError> {
    for parent in parents {
        if parent.is_sealed() {
            parent.set_range(parent.spec().range.clone(), None).await?;
        }
    }
    for half in [Half::Low, Half::High] {
        family.write(half);
        for (index, parent) in parents.iter().enumerate() {
            family.settle(index, parent).await?;
            family.flush(parent, u64::MAX).await?;
            family.bulk_load(term, index, parent, half).await?;
        }
    }
    Ok(())
}

async fn seal(
    family: &Family,
    parents: &[Arc<Region>],
) -> Result<Vec<(ManifestVersion, Vec<FileMeta>)>, EngineError> {
    let mut seals = Vec::new();
    for (index, parent) in parents.iter().enumerate() {
        seals.push(family.seal(index, parent).await?);
    }
    Ok(seals)
}

async fn own_child(
    family: &Family,
    child: &Region,
    term: u64,
    half: Half,
) -> Result<(), EngineError> {
    child.take_ownership(owner(term), GROUP).await?;
    family.verify(child);
    family.write(half);
    family.flush(child, u64::MAX).await?;
    family.verify(child);
    family.compact(child.id(), &child.manifest).await;
    child.load().await?;
    family.verify(child);
    Ok(())
}

async fn remove_parents(family: &Family, term: u64) {
    for parent in family.parents() {
        let owned = parent.take_ownership(owner(term), GROUP).await;
        if unless_replaced(owned).is_none() {
            continue;
        }
        match parent.remove_parent(&family.child_dirs()).await {
            Err(EngineError::ChildUnborn { .. }) => {}
            removed => {
                unless_replaced(removed);
            }
        }
    }
}

/// Writes and truncates; the log decides when.
fn client(family: Family) -> Actor {
    Box::pin(async move {
        for number in 0..15 {
            tokio::task::yield_now().await;
            match number % 5 {
                4 => family.truncate(),
                1 | 3 => family.write(Half::High),
                _ => family.write(Half::Low),
            }
        }
    })
}

/// Compacts a region as a compactor that reports late.
fn compactor(family: Family, region: RegionId) -> Actor {
    Box::pin(async move {
        for _ in 0..3 {
            let manifest = family.manifest(region);
            manifest.refresh().await.unwrap();
            family.compact(region, &manifest).await;
        }
    })
}

/// Adopts files of the first parent, and verifies that they are still live there.
fn cloner(family: Family) -> Actor {
    Box::pin(async move {
        let source = family.manifest(DIR.region_id);
        let target = family.manifest(CLONE);
        target.fence(owner(1), GROUP).await.unwrap();
        for _ in 0..3 {
            source.refresh().await.unwrap();
            let known = target.state();
            let is_known = |id| {
                let mut files = known.live.keys().chain(known.removed.keys());
                files.any(|own| own.file_id == id)
            };
            let state = source.state();
            let Some(file) = state.files().find(|file| !is_known(file.file_id)) else { continue };
            let edit = Edit { add: vec![file.clone()], ..Edit::default() };
            commit(&target, by_owner(1, edit)).await;
            source.refresh().await.unwrap();
            if !source.state().live.contains_key(&file.reference()) {
                let edit = Edit { remove: vec![file.reference()], ..Edit::default() };
                commit(&target, by_owner(1, edit)).await;
            }
        }
    })
}

async fn commit(manifest: &ManifestContext, change: Change) {
    manifest.update_manifest(change).await.unwrap();
}

/// Runs passes whose floor is close to now: an actor that is paused briefly is below it.
fn collector(family: Family, grace: u64) -> Actor {
    Box::pin(async move {
        for _ in 0..4 {
            let (sender, _receiver) = mpsc::channel(1_000);
            let floor_ms = family.now() - grace;
            let request = GcRequest { floor_ms, dry_run: false, table: None, max_deletions: 1_000 };
            GarbageCollector::new(family.env()).collect(&request, &sender).await.unwrap();
        }
    })
}

/// `abandons`: for each term, whether its leader abandons the division once.
fn race(family: &Family, schedule: &[usize], grace: u64, abandons: [bool; 3]) {
    let mut actors = vec![
        client(family.clone()),
        compactor(family.clone(), DIR.region_id),
        compactor(family.clone(), CHILD),
        cloner(family.clone()),
        collector(family.clone(), grace),
        collector(family.clone(), grace + 1),
    ];
    for (abandons, term) in abandons.into_iter().zip(1..) {
        actors.push(leader(family.clone(), term, abandons));
    }
    assert_eq!(actors.len(), ACTORS);
    play(actors, schedule, async {
        family.verify_end().await;
        family.verify_files(CLONE).await;
    });
}

proptest! {
    #![proptest_config(histories(200))]

    #[test]
    fn split_loses_nothing_in_a_race(
        schedule in schedules(ACTORS),
        grace in 0_u64..20,
        abandons in any::<[bool; 3]>(),
    ) {
        race(&Family::split(1_000), &schedule, grace, abandons);
    }

    /// Slots of first deltas and seals are freed while actors still expect them.
    #[test]
    fn split_loses_nothing_while_deltas_are_cleaned(
        schedule in schedules(ACTORS),
        grace in 0_u64..20,
        abandons in any::<[bool; 3]>(),
    ) {
        race(&Family::split(3), &schedule, grace, abandons);
    }

    #[test]
    fn merge_loses_nothing_in_a_race(
        schedule in schedules(ACTORS),
        grace in 0_u64..20,
        abandons in any::<[bool; 3]>(),
    ) {
        race(&Family::merge(4), &schedule, grace, abandons);
    }
}
