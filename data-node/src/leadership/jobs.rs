//! The owner's loop for one term: decides by [`pick`](super::pick), runs flushes a few at a time, tells
//! the log of what others have committed, and holds back regions for which either failed.
//!
//! A job is a task of its own and runs to its end also when the term ends in the middle: whether
//! its last put succeeded must be found out by whoever knows the content. The manifest's fence, not
//! the end of a task, is what keeps an old owner out.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tidewater_common::ids::{RegionId, Term};
use tidewater_common::refusal::Refusal;
use tidewater_region_engine::{EngineError, FlushReport};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tracing::{error, warn};

use super::owner::{Owner, OwnerError};
use super::pick::{Candidate, Pressure, Work, pick};
use super::{Context, FlushRequest, REQUESTS};
use crate::group::refusals;
use crate::meters;

/// How often sizes and ages are looked at.
const TICK: Duration = Duration::from_millis(500);
/// First and longest wait after a failed flush.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));

type Asker = oneshot::Sender<Result<FlushReport, Refusal>>;

/// What is known of a region's flushes in this term.
#[derive(Debug, Default)]
struct Track {
    running: Option<Work>,
    not_before: Option<Instant>,
    // Of flushes, one after the other.
    failures: u32,
    // Of other work.
    setbacks: u32,
    // A later owner has taken the region: nothing more in this term.
    fenced: bool,
    askers: Vec<Asker>,
}

impl Track {
    fn done(&mut self, work: Work) {
        self.setbacks = 0;
        if work == Work::Flush {
            self.failures = 0;
            self.not_before = None;
        }
    }

    /// How long the region is left alone now.
    fn failed(&mut self, work: Work, now: Instant) -> Duration {
        let times = match work {
            Work::Flush => &mut self.failures,
            Work::Settle | Work::Tell => &mut self.setbacks,
        };
        let wait = BACKOFF.0.saturating_mul(1 << (*times).min(8)).min(BACKOFF.1);
        *times = times.saturating_add(1);
        self.not_before = Some(now + wait);
        wait
    }
}

/// A job that ended; one that only told the log has nothing to report.
struct Ended {
    region: RegionId,
    result: Result<Option<FlushReport>, OwnerError>,
}

/// Runs until it is dropped: the term has ended, or the replica stops.
pub async fn run(
    context: &Context,
    owner: Arc<Owner>,
    requests: &mut mpsc::Receiver<FlushRequest>,
) {
    let (done, ended) = mpsc::channel(REQUESTS);
    let mut jobs = Jobs {
        owner,
        context,
        tracks: BTreeMap::new(),
        queue: VecDeque::new(),
        running: 0,
        asked: false,
        over: 0,
        done,
    };
    jobs.turn(requests, ended).await;
}

