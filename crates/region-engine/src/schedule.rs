//! Actors of a test, each paused and resumed between any two storage calls by a schedule.

use std::pin::Pin;
use std::task::{Context, Waker};

use proptest::prelude::*;

/// Something that acts on a store of which every call waits for the next poll.
pub(crate) type Actor = Pin<Box<dyn Future<Output = ()>>>;

/// Which actor goes on, turn by turn: long stretches of one, so that others fall far behind.
pub(crate) fn schedules(actors: usize) -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec((0..actors, 1..40_usize), 0..60).prop_map(|turns| {
        turns.iter().flat_map(|(actor, times)| std::iter::repeat_n(*actor, *times)).collect()
    })
}

/// Runs the actors by the schedule, then to their end, and then `judge`.
pub(crate) fn play(mut actors: Vec<Actor>, schedule: &[usize], judge: impl Future<Output = ()>) {
    // tokio's timeouts want a runtime, though no time passes here.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let entered = runtime.enter();
    let mut context = Context::from_waker(Waker::noop());
    let to_the_end = std::iter::repeat_n(usize::MAX, 1_000_000);
    for at in schedule.iter().copied().chain(to_the_end) {
        if actors.is_empty() {
            break;
        }
        let at = at % actors.len();
        if actors[at].as_mut().poll(&mut context).is_ready() {
            drop(actors.remove(at));
        }
    }
    assert!(actors.is_empty(), "the actors never ended");
    drop(entered);
    runtime.block_on(judge);
}
