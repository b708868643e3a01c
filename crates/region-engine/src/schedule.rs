//! Schedules of concurrent test actors, each paused and resumed between any two storage calls.

use std::pin::Pin;
use std::task::{Context, Waker};

use proptest::prelude::*;

/// Future that acts on a store in which every call waits for the next poll.
pub(crate) type Actor = Pin<Box<dyn Future<Output = ()>>>;

/// Strategy for schedules: the index of the actor to poll at each step. Each actor gets long runs of
/// steps, so that the others fall far behind.
pub(crate) fn schedules(actors: usize) -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec((0..actors, 1..40_usize), 0..60).prop_map(|turns| {
        turns.iter().flat_map(|(actor, times)| std::iter::repeat_n(*actor, *times)).collect()
    })
}

/// Polls the actors by the schedule, then until all have completed, and finally runs `check`.
pub(crate) fn play(mut actors: Vec<Actor>, schedule: &[usize], check: impl Future<Output = ()>) {
    // tokio's timeouts need a runtime, although no time passes here.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let entered = runtime.enter();
    let mut context = Context::from_waker(Waker::noop());
    let to_the_end = std::iter::repeat_n(usize::MAX, 1_000_000);
    for step in schedule.iter().copied().chain(to_the_end) {
        if actors.is_empty() {
            break;
        }
        let index = step % actors.len();
        if actors[index].as_mut().poll(&mut context).is_ready() {
            drop(actors.remove(index));
        }
    }
    assert!(actors.is_empty(), "not all actors completed");
    drop(entered);
    runtime.block_on(check);
}