/// Until everything committed before the term is applied: from then on the replica serves.
pub async fn wait_until_served(context: &Context, term: Term) {
    let group = context.shared.group;
    loop {
        let linearizer = context.raft.get_read_linearizer(openraft::ReadPolicy::ReadIndex).await;
        let problem = match linearizer {
            Ok(linearizer) => match linearizer.await_ready(&context.raft).await {
                Ok(_) => return,
                Err(fatal) => refusals::replica_stopped(group, &fatal),
            },
            Err(error) => refusals::read_error(group, &error),
        };
        tracing::debug!(%group, %term, %problem, "a new leader cannot own regions yet");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

struct Jobs<'a> {
    context: &'a Context,
    owner: Arc<Owner>,
    tracks: BTreeMap<RegionId, Track>,
    queue: VecDeque<(RegionId, Work)>,
    running: usize,
    asked: bool,
    // Bytes that a follower must get rid of.
    over: u64,
    done: mpsc::Sender<Ended>,
}

impl Jobs<'_> {
    async fn turn(
        &mut self,
        requests: &mut mpsc::Receiver<FlushRequest>,
        mut ended: mpsc::Receiver<Ended>,
    ) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => self.choose(),
                Some(job) = ended.recv() => self.ended(job),
                request = requests.recv() => match request {
                    Some(request) => self.asked_for(request),
                    None => return,
                },
            }
            self.start_queued();
        }
    }

    fn asked_for(&mut self, request: FlushRequest) {
        match request {
            FlushRequest::Large => {
                self.asked = true;
                self.choose();
            }
            FlushRequest::Free(over) => {
                self.over = over;
                self.choose();
            }
            FlushRequest::Region(region, asker) => {
                let track = self.tracks.entry(region).or_default();
                track.askers.push(asker);
                track.not_before = None;
                // A running flush may have frozen its runs before the rows in question: once more.
                match self.queue.iter_mut().find(|queued| queued.0 == region) {
                    Some(queued) => queued.1 = Work::Flush,
                    None => self.queue.push_back((region, Work::Flush)),
                }
            }
            FlushRequest::Settle(region, asker) => {
                let owner = self.owner.clone();
                self.context.tasks.spawn(async move {
                    let settled = owner.settle(region).await;
                    let _ = asker.send(settled.map_err(|error| error.refusal(region)));
                });
            }
            FlushRequest::Remove(region, asker) => {
                let owner = self.owner.clone();
                self.context.tasks.spawn(async move {
                    let removed = owner.remove(region).await;
                    let _ = asker.send(removed.map_err(|error| error.refusal(region)));
                });
            }
            FlushRequest::Adopt(adoption, asker) => {
                let (owner, region) = (self.owner.clone(), adoption.region);
                self.context.tasks.spawn(async move {
                    let adopted = owner.adopt(adoption).await;
                    let _ = asker.send(adopted.map_err(|error| error.refusal(region)));
                });
            }
        }
    }

    /// What is queued for a region.
    fn queued(&self, region: RegionId) -> Option<Work> {
        self.queue.iter().find(|queued| queued.0 == region).map(|queued| queued.1)
    }

    fn choose(&mut self) {
        let shared = &self.context.shared;
        let now = Instant::now();
        let now_ms = shared.env.clock.now_ms();
        let candidates: Vec<Candidate> = shared
            .regions
            .all()
            .iter()
            .map(|hosted| {
                let stats = hosted.region.stats();
                let region = hosted.descriptor.region_id;
                let track = self.tracks.get(&region);
                let works = [track.and_then(|track| track.running), self.queued(region)];
                let waits = track.is_some_and(|track| {
                    track.fenced || track.not_before.is_some_and(|when| when > now)
                });
                let age = stats.unflushed_since_ms.map_or(0, |since| now_ms.saturating_sub(since));
                Candidate {
                    region,
                    bytes: stats.memtable_bytes,
                    age: Duration::from_millis(age),
                    held_back: waits || works.iter().any(Option::is_some),
                    under_way: works.contains(&Some(Work::Flush)),
                    failing: track.is_some_and(|track| track.failures > 0),
                    owes: shared.has_obligations(region),
                    untold: stats.manifest_version > shared.advanced_version(region),
                }
            })
            .collect();
        self.tracks.retain(|id, track| {
            track.running.is_some()
                || !track.askers.is_empty()
                || candidates.iter().any(|one| one.region == *id)
        });
        let pressure =
            Pressure { excess: shared.memory().excess().max(self.over), asked: self.asked };
        (self.asked, self.over) = (false, 0);
        self.queue.extend(pick(&self.context.policy, &candidates, pressure));
    }

    fn start_queued(&mut self) {
        let mut waiting = VecDeque::new();
        while self.running < self.context.policy.concurrency {
            let Some((region, work)) = self.queue.pop_front() else { break };
            let track = self.tracks.entry(region).or_default();
            if track.running.is_some() {
                waiting.push_back((region, work));
                continue;
            }
            track.running = Some(work);
            self.running += 1;
            let (owner, done) = (self.owner.clone(), self.done.clone());
            self.context.tasks.spawn(async move {
                let result = match work {
                    Work::Flush => owner.flush(region).await.map(Some),
                    Work::Settle => owner.settle(region).await.map(|()| None),
                    Work::Tell => owner.tell_loaded(region).await.map(|()| None),
                };
                // Nobody listens once the term has ended.
                let _ = done.send(Ended { region, result }).await;
            });
        }
        waiting.append(&mut self.queue);
        self.queue = waiting;
    }

    fn ended(&mut self, job: Ended) {
        self.running = self.running.saturating_sub(1);
        let again = self.queued(job.region).is_some();
        let track = self.tracks.entry(job.region).or_default();
        let work = track.running.take().unwrap_or(Work::Flush);
        let answer = match job.result {
            // Nobody asks for this alone, and it says nothing of flushes.
            Ok(None) => return track.done(work),
            Ok(Some(report)) => {
                track.done(work);
                Ok(report)
            }
            Err(error) => {
                report_failure(self.context, job.region, track, work, &error);
                Err(error.refusal(job.region))
            }
        };
        // Askers whose flush is still queued wait for that one, unless this one failed already.
        if !again || answer.is_err() {
            for asker in track.askers.drain(..) {
                let _ = asker.send(answer.clone());
            }
        }
        if answer.is_err() {
            self.queue.retain(|queued| queued.0 != job.region);
        }
    }
}

fn report_failure(
    context: &Context,
    region: RegionId,
    track: &mut Track,
    work: Work,
    problem: &OwnerError,
) {
    let group = context.shared.group;
    match problem {
        OwnerError::Engine(EngineError::Fenced { .. }) => {
            track.fenced = true;
            error!(%group, %region, %problem, "a later owner has taken the region: its flushes stop");
        }
        OwnerError::Gone
        | OwnerError::Engine(EngineError::Removed { .. } | EngineError::Closed { .. }) => {
            track.fenced = true;
        }
        OwnerError::Engine(_)
        | OwnerError::Adopt(_)
        | OwnerError::NotDone(_)
        | OwnerError::Log(_) => {
            let wait = track.failed(work, Instant::now());
            if work == Work::Flush {
                meters::flush_failed();
                warn!(%group, %region, %problem, ?wait, "a region could not be flushed: it is tried again");
            } else {
                warn!(%group, %region, %problem, ?wait, "log and manifest were not brought together: that is tried again");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_flush_does_not_count_as_one_that_failed() {
        let (mut track, now) = (Track::default(), Instant::now());
        for (wait, work) in [(500, Work::Tell), (1_000, Work::Settle), (500, Work::Flush)] {
            assert_eq!(track.failed(work, now), Duration::from_millis(wait));
        }
        assert_eq!((track.failures, track.setbacks), (1, 2));
        track.done(Work::Tell);
        assert_eq!((track.failures, track.setbacks), (1, 0), "its flushes still fail");
        assert!(track.not_before.is_some());
        track.done(Work::Flush);
        assert_eq!((track.failures, track.not_before), (0, None));
        for _ in 0..20 {
            assert!(track.failed(Work::Flush, now) <= BACKOFF.1);
        }
    }
}
