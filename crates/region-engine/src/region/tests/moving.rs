//! Moves of a region between two groups, under changes of the leaders of both and of the meta group, abandonments, late
//! compactions and garbage collection, each paused and resumed between any two storage calls, for any time. The region
//! has one owner, and no acknowledged row is lost or shown twice (R15, T4).

mod groups;

use proptest::prelude::*;
use tidewater_common::ids::{OwnerEpoch, Term};
use tokio::sync::mpsc;

use self::groups::{Groups, Place, Serving, Step};
use crate::EngineError;
use crate::gc::{GarbageCollector, GcRequest};
use crate::histories::histories;
use crate::manifest::{RequiredProgress, Void};
use crate::schedule::{Actor, play, schedules};

/// Number of actors of a race.
const ACTORS: usize = 10;
/// Moves of a race, at least.
const MOVES: u64 = 3;

/// Returns `None` if another owner has the region; panics on other errors.
#[track_caller]
fn unless_replaced<T>(result: Result<T, EngineError>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(
            EngineError::Fenced { .. }
            | EngineError::NotOwner { .. }
            | EngineError::Refused { reason: Void::OwnedByGroup { .. }, .. },
        ) => None,
        Err(error) => panic!("{error}"),
    }
}

/// Leader of a group in a term: flushes while the group has the region, and keeps a region whose move takes too
/// long, if it is impatient.
fn leader(groups: Groups, place: Place, term: u64, impatient: bool) -> Actor {
    Box::pin(async move {
        groups.elect(place, term);
        let mut rounds = 0;
        while rounds < 12 && groups.term(place) == term {
            rounds += 1;
            tokio::task::yield_now().await;
            match groups.serving(place) {
                Serving::Active => drop(flush(&groups, place, term).await),
                Serving::Departing(number) if impatient => {
                    reclaim(&groups, place, term, number).await;
                }
                _ => {}
            }
        }
    })
}

/// Owns the region in the name of a leader, and flushes the rows of its group. `None`: another owner has the region.
async fn flush(groups: &Groups, place: Place, term: u64) -> Option<()> {
    let region = groups.region();
    let own = groups.epoch(place, term);
    unless_replaced(region.take_ownership(own, place.group()).await)?;
    unless_replaced(groups.flush(place, &region).await)
}

/// Abandons a move of this number, unless the other group owns the region.
async fn reclaim(groups: &Groups, place: Place, term: u64, number: u64) -> bool {
    let own = OwnerEpoch { move_epoch: number, term: Term(term) };
    let region = groups.region();
    let fenced = region.take_over(own, place.group(), RequiredProgress::default()).await;
    if unless_replaced(fenced).is_none() {
        return false;
    }
    groups.keep(place, number);
    true
}

/// Leader of the meta group: continues the procedure where an earlier one has stopped. A call that it begins may reach
/// a group when another leader of the meta group has gone on.
fn mover(groups: Groups) -> Actor {
    Box::pin(async move {
        for _ in 0..200 {
            let (number, step, from) = groups.procedure();
            if step == Step::Hold && number > MOVES {
                return;
            }
            let next = match step {
                Step::Hold => {
                    groups.prepare(from.other(), number);
                    Some(Step::Fence)
                }
                Step::Fence => fence(&groups, from, number).await,
                Step::Receive => receive(&groups, from, number).await,
                Step::Release => release(&groups, from, number).await,
                Step::Activate => {
                    groups.activate(from.other(), number);
                    Some(Step::Hold)
                }
                Step::Abandon => {
                    let term = groups.term(from);
                    reclaim(&groups, from, term, number).await.then_some(Step::Hold)
                }
            };
            if let Some(next) = next {
                groups.complete((number, step), next);
            }
            tokio::task::yield_now().await;
        }
        panic!("the move does not end: {:?}", groups.procedure());
    })
}

