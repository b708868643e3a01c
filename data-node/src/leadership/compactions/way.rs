//! A planned job on its way: attempts on compactors, waits between them, this node in the end.

use std::time::Duration;

use tidewater_common::ids::{ManifestVersion, NodeId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::Reason;
use tidewater_region_engine::region::{CompactionOutcome, PlannedCompaction};
use tidewater_region_engine::{CompactionReport, EngineError};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::job::{Done, Ended, Job, failed};
use super::life::{Next, Tally, Untaken};
use super::quarantine;
use crate::compactors::Compactors;
use crate::compactors::board::Posted;
use crate::compactors::call::{Asker, End};
use crate::compactors::fleet::Reserved;
use crate::meters;

/// See the module's head.
pub(super) struct Way<'a> {
    pub(super) job: &'a Job,
    pub(super) planned: PlannedCompaction,
    posted: Posted,
    tally: Tally,
    problem: Option<Refusal>,
    /// Since when no compactor has taken it.
    untaken_since: Option<Instant>,
    /// The compactor that was asked last.
    last: Option<NodeId>,
    /// Since when another job has its files.
    pub(super) others_since: Option<Instant>,
}

impl<'a> Way<'a> {
    pub(super) fn new(job: &'a Job, planned: PlannedCompaction, posted: Posted) -> Self {
        let (tally, problem, untaken_since, last, others_since) = Default::default();
        Self { job, planned, posted, tally, problem, untaken_since, last, others_since }
    }

    /// On compactors, as long as they take it.
    pub(super) async fn run(mut self) -> Ended {
        let policy = self.job.policy;
        loop {
            let compactors = &self.job.compactors;
            let Some(reserved) = self.reserve(compactors) else {
                let some_up = compactors.fleet.has_others(self.tally.never());
                let waited = self.untaken_since.get_or_insert_with(Instant::now).elapsed();
                match self.tally.untaken(&policy, self.job.wanted, waited, some_up) {
                    Untaken::Here => return self.fall_back().await,
                    Untaken::Leave => return Ended::Untaken(no_compactors(self.problem)),
                    Untaken::Wait(wait) => {
                        let problem = no_compactors(self.problem.clone());
                        if let Some(ended) = self.wait(wait, &problem).await {
                            return ended;
                        }
                        continue;
                    }
                }
            };
            let node = reserved.compactor.node;
            self.last = Some(node);
            let number = self.posted.runs(Some(node));
            meters::compaction_attempt(self.tally.failures > 0);
            let asker = self.asker();
            let attempt = &self.job.attempt;
            let compactor = &reserved.compactor;
            let making = compactors.attempt(compactor, asker, &self.planned, number, attempt);
            let end = tokio::select! {
                end = making => end,
                // It goes on there, and whoever owns the region next finds what it has done.
                () = self.job.term.cancelled() => return Ended::TermOver,
            };
            let compactor = reserved.compactor.clone();
            drop(reserved);
            match end {
                End::Committed { version, files_out } => {
                    return self.committed(version, files_out).await;
                }
                End::Cancelled(refusal) => return Ended::Cancelled(refusal),
                End::Refused(refusal) if refusal.reason == Reason::JobExists => {
                    if let Some(ended) = self.wait_for_other(&compactor, refusal).await {
                        return ended;
                    }
                }
                End::Refused(refusal) => self.refused(node, refusal),
                End::HandedBack(refusal) => {
                    self.untaken_since = None;
                    self.refused(node, refusal);
                }
                End::Void(refusal) => match self.settled().await {
                    // Another attempt at it was faster, and nobody heard of that.
                    Some(CompactionOutcome::Committed { version, files_out }) => {
                        return self.committed(version, files_out).await;
                    }
                    None if self.job.term.is_cancelled() => return Ended::TermOver,
                    _ => return Ended::Discarded(refusal),
                },
                End::Lost(refusal) => {
                    self.untaken_since = None;
                    match self.settled().await {
                        Some(CompactionOutcome::Committed { version, files_out }) => {
                            return self.committed(version, files_out).await;
                        }
                        Some(CompactionOutcome::Superseded) => return Ended::Discarded(refusal),
                        Some(CompactionOutcome::Open) => {}
                        None if self.job.term.is_cancelled() => return Ended::TermOver,
                        None => self.tally.could_not_settle(),
                    }
                    if self.job.attempt.cancel.is_cancelled() {
                        return Ended::Cancelled(refusal);
                    }
                    match self.tally.failed_on(node, refusal.reason, &policy) {
                        Next::Again(wait) => {
                            self.log_failure(node, &refusal, wait);
                            if let Some(ended) = self.wait(wait, &refusal).await {
                                return ended;
                            }
                            self.problem = Some(refusal);
                        }
                        Next::GiveUp => return Ended::GivenUp(refusal),
                        Next::Quarantine => return self.quarantine(refusal),
                    }
                }
            }
        }
    }

