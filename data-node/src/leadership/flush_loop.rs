//! The owner's loop for one term: chooses regions by [`flush_policy`](super::flush_policy), runs a few
//! flushes concurrently, proposes manifest advances to the log, and backs off regions for which either
//! failed.
//!
//! Work on a region is a task of its own and runs to its end even when the term ends first: only the
//! task that knows the content can find out whether its last put succeeded. The manifest's fence, not
//! the end of a task, keeps an old owner out.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tidewater_common::backoff::Backoff;
use tidewater_common::ids::RegionId;
use tidewater_common::refusal::Refusal;
use tidewater_region_engine::manifest::Void;
use tidewater_region_engine::{EngineError, FlushReport};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tracing::{error, warn};

use super::OwnerContext;
use super::flush_policy::{FlushCandidate, FlushPressure, RegionWork, pick_region_work};
use super::owner::{Owner, OwnerError};
use crate::meters;
use crate::owner_request::{OwnerRequest, REQUEST_QUEUE};

/// Interval between checks of sizes and ages.
const TICK: Duration = Duration::from_millis(500);
/// Backoff after failed flushes.
const BACKOFF: Backoff =
    Backoff { first: Duration::from_millis(500), longest: Duration::from_secs(10) };

type FlushReply = oneshot::Sender<Result<FlushReport, Refusal>>;

/// State of a region's flushes in this term.
#[derive(Debug, Default)]
struct RegionFlushState {
    running: Option<RegionWork>,
    not_before: Option<Instant>,
    // Consecutive failures of flushes.
    flush_failures: u32,
    // Consecutive failures of other work.
    other_failures: u32,
    // Move epoch of the region when a later owner had taken it, or it was not hosted any more: no more work in this
    // term, unless it has another epoch since.
    fenced_at: Option<u64>,
    replies: Vec<FlushReply>,
}

impl RegionFlushState {
    fn is_fenced(&self, move_epoch: Option<u64>) -> bool {
        self.fenced_at.is_some() && self.fenced_at == move_epoch
    }

    fn record_success(&mut self, work: RegionWork) {
        self.other_failures = 0;
        if work == RegionWork::Flush {
            self.flush_failures = 0;
            self.not_before = None;
        }
    }

    /// Returns the backoff before the region's next work, with jitter by random `bits`.
    fn record_failure(&mut self, work: RegionWork, now: Instant, bits: u64) -> Duration {
        let failures = match work {
            RegionWork::Flush => &mut self.flush_failures,
            RegionWork::Settle | RegionWork::ProposeAdvance => &mut self.other_failures,
        };
        *failures = failures.saturating_add(1);
        let wait = BACKOFF.wait(*failures, None, bits);
        self.not_before = Some(now + wait);
        wait
    }
}

/// Result of work on a region; `None`: the work was no flush and has no report.
struct FinishedWork {
    region: RegionId,
    result: Result<Option<FlushReport>, OwnerError>,
}

/// Runs until it is dropped: the term has ended, or the replica stops.
pub async fn run(
    context: &OwnerContext,
    owner: Arc<Owner>,
    requests: &mut mpsc::Receiver<OwnerRequest>,
) {
    let (finished_sender, finished) = mpsc::channel(REQUEST_QUEUE);
    let mut flush_loop = FlushLoop {
        owner,
        context,
        regions: BTreeMap::new(),
        queue: VecDeque::new(),
        running: 0,
        large_requested: false,
        bytes_to_free: 0,
        finished_sender,
    };
    flush_loop.run(requests, finished).await;
}

/// Forgets the failures of a term when the term ends: the next owner reports its own.
impl Drop for FlushLoop<'_> {
    fn drop(&mut self) {
        self.context.shared.failing_flushes.clear_all();
    }
}

struct FlushLoop<'a> {
    context: &'a OwnerContext,
    owner: Arc<Owner>,
    regions: BTreeMap<RegionId, RegionFlushState>,
    queue: VecDeque<(RegionId, RegionWork)>,
    running: usize,
    large_requested: bool,
    // Bytes above a follower's memory limit.
    bytes_to_free: u64,
    finished_sender: mpsc::Sender<FinishedWork>,
}

