//! The owner's compactions for one term: asks the regions' pickers, decides by
//! [`choose`](mod@choose), runs jobs on compactors or here, and holds back regions whose job failed.
//!
//! - [`choose`](mod@choose): which regions, and where (pure). [`life`]: what becomes of a job when an attempt
//!   has ended (pure). `job`: one job from plan to end; `way`: its attempts and waits; `left_over`: what a
//!   compactor has of it already; `quarantine`. `track`: a region between its jobs.
//!
//! What runs here ends with the term: what it has written is garbage then, unless it was committing.
//! What runs on a compactor goes on. Either way, whether it was committed is found out by whoever reads
//! the manifest: jobs are not fenced.

pub mod choose;
mod job;
mod left_over;
pub mod life;
mod quarantine;
mod track;
mod way;

use std::collections::BTreeMap;
use std::sync::Arc;

use tidewater_common::ids::RegionId;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::CompactionPlace;
use tidewater_region_engine::EngineError;
use tidewater_region_engine::compaction::{Attempt, Scope};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::choose::{Candidate, Choice, Load, choose};
pub use self::job::Done;
use self::job::{Ended, Job};
use self::life::Wanted;
use self::track::Track;
use super::owner::{Owner, OwnerError};
use super::{Context, REQUESTS};
use crate::group::hosted::HostedRegion;
use crate::meters;

/// Jobs of a region that may be quarantined before the region is left alone.
const MOST_QUARANTINED: usize = 8;

/// What somebody asks of the owner of a region.
#[derive(Debug)]
pub struct CompactionRequest {
    /// The region.
    pub region: RegionId,
    /// How much.
    pub scope: Scope,
    /// Where.
    pub place: CompactionPlace,
    /// Watched and cancelled by the asker.
    pub attempt: Attempt,
    /// Gets the outcome.
    pub asker: oneshot::Sender<Result<Option<Done>, Refusal>>,
}

/// How a job ended.
struct JobEnded {
    region: RegionId,
    /// It was chosen here. Otherwise somebody had asked for it, and it was cancelled by command.
    chosen: bool,
    ended: Ended,
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
                compactions.ended(job);
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
    done: mpsc::Sender<JobEnded>,
}

impl Compactions<'_> {
    fn begin_due(&mut self) {
        let shared = &self.context.shared;
        let fleet = &self.context.compactors.fleet;
        let load = Load {
            here: shared.env.compactions.available_permits(),
            compactors: (!fleet.is_empty()).then(|| fleet.free_slots()),
            short_of_memory: shared.memory().excess() > 0,
        };
        let now = Instant::now();
        let candidates: Vec<Candidate> =
            shared.regions.all().iter().map(|hosted| self.candidate(hosted, now)).collect();
        self.tracks
            .retain(|id, track| track.running || candidates.iter().any(|one| one.region == *id));
        for one in candidates.iter().filter(|one| !one.held_back) {
            self.tracks.entry(one.region).or_default().looked_at(one.files, now);
        }
        for Choice { region, wanted } in choose(&self.context.compactions, &candidates, load) {
            self.tracks.entry(region).or_default().running = true;
            let done = self.done.clone();
            let job = self.job(region, Scope::Due, wanted, Attempt::default(), false);
            self.context.tasks.spawn(async move {
                let ended = run_job(job).await;
                // Nobody listens once the term has ended.
                let _ = done.send(JobEnded { region, chosen: true, ended }).await;
            });
        }
    }

    /// What its picker says of a region now.
    fn candidate(&self, hosted: &HostedRegion, now: Instant) -> Candidate {
        let region = hosted.descriptor.region_id;
        let (context, track) = (self.context, self.tracks.get(&region));
        let held_back = track.is_some_and(|track| {
            track.running || track.lost || track.not_before.is_some_and(|when| when > now)
        }) || context.compactors.board.quarantined(region) >= MOST_QUARANTINED;
        let due = match held_back {
            true => Vec::new(),
            false => hosted.region.compactions_due(),
        };
        let (files, bytes) = due.first().map_or((0, 0), |due| (due.files, due.bytes));
        let all_files = due.iter().map(|due| due.files).sum();
        let since = track.and_then(|track| track.due_since);
        let overdue = since.is_some_and(|since| {
            now.saturating_duration_since(since) >= context.compactions.overdue_after
        });
        Candidate { region, files, bytes, all_files, overdue, held_back }
    }

    fn asked_for(&self, request: CompactionRequest) {
        let CompactionRequest { region, scope, place, attempt, asker } = request;
        let wanted = Wanted { place, may_wait: false };
        let job = self.job(region, scope, wanted, attempt, true);
        let done = self.done.clone();
        self.context.tasks.spawn(async move {
            let ended = run_job(job).await;
            // Who goes away does not want less to be merged.
            if let Ended::Cancelled(refusal) = &ended
                && !asker.is_closed()
            {
                let ended = Ended::Cancelled(refusal.clone());
                let _ = done.send(JobEnded { region, chosen: false, ended }).await;
            }
            let answer = match ended {
                Ended::Nothing => Ok(None),
                Ended::Done(done) => Ok(Some(done)),
                Ended::Discarded(refusal)
                | Ended::Cancelled(refusal)
                | Ended::Quarantined(refusal)
                | Ended::GivenUp(refusal)
                | Ended::Untaken(refusal) => Err(refusal),
                Ended::Failed(error) => Err(error.refusal(region)),
                // The channel is dropped, and whoever asked finds the next owner.
                Ended::TermOver => return,
            };
            let _ = asker.send(answer);
        });
    }

    fn job(
        &self,
        region: RegionId,
        scope: Scope,
        wanted: Wanted,
        attempt: Attempt,
        asked: bool,
    ) -> Job {
        Job {
            owner: self.owner.clone(),
            compactors: self.context.compactors.clone(),
            policy: self.context.compactions.jobs,
            term: self.term.clone(),
            tasks: self.context.tasks.clone(),
            region,
            scope,
            wanted,
            attempt,
            asked,
        }
    }

    fn ended(&mut self, job: JobEnded) {
        let track = self.tracks.entry(job.region).or_default();
        track.running &= !job.chosen;
        let problem: &dyn std::fmt::Display = match &job.ended {
            Ended::Nothing | Ended::Done(_) => {
                *track = Track::default();
                return;
            }
            // The next look finds what is left.
            Ended::Discarded(_) | Ended::Quarantined(_) | Ended::TermOver => return,
            // Somebody did not want it: it does not begin at once again.
            Ended::Cancelled(_) => {
                let wait = self.context.compactions.backoff.1;
                track.not_before = Some(Instant::now() + wait);
                let group = self.context.shared.group;
                info!(%group, region = %job.region, ?wait, "a compaction was cancelled: the region waits");
                return;
            }
            // Compactors may have room soon.
            Ended::Untaken(problem) => {
                track.not_before = Some(Instant::now() + self.context.compactions.every);
                if !std::mem::replace(&mut track.said, true) {
                    let group = self.context.shared.group;
                    info!(%group, region = %job.region, %problem, "a region waits for a compactor");
                }
                return;
            }
            Ended::Failed(
                OwnerError::Gone
                | OwnerError::Engine(
                    EngineError::Fenced { .. }
                    | EngineError::Removed { .. }
                    | EngineError::Closed { .. }
                    | EngineError::NotOwner { .. },
                ),
            ) => {
                track.lost = true;
                return;
            }
            Ended::GivenUp(problem) => problem,
            Ended::Failed(problem) => problem,
        };
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

async fn run_job(job: Job) -> Ended {
    let _counted = meters::compaction_runs();
    job.run().await
}