    fn reserve<'c>(&self, compactors: &'c Compactors) -> Option<Reserved<'c>> {
        let job = self.planned.job();
        let reserve = |without| compactors.fleet.reserve(job.job_id, job.bytes_read(), without);
        let [elsewhere, anywhere] = self.tally.without();
        reserve(&elsewhere).or_else(|| reserve(&anywhere))
    }

    fn asker(&self) -> Asker {
        Asker {
            group: self.job.owner.group(),
            owner: self.job.owner.epoch(),
            patience: self.job.policy.patience,
        }
    }

    /// What the manifest says; `None` when it cannot be read, or the term ends first.
    pub(super) async fn settled(&self) -> Option<CompactionOutcome> {
        let settled = tokio::select! {
            settled = self.planned.resolve_outcome() => settled,
            () = self.job.term.cancelled() => return None,
        };
        let region = self.job.region;
        let told =
            |error: &EngineError| warn!(%region, %error, "a compaction cannot be settled yet");
        settled.inspect_err(told).ok()
    }

    /// By a compactor: the one asked last, for all that is known.
    pub(super) async fn committed(&self, version: ManifestVersion, files_out: usize) -> Ended {
        let node = self.last;
        let job = self.planned.job();
        let report = CompactionReport {
            job_id: job.job_id,
            why: job.why,
            manifest_version: version,
            files_in: job.inputs.len(),
            bytes_in: job.bytes(),
            files_out,
            done: self.job.attempt.progress.snapshot(),
        };
        info!(
            region = %self.job.region,
            job = %report.job_id,
            compactor = node.map(NodeId::get),
            why = report.why.as_str(),
            manifest_version = %version,
            files_in = report.files_in,
            files_out,
            rows_in = report.done.rows_read,
            rows_out = report.done.rows_written,
            "compacted remotely"
        );
        meters::compacted(&report);
        // It stands, whether this replica and the log know it yet or not: the next look finds it.
        if let Err(error) = self.job.owner.follow(self.job.region).await {
            warn!(region = %self.job.region, job = %report.job_id, %error,
                "a compaction is committed, and the group does not know it yet");
        }
        Ended::Done(Done { report, node })
    }

    /// On this node, under a new id if a compactor may have the old one.
    async fn fall_back(mut self) -> Ended {
        if self.problem.is_some() || self.tally != Tally::default() {
            self.planned = self.planned.with_new_job_id();
            self.posted.renamed(self.planned.plan().job_id);
            meters::compaction_fell_back();
            info!(
                region = %self.job.region,
                job = %self.planned.plan().job_id,
                failures = self.tally.failures,
                problem = self.problem.as_ref().map_or("", |problem| &problem.message),
                "no compactor takes a compaction: this node does it"
            );
        }
        let _permit = match self.job.permit().await {
            Ok(permit) => permit,
            Err(ended) => return ended,
        };
        self.run_here().await
    }

    pub(super) fn refused(&mut self, node: NodeId, refusal: Refusal) {
        let (region, job) = (self.job.region, self.planned.plan().job_id);
        let reason = refusal.reason;
        match self.tally.refused_by(node, reason) {
            true => info!(%region, %job, compactor = %node, ?reason, problem = refusal.message,
                "a compactor will never take a compaction"),
            false => debug!(%region, %job, compactor = %node, ?reason, problem = refusal.message,
                "a compactor does not take a compaction now"),
        }
        self.posted.waits(&refusal.message);
        meters::compaction_refused(reason);
        self.problem = Some(refusal);
    }

    /// On this node. It ends with the term.
    pub(super) async fn run_here(self) -> Ended {
        let Job { owner, attempt, term, region, .. } = self.job;
        self.posted.runs(None);
        let work = owner.run_compaction(*region, &self.planned, attempt);
        tokio::pin!(work);
        let result = tokio::select! {
            result = &mut work => result,
            () = term.cancelled() => {
                attempt.cancel.cancel();
                work.await
            }
        };
        let error = match result {
            Ok(report) => return Ended::Done(Done { report, node: None }),
            Err(error) => error,
        };
        match (failed(error), self.last) {
            // A compactor that was given up may have been faster.
            (Ended::Discarded(refusal), Some(_)) => match self.settled().await {
                Some(CompactionOutcome::Committed { version, files_out }) => {
                    self.committed(version, files_out).await
                }
                None if term.is_cancelled() => Ended::TermOver,
                _ => Ended::Discarded(refusal),
            },
            (ended, _) => ended,
        }
    }

    /// Waits; `Some` when it was cancelled meanwhile, or the term has ended.
    pub(super) async fn wait(&self, wait: Duration, problem: &Refusal) -> Option<Ended> {
        self.posted.waits(&problem.message);
        self.job.unless_ended(tokio::time::sleep(wait)).await.err()
    }

    fn log_failure(&self, node: NodeId, problem: &Refusal, wait: Duration) {
        warn!(
            region = %self.job.region,
            job = %self.planned.plan().job_id,
            compactor = %node,
            failures = self.tally.failures,
            %problem,
            ?wait,
            "a compaction failed on a compactor: it is tried again"
        );
    }

    fn quarantine(self, problem: Refusal) -> Ended {
        warn!(
            region = %self.job.region,
            job = %self.planned.plan().job_id,
            failures = self.tally.failures,
            %problem,
            "a compaction is quarantined: its files are left alone"
        );
        self.posted.waits(&problem.message);
        let (term, policy) = (self.job.term.clone(), self.job.policy);
        let let_go = self.posted.is_quarantined();
        self.job.tasks.spawn(quarantine::held(self.planned, self.posted, let_go, term, policy));
        Ended::Quarantined(problem)
    }
}

pub(super) fn no_compactors(problem: Option<Refusal>) -> Refusal {
    let message = match problem {
        Some(problem) => format!("no compactor takes the compaction: {}", problem.message),
        None => "no compactor is up".to_owned(),
    };
    Refusal::new(Reason::NoCompactors, message)
}