impl FlushLoop<'_> {
    async fn run(
        &mut self,
        requests: &mut mpsc::Receiver<OwnerRequest>,
        mut finished: mpsc::Receiver<FinishedWork>,
    ) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => self.queue_due_work(),
                Some(work) = finished.recv() => self.handle_finished(work),
                request = requests.recv() => match request {
                    Some(request) => self.handle_request(request),
                    None => return,
                },
            }
            self.start_queued();
        }
    }

    fn handle_request(&mut self, request: OwnerRequest) {
        match request {
            OwnerRequest::FlushLarge => {
                self.large_requested = true;
                self.queue_due_work();
            }
            OwnerRequest::FreeMemory(bytes) => {
                self.bytes_to_free = bytes;
                self.queue_due_work();
            }
            OwnerRequest::Flush(region, reply) => {
                let state = self.regions.entry(region).or_default();
                state.replies.push(reply);
                state.not_before = None;
                // A running flush may have frozen its runs before the rows of this caller: flush again.
                match self.queue.iter_mut().find(|queued| queued.0 == region) {
                    Some(queued) => queued.1 = RegionWork::Flush,
                    None => self.queue.push_back((region, RegionWork::Flush)),
                }
            }
            OwnerRequest::Settle(region, reply) => {
                let owner = self.owner.clone();
                self.context.tasks.spawn(async move {
                    let settled = owner.settle(region).await;
                    let _ = reply.send(settled.map_err(|error| error.refusal(region)));
                });
            }
            OwnerRequest::TakeOver(from, reply) => {
                let owner = self.owner.clone();
                self.context.tasks.spawn(async move {
                    let taken = owner.take_over(from).await;
                    let _ = reply.send(taken.map_err(|error| error.refusal(from.region.region_id)));
                });
            }
            OwnerRequest::Route(region, work, reply) => {
                let owner = self.owner.clone();
                self.context.tasks.spawn(async move {
                    let done = owner.change_route(region, work).await;
                    let _ = reply.send(done.map_err(|error| error.refusal(region)));
                });
            }
            OwnerRequest::Remove(region, reply) => {
                let owner = self.owner.clone();
                self.context.tasks.spawn(async move {
                    let removed = owner.remove(region).await;
                    let _ = reply.send(removed.map_err(|error| error.refusal(region)));
                });
            }
            OwnerRequest::Adopt(adoption, reply) => {
                let owner = self.owner.clone();
                let region = adoption.region;
                self.context.tasks.spawn(async move {
                    let adopted = owner.adopt(adoption).await;
                    let _ = reply.send(adopted.map_err(|error| error.refusal(region)));
                });
            }
        }
    }

    /// Returns the work that is queued for a region.
    fn queued(&self, region: RegionId) -> Option<RegionWork> {
        self.queue.iter().find(|queued| queued.0 == region).map(|queued| queued.1)
    }

    fn queue_due_work(&mut self) {
        let shared = &self.context.shared;
        let now = Instant::now();
        let now_ms = shared.env.clock.now_ms();
        let candidates: Vec<FlushCandidate> = shared
            .regions
            .current()
            .iter()
            .map(|hosted| {
                let stats = hosted.region.stats();
                let region = hosted.descriptor.region_id;
                let state = self.regions.get(&region);
                let works = [state.and_then(|state| state.running), self.queued(region)];
                // A sealed region takes no flush: the split or merge ends soon, or is abandoned.
                // The rows of a region that another group is about to own are in files.
                let backs_off = hosted.region.is_sealed()
                    || shared.is_departing(region)
                    || state.is_some_and(|state| {
                        state.is_fenced(shared.move_epoch(region))
                            || state.not_before.is_some_and(|when| when > now)
                    });
                let age = stats.unflushed_since_ms.map_or(0, |since| now_ms.saturating_sub(since));
                FlushCandidate {
                    region,
                    bytes: stats.memtable_bytes,
                    age: Duration::from_millis(age),
                    held_back: backs_off || works.iter().any(Option::is_some),
                    flush_in_progress: works.contains(&Some(RegionWork::Flush)),
                    failing: state.is_some_and(|state| state.flush_failures > 0),
                    has_obligations: shared.has_obligations(region),
                    advance_pending: stats.manifest_version > shared.advanced_version(region),
                }
            })
            .collect();
        self.regions.retain(|id, state| {
            state.running.is_some()
                || !state.replies.is_empty()
                || candidates.iter().any(|candidate| candidate.region == *id)
        });
        let is_idle = |candidate: &&FlushCandidate| {
            candidate.bytes == 0 && !candidate.has_obligations && !candidate.advance_pending
        };
        for idle in candidates.iter().filter(is_idle) {
            shared.failing_flushes.clear(idle.region);
        }
        let pressure = FlushPressure {
            excess_bytes: shared.memory().excess().max(self.bytes_to_free),
            large_requested: self.large_requested,
        };
        self.large_requested = false;
        self.bytes_to_free = 0;
        self.queue.extend(pick_region_work(&self.context.flush_policy, &candidates, pressure));
    }

    fn start_queued(&mut self) {
        let mut waiting = VecDeque::new();
        while self.running < self.context.flush_policy.concurrency {
            let Some((region, work)) = self.queue.pop_front() else { break };
            let state = self.regions.entry(region).or_default();
            if state.running.is_some() {
                waiting.push_back((region, work));
                continue;
            }
            state.running = Some(work);
            self.running += 1;
            let owner = self.owner.clone();
            let finished = self.finished_sender.clone();
            self.context.tasks.spawn(async move {
                let result = match work {
                    RegionWork::Flush => owner.flush(region).await.map(Some),
                    RegionWork::Settle => owner.settle(region).await.map(|()| None),
                    RegionWork::ProposeAdvance => {
                        owner.advance_to_loaded(region).await.map(|()| None)
                    }
                };
                // The receiver is dropped when the term ends.
                let _ = finished.send(FinishedWork { region, result }).await;
            });
        }
        waiting.append(&mut self.queue);
        self.queue = waiting;
    }

    fn handle_finished(&mut self, finished: FinishedWork) {
        self.running = self.running.saturating_sub(1);
        let is_queued_again = self.queued(finished.region).is_some();
        let state = self.regions.entry(finished.region).or_default();
        let work = state.running.take().unwrap_or(RegionWork::Flush);
        let failing = &self.context.shared.failing_flushes;
        let reply = match finished.result {
            // No caller waits for work that is no flush, and its result does not concern flushes.
            Ok(None) => {
                state.record_success(work);
                if state.flush_failures == 0 {
                    failing.clear(finished.region);
                }
                return;
            }
            Ok(Some(report)) => {
                state.record_success(work);
                failing.clear(finished.region);
                Ok(report)
            }
            Err(error) => {
                handle_failure(self.context, finished.region, state, work, &error);
                Err(error.refusal(finished.region))
            }
        };
        // Callers whose flush is still queued wait for that flush, unless this one failed already.
        if !is_queued_again || reply.is_err() {
            for caller in state.replies.drain(..) {
                let _ = caller.send(reply.clone());
            }
        }
        if reply.is_err() {
            self.queue.retain(|queued| queued.0 != finished.region);
        }
    }
}

