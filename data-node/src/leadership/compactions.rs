//! The owner's compactions for one term: asks the regions' pickers, decides by
//! [`choose`](mod@choose), runs jobs, and holds back regions whose job failed.
//!
//! A job ends with the term: what it has written is garbage then, unless it was committing. Whether
//! it still committed is found out by whoever reads the manifest: jobs are not fenced.

pub mod choose;

use std::collections::BTreeMap;
use std::sync::Arc;

use tidewater_common::ids::{Epoch, RegionId};
use tidewater_common::refusal::Refusal;
use tidewater_region_engine::compaction::{Attempt, Scope};
use tidewater_region_engine::manifest::Void;
use tidewater_region_engine::{CompactionReport, EngineError};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use self::choose::{Candidate, Load, choose};
use super::owner::{Owner, OwnerError};
use super::{Context, REQUESTS};
use crate::meters;

/// What somebody asks of the owner of a region.
#[derive(Debug)]
pub struct CompactionRequest {
    /// The region.
    pub region: RegionId,
    /// How much.
    pub scope: Scope,
    /// Watched and cancelled by the asker.
    pub attempt: Attempt,
    /// Gets the outcome.
    pub asker: oneshot::Sender<Result<Option<CompactionReport>, Refusal>>,
}

/// What is known of a region's compactions in this term.
#[derive(Debug, Default)]
struct Track {
    running: bool,
    failures: u32,
    not_before: Option<Instant>,
    /// A later owner has taken the region, or it is gone: nothing more in this term.
    lost: bool,
}

/// A job that ended; those that were asked for do not count as failures.
struct Ended {
    region: RegionId,
    result: Result<Option<CompactionReport>, OwnerError>,
}

/// Runs until it is dropped: the term has ended, or the replica stops.
pub async fn run(
    context: &Context,
    owner: Arc<Owner>,
    requests: &mut mpsc::Receiver<CompactionRequest>,
) {
    let term = CancellationToken::new();
    let _ends = term.clone().drop_guard();
    let (done, mut ended) = mpsc::channel(REQUESTS);
    let mut compactions = Compactions { context, owner, term, tracks: BTreeMap::new(), done };
    let mut tick = tokio::time::interval(context.compactions.every);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => compactions.begin_due(),
            Some(job) = ended.recv() => {
                compactions.ended(&job);
                compactions.begin_due();
            }
            request = requests.recv() => match request {
                Some(request) => compactions.asked_for(request),
                None => return,
            },
        }
    }
}

struct Compactions<'a> {
    context: &'a Context,
    owner: Arc<Owner>,
    term: CancellationToken,
    tracks: BTreeMap<RegionId, Track>,
    done: mpsc::Sender<Ended>,
}

impl Compactions<'_> {
    fn begin_due(&mut self) {
        let shared = &self.context.shared;
        let load = Load {
            free: shared.env.compactions.available_permits(),
            short_of_memory: shared.memory().excess() > 0,
        };
        if load.free == 0 {
            return;
        }
        let now = Instant::now();
        let candidates: Vec<Candidate> = shared
            .regions
            .all()
            .iter()
            .map(|hosted| {
                let region = hosted.descriptor.region_id;
                let held_back = self.tracks.get(&region).is_some_and(|track| {
                    track.running || track.lost || track.not_before.is_some_and(|when| when > now)
                });
                let due = match held_back {
                    true => None,
                    false => hosted.region.compactions_due().first().copied(),
                };
                let (files, bytes) = due.map_or((0, 0), |due| (due.files, due.bytes));
                Candidate { region, files, bytes, held_back }
            })
            .collect();
        self.tracks
            .retain(|id, track| track.running || candidates.iter().any(|one| one.region == *id));
        for region in choose(&self.context.compactions, &candidates, load) {
            self.tracks.entry(region).or_default().running = true;
            let done = self.done.clone();
            let work = self.work(region, Scope::Due, Attempt::default());
            self.context.tasks.spawn(async move {
                let result = work.await;
                // Nobody listens once the term has ended.
                let _ = done.send(Ended { region, result }).await;
            });
        }
    }

    fn asked_for(&self, request: CompactionRequest) {
        let CompactionRequest { region, scope, attempt, asker } = request;
        let work = self.work(region, scope, attempt);
        self.context.tasks.spawn(async move {
            let result = work.await.map_err(|error| error.refusal(region));
            let _ = asker.send(result);
        });
    }

    /// One job, which ends with the term.
    fn work(
        &self,
        region: RegionId,
        scope: Scope,
        attempt: Attempt,
    ) -> impl Future<Output = Result<Option<CompactionReport>, OwnerError>> + Send + use<> {
        let (owner, term) = (self.owner.clone(), self.term.clone());
        async move {
            let _counted = meters::compaction_runs();
            let work = owner.compact(region, scope, Epoch(0), &attempt);
            tokio::pin!(work);
            tokio::select! {
                result = &mut work => result,
                () = term.cancelled() => {
                    attempt.cancel.cancel();
                    work.await
                }
            }
        }
    }

    fn ended(&mut self, job: &Ended) {
        let track = self.tracks.entry(job.region).or_default();
        track.running = false;
        let problem = match &job.result {
            Ok(_) => {
                (track.failures, track.not_before) = (0, None);
                return;
            }
            Err(problem) => problem,
        };
        match problem {
            OwnerError::Gone
            | OwnerError::Engine(
                EngineError::Fenced { .. }
                | EngineError::Removed { .. }
                | EngineError::Closed { .. }
                | EngineError::NotOwner { .. },
            ) => track.lost = true,
            // Others merged, truncated or dropped the files: the next look finds what is left.
            OwnerError::Engine(EngineError::Refused {
                reason: Void::InputsGone { .. } | Void::BelowFloor { .. },
                ..
            })
            | OwnerError::Engine(EngineError::Cancelled { .. }) => {}
            OwnerError::Engine(_)
            | OwnerError::Adopt(_)
            | OwnerError::NotDone(_)
            | OwnerError::Log(_) => {
                track.failures = track.failures.saturating_add(1);
                let wait = self.context.compactions.wait(track.failures);
                track.not_before = Some(Instant::now() + wait);
                meters::compaction_failed();
                warn!(
                    group = %self.context.shared.group, region = %job.region, %problem, ?wait,
                    "a region could not be compacted: it is tried again"
                );
            }
        }
    }
}
