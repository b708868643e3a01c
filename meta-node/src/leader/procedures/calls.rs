//! Calls of an attempt to the regions of its step.
//!
//! The calls of a step may last for hours, so a failure is recorded at once, and its region is called again while others are
//! in progress. The attempt ends when all regions have completed their part, when a region fails permanently, or when no
//! call is in progress.

use std::collections::BTreeMap;

use futures::stream::{FuturesUnordered, StreamExt};
use tidewater_common::ids::{GroupId, RegionId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{self, Reason};
use tokio::time::{Instant, sleep_until};

use super::StepCalls;
use super::call_queue::CallQueue;
use super::operation::Operation;
use crate::catalog::MetaState;
use crate::commands::procedures::kind::StepRegion;
use crate::leader::leader_term::LeaderTerm;

/// End of the calls of an attempt.
#[derive(Debug, PartialEq)]
enum CallsEnd {
    /// All regions have completed their part.
    Completed,
    /// A region has failed, and would fail again.
    Permanent(Refusal),
    /// Regions have failed, and no call is in progress.
    Failed,
}

impl LeaderTerm {
    /// Calls the regions of a step, those of all groups at the same time.
    pub(super) async fn call_regions(
        &self,
        state: &MetaState,
        operation: &Operation,
        pending: BTreeMap<GroupId, Vec<RegionId>>,
    ) -> StepCalls {
        let queue = CallQueue::new(pending, Instant::now());
        let call = move |at| self.call_step(state, operation, at);
        match make_calls(queue, call, |refusal| operation.is_permanent(refusal)).await {
            CallsEnd::Completed => StepCalls::Completed,
            CallsEnd::Permanent(refusal) => StepCalls::Failed(refusal),
            CallsEnd::Failed => {
                let failure = self.step_failure(operation);
                failure.map_or(StepCalls::Ended, StepCalls::Failed)
            }
        }
    }

    /// Returns the failure of an operation's step, as its calls in this term show it.
    pub(super) fn step_failure(&self, operation: &Operation) -> Option<Refusal> {
        let mut attempts = self.attempts.lock();
        attempts.failing(operation.key, operation.phase())?.failure().cloned()
    }

    /// Calls a region for its part of a step, and records the result.
    async fn call_step(
        &self,
        state: &MetaState,
        operation: &Operation,
        at: StepRegion,
    ) -> (StepRegion, Result<(), Refusal>) {
        let (key, phase) = (operation.key, operation.phase());
        let record_merge = |merge: &v1::RegionMerge| {
            let mut attempts = self.attempts.lock();
            if let Some(failing) = attempts.failing(key, phase) {
                failing.record_merge(at.region, merge, Instant::now());
            }
        };
        let called = match operation.kind.call(state, &operation.procedure, at) {
            Some(call) => self.call_region(at.group, call, &record_merge).await,
            None => Err(contradiction(at.region)),
        };
        let mut attempts = self.attempts.lock();
        match &called {
            Ok(()) => attempts.record_completed(key, phase, at.region, Instant::now()),
            Err(refusal) => {
                let is_permanent = operation.is_permanent(refusal);
                if let Some(failing) = attempts.failing(key, phase) {
                    failing.fail(at.region, refusal.clone(), is_permanent, Instant::now());
                }
            }
        }
        drop(attempts);
        (at, called)
    }
}

/// Makes the calls of an attempt. Those in progress are dropped at a permanent failure.
async fn make_calls<F>(
    mut queue: CallQueue,
    call: impl Fn(StepRegion) -> F,
    is_permanent: impl Fn(&Refusal) -> bool,
) -> CallsEnd
where
    F: Future<Output = (StepRegion, Result<(), Refusal>)>,
{
    let mut calls = FuturesUnordered::new();
    loop {
        for at in queue.take_due(Instant::now()) {
            calls.push(call(at));
        }
        let next_due = queue.next_due();
        let wait = sleep_until(next_due.unwrap_or_else(Instant::now));
        let ended = tokio::select! {
            ended = calls.next() => ended,
            () = wait, if next_due.is_some() => continue,
        };
        match ended {
            Some((at, Ok(()))) => queue.record_completed(at),
            Some((_, Err(refusal))) if is_permanent(&refusal) => {
                return CallsEnd::Permanent(refusal);
            }
            Some((at, Err(refusal))) => {
                let StepRegion { region, group } = at;
                tracing::debug!(%group, %region, %refusal, "call of a step failed");
                queue.record_failed(at, refusal.reason, Instant::now());
            }
            None if queue.is_complete() => return CallsEnd::Completed,
            None => return CallsEnd::Failed,
        }
    }
}

fn contradiction(region: RegionId) -> Refusal {
    let text = format!("the catalog contradicts the procedure's part in region {region}");
    Refusal::new(Reason::RegionNotFound, text)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use parking_lot::Mutex;
    use tokio::time::sleep;

    use super::*;

    /// One region of a group, of which the calls take some time and then end in this way, one after the other.
    type Script = (u64, Vec<(u64, Option<Reason>)>);

    /// Makes scripted calls. Returns the end, its time in seconds, and the begins of all calls with their regions.
    async fn run(scripts: &[Script]) -> (CallsEnd, u64, Vec<(u64, u64)>) {
        let begun = Instant::now();
        let pending = scripts.iter().map(|(id, _)| (GroupId(*id), vec![RegionId(*id)]));
        let queue = CallQueue::new(pending.collect(), begun);
        let made: Mutex<Vec<(u64, u64)>> = Mutex::new(Vec::new());
        let call = |at: StepRegion| {
            let id = at.region.get();
            let earlier = made.lock().iter().filter(|(region, _)| *region == id).count();
            made.lock().push((id, begun.elapsed().as_secs()));
            let script = scripts.iter().find(|(region, _)| *region == id).unwrap();
            let (seconds, reason) = script.1[earlier];
            async move {
                sleep(Duration::from_secs(seconds)).await;
                let result = match reason {
                    Some(reason) => Err(Refusal::new(reason, "scripted")),
                    None => Ok(()),
                };
                (at, result)
            }
        };
        let is_permanent = |refusal: &Refusal| refusal.reason == Reason::SourceMismatch;
        let end = make_calls(queue, call, is_permanent).await;
        (end, begun.elapsed().as_secs(), made.into_inner())
    }

    #[tokio::test(start_paused = true)]
    async fn permanent_failure_ends_the_attempt_at_once() {
        let scripts = [(1, vec![(10, Some(Reason::SourceMismatch))]), (2, vec![(7_200, None)])];
        let (end, seconds, made) = run(&scripts).await;
        let refusal = Refusal::new(Reason::SourceMismatch, "scripted");
        assert_eq!((end, seconds), (CallsEnd::Permanent(refusal), 10));
        assert_eq!(made, [(1, 0), (2, 0)]);
    }

    #[tokio::test(start_paused = true)]
    async fn failed_region_is_repeated_while_others_are_called() {
        let not_leader = Some(Reason::NotLeader);
        let scripts =
            [(1, vec![(10, not_leader), (5, not_leader), (60, None)]), (2, vec![(7_200, None)])];
        let (end, seconds, made) = run(&scripts).await;
        assert_eq!((end, seconds), (CallsEnd::Completed, 7_200));
        let (first, second) = (made[2], made[3]);
        assert_eq!((first.0, second.0, made.len()), (1, 1, 4));
        assert!((10..12).contains(&first.1) && (15..20).contains(&second.1), "{made:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn attempt_ends_when_only_failed_regions_remain() {
        let overloaded = Some(Reason::Overloaded);
        let scripts = [(1, vec![(3, overloaded)]), (2, vec![(3, None)])];
        let (end, seconds, _) = run(&scripts).await;
        assert_eq!((end, seconds), (CallsEnd::Failed, 3));
    }
}