fn handle_failure(
    context: &OwnerContext,
    region: RegionId,
    state: &mut RegionFlushState,
    work: RegionWork,
    problem: &OwnerError,
) {
    let group = context.shared.group;
    match problem {
        OwnerError::Engine(EngineError::Fenced { .. }) => {
            state.fenced_at = context.shared.move_epoch(region);
            context.shared.failing_flushes.clear(region);
            error!(%group, %region, %problem, "region fenced by a later owner; flushes stopped");
        }
        OwnerError::NotHosted
        | OwnerError::Engine(EngineError::Removed { .. } | EngineError::Closed { .. }) => {
            state.fenced_at = context.shared.move_epoch(region);
            context.shared.failing_flushes.clear(region);
        }
        // Expected during a split or a merge: the work waits until the range is restored.
        OwnerError::Engine(EngineError::Refused { reason: Void::Sealed, .. }) => {
            context.shared.failing_flushes.clear(region);
        }
        OwnerError::Engine(_)
        | OwnerError::Adopt(_)
        | OwnerError::NotRecorded(_)
        | OwnerError::Log(_) => {
            let bits = context.shared.env.ids.jitter_bits();
            let now = Instant::now();
            let wait = state.record_failure(work, now, bits);
            context.shared.failing_flushes.record_failure(region, problem.to_string(), now);
            if work == RegionWork::Flush {
                meters::record_flush_failure();
                warn!(%group, %region, %problem, ?wait, "flush failed; retrying");
            } else {
                warn!(%group, %region, %problem, ?wait, "failed to reconcile log and manifest; retrying");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_flush_failures_count_as_flush_failures() {
        let mut state = RegionFlushState::default();
        let now = Instant::now();
        for (wait, work) in
            [(250, RegionWork::ProposeAdvance), (500, RegionWork::Settle), (250, RegionWork::Flush)]
        {
            assert_eq!(state.record_failure(work, now, 0), Duration::from_millis(wait));
        }
        assert_eq!((state.flush_failures, state.other_failures), (1, 2));
        state.record_success(RegionWork::ProposeAdvance);
        assert_eq!((state.flush_failures, state.other_failures), (1, 0), "its flushes still fail");
        assert!(state.not_before.is_some());
        state.record_success(RegionWork::Flush);
        assert_eq!((state.flush_failures, state.not_before), (0, None));
        for _ in 0..20 {
            assert!(state.record_failure(RegionWork::Flush, now, u64::MAX) <= BACKOFF.longest);
        }
    }
}