async fn fence(groups: &Groups, from: Place, number: u64) -> Option<Step> {
    if !groups.fence(from, number) {
        // The group has abandoned the move.
        return Some(Step::Abandon);
    }
    // The last rows. The group may have fenced the manifest to keep the region, and not recorded that yet.
    let flushed = flush(groups, from, groups.term(from)).await;
    Some(flushed.map_or(Step::Abandon, |()| Step::Receive))
}

async fn receive(groups: &Groups, from: Place, number: u64) -> Option<Step> {
    let to = from.other();
    if groups.has_received(to, number) {
        return Some(Step::Release);
    }
    let Some(flushed) = groups.departing(from, number) else {
        return Some(Step::Abandon);
    };
    if groups.serving(to) != Serving::Prepared(number) {
        return Some(Step::Abandon);
    }
    let own = OwnerEpoch { move_epoch: number, term: Term(groups.term(to)) };
    let required = RequiredProgress { flushed, ..RequiredProgress::default() };
    match groups.region().take_over(own, to.group(), required).await {
        Ok(_) => {
            groups.receive(to, number);
            Some(Step::Release)
        }
        Err(EngineError::Refused { reason: Void::OwnedByGroup { .. }, .. }) => Some(Step::Abandon),
        // A later leader of the group, which repeats the call.
        Err(EngineError::Fenced { .. }) => None,
        Err(error) => panic!("{error}"),
    }
}

async fn release(groups: &Groups, from: Place, number: u64) -> Option<Step> {
    if groups.serving(from) == Serving::Departing(number) {
        let region = groups.region();
        region.load().await.unwrap();
        // Otherwise another leader has released it meanwhile.
        if groups.serving(from) == Serving::Departing(number) {
            let owner = region.manifest_owner().unwrap();
            assert_eq!((owner.group, owner.epoch.move_epoch), (from.other().group(), number));
        }
    }
    groups.release(from, number);
    Some(Step::Activate)
}

/// Writes to the group that serves the region.
fn client(groups: Groups) -> Actor {
    Box::pin(async move {
        for _ in 0..40 {
            tokio::task::yield_now().await;
            groups.write();
        }
    })
}

/// Compacts the region as a compactor that reports late.
fn compactor(groups: Groups) -> Actor {
    Box::pin(async move {
        for _ in 0..3 {
            groups.compact().await;
        }
    })
}

/// Runs passes whose floor is close to now: an actor that is paused briefly is below it.
fn collector(groups: Groups, grace: u64) -> Actor {
    Box::pin(async move {
        for _ in 0..4 {
            let (sender, _receiver) = mpsc::channel(1_000);
            let floor_ms = groups.now() - grace;
            let request = GcRequest { floor_ms, dry_run: false, table: None, max_deletions: 1_000 };
            GarbageCollector::new(groups.env()).collect(&request, &sender).await.unwrap();
        }
    })
}

fn race(groups: &Groups, schedule: &[usize], grace: u64, impatient: [bool; 5]) {
    let mut actors = vec![
        client(groups.clone()),
        compactor(groups.clone()),
        collector(groups.clone(), grace),
        mover(groups.clone()),
        mover(groups.clone()),
    ];
    let terms = [(0, 1), (0, 2), (0, 3), (1, 1), (1, 2)];
    for ((group, term), impatient) in terms.into_iter().zip(impatient) {
        let place = [Place::First, Place::Second][group];
        actors.push(leader(groups.clone(), place, term, impatient));
    }
    assert_eq!(actors.len(), ACTORS);
    play(actors, schedule, groups.clone().verify_end());
}

proptest! {
    #![proptest_config(histories(300))]

    #[test]
    fn move_loses_nothing_in_a_race(
        schedule in schedules(ACTORS),
        grace in 0_u64..20,
        impatient in any::<[bool; 5]>(),
    ) {
        race(&Groups::new(1_000), &schedule, grace, impatient);
    }

    /// Slots of fences are freed while actors still expect them.
    #[test]
    fn move_loses_nothing_while_deltas_are_cleaned(
        schedule in schedules(ACTORS),
        grace in 0_u64..20,
        impatient in any::<[bool; 5]>(),
    ) {
        race(&Groups::new(3), &schedule, grace, impatient);
    }
}
