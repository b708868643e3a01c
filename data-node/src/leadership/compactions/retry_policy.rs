//! Retry policy of compaction jobs (pure): the next action of a job after an attempt on a compactor,
//! and its fallback when no compactor accepts it.

use std::collections::BTreeSet;
use std::time::Duration;

use tidewater_common::backoff::Backoff;
use tidewater_common::ids::{ManifestVersion, NodeId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{CompactionPlace, Reason};
use tidewater_region_engine::region::CompactionOutcome;

use super::placement::Placement;
use crate::compactors::call::AttemptOutcome;

/// How jobs run on compactors, and what follows from failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobPolicy {
    /// The data node runs jobs that no compactor accepts.
    pub fallback_to_local: bool,
    /// Time without progress after which an attempt is aborted.
    pub progress_timeout: Duration,
    /// Failed attempts after which a job is quarantined.
    pub max_failures: u32,
    /// Duration of a quarantine.
    pub quarantine: Duration,
    /// Interval of checks whether the files of a quarantined job are still live.
    pub quarantine_check: Duration,
    /// Backoff before the next attempt.
    pub backoff: Backoff,
    /// Longest wait for a compactor with a free slot, after which the job is deferred.
    pub slot_timeout: Duration,
}

impl Default for JobPolicy {
    fn default() -> Self {
        Self {
            fallback_to_local: true,
            progress_timeout: Duration::from_secs(30),
            max_failures: 3,
            quarantine: Duration::from_secs(3_600),
            quarantine_check: Duration::from_secs(60),
            backoff: Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(30) },
            slot_timeout: Duration::from_secs(60),
        }
    }
}

/// History of a job's attempts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AttemptHistory {
    /// Attempts that failed.
    pub failures: u32,
    /// Compactors that refused the job since the last attempt, or the last wait.
    refused_by: BTreeSet<NodeId>,
    /// Compactors that will never accept the job.
    unsuitable: BTreeSet<NodeId>,
    /// Compactor of the last failed attempt.
    failed_on: Option<NodeId>,
    /// An attempt failed because the object store is unavailable: every other job would fail as well.
    store_unavailable: bool,
    /// A compactor refused the job for another reason than a lack of free slots.
    refused_when_free: bool,
    /// An attempt failed because the disk of the object store is full. A local run would use the same disk.
    disk_full: bool,
}

/// State of a job in the manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ManifestCheck {
    /// The manifest was read.
    Read(CompactionOutcome),
    /// The outcome of the attempt does not depend on the manifest, or the manifest could not be read.
    NotRead,
    /// The term ended first.
    TermEnded,
}

/// Next action of a job after an attempt on a compactor.
#[derive(Debug, Clone, PartialEq)]
pub enum NextAction {
    /// End the job: its outputs are in the manifest.
    Commit {
        /// Since this version, or before.
        version: ManifestVersion,
        /// Number of output files.
        files_out: usize,
    },
    /// End the job: it can never be committed.
    Discard(Refusal),
    /// End the job: it was cancelled.
    Cancel(Refusal),
    /// End the job, for a reason that affects every other job as well.
    Abort(Refusal),
    /// End the job and hold its files: too many attempts have failed.
    Quarantine(Refusal),
    /// End the job with the term.
    EndTerm,
    /// Wait for the job that the compactor already runs on the same files.
    AwaitOrphan(Refusal),
    /// Try another compactor now: this one did not accept the job.
    TryAnother(Refusal),
    /// Try again after the backoff of this number of failures, on another compactor if there is one.
    Retry(u32, Refusal),
}

/// Fallback of a job that no compactor accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fallback {
    /// Run it on this node.
    RunLocally,
    /// Wait, then ask all compactors again.
    Wait(Duration),
    /// End the job; its files stay due.
    Defer,
}

impl AttemptHistory {
    /// Records the outcome of an attempt on `node` and returns the next action. `manifest`: the state
    /// of the job, read if the outcome [depends on it](AttemptOutcome::depends_on_manifest);
    /// `cancelled`: a caller has cancelled the job.
    pub fn after_attempt(
        &mut self,
        node: NodeId,
        outcome: AttemptOutcome,
        manifest: ManifestCheck,
        cancelled: bool,
        policy: &JobPolicy,
    ) -> NextAction {
        match outcome {
            AttemptOutcome::Committed { version, files_out } => {
                NextAction::Commit { version, files_out }
            }
            AttemptOutcome::Cancelled(problem) => NextAction::Cancel(problem),
            AttemptOutcome::Refused(problem) if problem.reason == Reason::JobExists => {
                NextAction::AwaitOrphan(problem)
            }
            AttemptOutcome::Refused(problem) | AttemptOutcome::Returned(problem) => {
                NextAction::TryAnother(problem)
            }
            AttemptOutcome::Discarded(problem) => after_discard(problem, manifest),
            AttemptOutcome::Unknown(problem) => {
                self.after_unknown(node, problem, manifest, cancelled, policy)
            }
        }
    }

    fn after_unknown(
        &mut self,
        node: NodeId,
        problem: Refusal,
        manifest: ManifestCheck,
        cancelled: bool,
        policy: &JobPolicy,
    ) -> NextAction {
        match manifest {
            ManifestCheck::Read(CompactionOutcome::Committed { version, files_out }) => {
                return NextAction::Commit { version, files_out };
            }
            ManifestCheck::Read(CompactionOutcome::Superseded) => {
                return NextAction::Discard(problem);
            }
            ManifestCheck::TermEnded => return NextAction::EndTerm,
            ManifestCheck::Read(CompactionOutcome::Open) => {}
            // This node cannot reach the object store either.
            ManifestCheck::NotRead => self.store_unavailable = true,
        }
        if cancelled {
            return NextAction::Cancel(problem);
        }
        self.after_failure(node, problem, policy)
    }

    /// Records a failed attempt that the manifest does not show as committed.
    fn after_failure(&mut self, node: NodeId, problem: Refusal, policy: &JobPolicy) -> NextAction {
        self.failures = self.failures.saturating_add(1);
        self.failed_on = Some(node);
        self.refused_by.clear();
        self.disk_full |= problem.reason == Reason::DiskFull;
        self.store_unavailable |=
            self.disk_full || problem.reason == Reason::ObjectStoreUnavailable;
        if self.failures < policy.max_failures {
            return NextAction::Retry(self.failures, problem);
        }
        if self.store_unavailable {
            NextAction::Abort(problem)
        } else {
            NextAction::Quarantine(problem)
        }
    }

    /// Records that a compactor refused the job. Returns whether it will always refuse it.
    pub fn record_refusal(&mut self, node: NodeId, reason: Reason) -> bool {
        let kind = refusal_kind(reason);
        self.refused_when_free |= kind != RefusalKind::Busy;
        let is_final = kind == RefusalKind::Final;
        let refused = if is_final { &mut self.unsuitable } else { &mut self.refused_by };
        refused.insert(node);
        is_final
    }

    /// Compactors that will never accept the job.
    pub fn unsuitable(&self) -> &BTreeSet<NodeId> {
        &self.unsuitable
    }

    /// Returns the fallback while no compactor accepts the job. `waited`: time for which no compactor
    /// has accepted it; `some_up`: there are compactors that may accept it.
    pub fn fallback(
        &mut self,
        policy: &JobPolicy,
        placement: Placement,
        waited: Duration,
        some_up: bool,
    ) -> Fallback {
        if self.disk_full {
            return Fallback::Defer;
        }
        // Compactors are busy: a later attempt costs nothing, and this node has other work.
        let busy = some_up && self.failures == 0 && !self.refused_when_free;
        if busy && placement.deferrable && placement.place == CompactionPlace::Any {
            return Fallback::Defer;
        }
        if may_run_locally(policy, placement.place) {
            return Fallback::RunLocally;
        }
        if !some_up || waited >= policy.slot_timeout {
            return Fallback::Defer;
        }
        self.refused_by.clear();
        Fallback::Wait(policy.backoff.first)
    }

    /// Returns the compactors to avoid, in order of preference: first with the compactor of the last
    /// failure, then without it.
    pub fn excluded(&self) -> [BTreeSet<NodeId>; 2] {
        let refused: BTreeSet<NodeId> = self.refused_by.union(&self.unsuitable).copied().collect();
        let with_failed = refused.iter().chain(&self.failed_on).copied().collect();
        [with_failed, refused]
    }
}

/// Returns the action after an attempt that can never be committed. An earlier attempt, whose outcome
/// was unknown, may have committed the job.
fn after_discard(problem: Refusal, manifest: ManifestCheck) -> NextAction {
    match manifest {
        ManifestCheck::Read(CompactionOutcome::Committed { version, files_out }) => {
            NextAction::Commit { version, files_out }
        }
        ManifestCheck::TermEnded => NextAction::EndTerm,
        ManifestCheck::Read(CompactionOutcome::Open | CompactionOutcome::Superseded)
        | ManifestCheck::NotRead => NextAction::Discard(problem),
    }
}

/// Prospect of a compactor that refused a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RefusalKind {
    /// It has no free slot now.
    Busy,
    /// It cannot run the job, for now.
    Unable,
    /// It would always refuse the job.
    Final,
}

fn refusal_kind(reason: Reason) -> RefusalKind {
    match reason {
        Reason::Overloaded | Reason::ShuttingDown | Reason::DiskFull => RefusalKind::Busy,
        Reason::JobTooLarge
        | Reason::BadPlugin
        | Reason::BadPlan
        | Reason::InvalidArgument
        | Reason::MessageTooLarge
        | Reason::ObjectStoreMismatch
        | Reason::WrongCluster
        | Reason::WrongNode
        | Reason::Unsupported => RefusalKind::Final,
        _ => RefusalKind::Unable,
    }
}

/// Returns whether the data node may run a job itself.
pub fn may_run_locally(policy: &JobPolicy, place: CompactionPlace) -> bool {
    match place {
        CompactionPlace::Local => true,
        CompactionPlace::Any => policy.fallback_to_local,
        CompactionPlace::Remote => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId(201);
    const B: NodeId = NodeId(202);

    fn problem(reason: Reason) -> Refusal {
        Refusal::new(reason, "x")
    }

    fn fail(
        history: &mut AttemptHistory,
        node: NodeId,
        reason: Reason,
        policy: &JobPolicy,
    ) -> NextAction {
        let open = ManifestCheck::Read(CompactionOutcome::Open);
        history.after_attempt(node, AttemptOutcome::Unknown(problem(reason)), open, false, policy)
    }

    #[test]
    fn attempt_outcome_and_manifest_determine_the_next_action() {
        let version = ManifestVersion(9);
        let files_out = 2;
        let committed = ManifestCheck::Read(CompactionOutcome::Committed { version, files_out });
        let open = ManifestCheck::Read(CompactionOutcome::Open);
        let gone = ManifestCheck::Read(CompactionOutcome::Superseded);
        let not_read = ManifestCheck::NotRead;
        let term_ended = ManifestCheck::TermEnded;
        let accepted = AttemptOutcome::Committed { version, files_out };
        let refused = |reason| AttemptOutcome::Refused(problem(reason));
        let returned = AttemptOutcome::Returned(problem(Reason::ShuttingDown));
        let cancelled = AttemptOutcome::Cancelled(problem(Reason::JobCancelled));
        let discarded = AttemptOutcome::Discarded(problem(Reason::InputsGone));
        let unknown = AttemptOutcome::Unknown(problem(Reason::Unavailable));
        let commit = NextAction::Commit { version, files_out };
        let discard = |reason| NextAction::Discard(problem(reason));
        let cancel = |reason| NextAction::Cancel(problem(reason));
        let retry = NextAction::Retry(1, problem(Reason::Unavailable));
        let exists = Reason::JobExists;
        let full = Reason::Overloaded;
        let cases = [
            // outcome, manifest, cancelled by the caller, next action
            (accepted, not_read, false, commit.clone()),
            (refused(exists), not_read, false, NextAction::AwaitOrphan(problem(exists))),
            (refused(full), not_read, false, NextAction::TryAnother(problem(full))),
            (refused(full), not_read, true, NextAction::TryAnother(problem(full))),
            (returned, not_read, false, NextAction::TryAnother(problem(Reason::ShuttingDown))),
            (cancelled, not_read, true, cancel(Reason::JobCancelled)),
            (discarded.clone(), committed, false, commit.clone()),
            (discarded.clone(), open, false, discard(Reason::InputsGone)),
            (discarded.clone(), gone, true, discard(Reason::InputsGone)),
            (discarded.clone(), not_read, false, discard(Reason::InputsGone)),
            (discarded, term_ended, false, NextAction::EndTerm),
            (unknown.clone(), committed, true, commit),
            (unknown.clone(), gone, true, discard(Reason::Unavailable)),
            (unknown.clone(), term_ended, true, NextAction::EndTerm),
            (unknown.clone(), open, true, cancel(Reason::Unavailable)),
            (unknown.clone(), not_read, true, cancel(Reason::Unavailable)),
            (unknown.clone(), open, false, retry.clone()),
            (unknown, not_read, false, retry),
        ];
        for (outcome, manifest, cancelled, expected) in cases {
            let case = format!("{outcome:?} {manifest:?} {cancelled}");
            let mut history = AttemptHistory::default();
            let policy = JobPolicy::default();
            let action = history.after_attempt(A, outcome, manifest, cancelled, &policy);
            assert_eq!(action, expected, "{case}");
        }
    }

    #[test]
    fn failed_job_is_retried_with_backoff_and_then_quarantined() {
        let policy = JobPolicy { max_failures: 8, ..JobPolicy::default() };
        let mut history = AttemptHistory::default();
        let unavailable = Reason::Unavailable;
        let actions: Vec<NextAction> =
            (0..8).map(|_| fail(&mut history, A, unavailable, &policy)).collect();
        let retry = |failures| NextAction::Retry(failures, problem(unavailable));
        let mut expected: Vec<NextAction> = [1, 2, 3, 4, 5, 6, 7].map(retry).into();
        expected.push(NextAction::Quarantine(problem(unavailable)));
        assert_eq!(actions, expected);
    }

    #[test]
    fn job_is_not_quarantined_while_the_store_is_unavailable() {
        let policy = JobPolicy::default();
        let twice = || AttemptHistory { failures: 2, ..AttemptHistory::default() };
        let corrupt = Reason::Corrupt;
        let late = Reason::DeadlineExceeded;
        let down = Reason::ObjectStoreUnavailable;
        let last = fail(&mut twice(), A, corrupt, &policy);
        assert_eq!(last, NextAction::Quarantine(problem(corrupt)));
        assert_eq!(fail(&mut twice(), A, down, &policy), NextAction::Abort(problem(down)));
        // One such failure suffices, whatever the other reasons are.
        let mut history = AttemptHistory::default();
        fail(&mut history, A, Reason::DiskFull, &policy);
        fail(&mut history, A, late, &policy);
        assert_eq!(fail(&mut history, A, late, &policy), NextAction::Abort(problem(late)));
        // Nor if this node could not read the manifest.
        let outcome = AttemptOutcome::Unknown(problem(late));
        let last = twice().after_attempt(A, outcome, ManifestCheck::NotRead, false, &policy);
        assert_eq!(last, NextAction::Abort(problem(late)));
    }

    #[test]
    fn compactor_that_refused_or_failed_is_avoided() {
        let policy = JobPolicy::default();
        let mut history = AttemptHistory::default();
        let none = BTreeSet::new();
        assert_eq!(history.excluded(), [none.clone(), none.clone()]);
        fail(&mut history, A, Reason::Unavailable, &policy);
        assert_eq!(history.excluded(), [BTreeSet::from([A]), none.clone()]);
        history.record_refusal(B, Reason::Overloaded);
        assert_eq!(history.excluded(), [BTreeSet::from([A, B]), BTreeSet::from([B])]);
        // A compactor that was full before the attempt may have a free slot now.
        fail(&mut history, B, Reason::Unavailable, &policy);
        assert_eq!(history.excluded(), [BTreeSet::from([B]), none]);
        // An unsuitable compactor is never asked again.
        history.record_refusal(A, Reason::JobTooLarge);
        fail(&mut history, B, Reason::Unavailable, &policy);
        assert_eq!(history.excluded(), [BTreeSet::from([A, B]), BTreeSet::from([A])]);
        assert_eq!(*history.unsuitable(), BTreeSet::from([A]));
    }

    #[test]
    fn remote_only_job_waits_for_a_slot_until_timeout() {
        let policy = JobPolicy { fallback_to_local: false, ..JobPolicy::default() };
        let urgent = |place| Placement { place, deferrable: false };
        let any = urgent(CompactionPlace::Any);
        let remote = urgent(CompactionPlace::Remote);
        let mut history = AttemptHistory::default();
        let zero = Duration::ZERO;
        let long = policy.slot_timeout;
        let second = Fallback::Wait(Duration::from_secs(1));
        assert_eq!(history.fallback(&policy, remote, zero, false), Fallback::Defer, "none is up");
        history.record_refusal(A, Reason::Overloaded);
        assert_eq!(history.fallback(&policy, any, zero, true), second);
        assert_eq!(history.excluded(), [BTreeSet::new(), BTreeSet::new()], "it is asked again");
        assert_eq!(history.fallback(&policy, any, long, true), Fallback::Defer);
        let default = JobPolicy::default();
        assert_eq!(history.fallback(&default, any, zero, true), Fallback::RunLocally);
    }

    #[test]
    fn background_job_is_deferred_while_compactors_are_busy() {
        let policy = JobPolicy::default();
        let background = Placement { place: CompactionPlace::Any, deferrable: true };
        let fallback = |history: &mut AttemptHistory, some_up| {
            history.fallback(&policy, background, Duration::ZERO, some_up)
        };
        assert_eq!(fallback(&mut AttemptHistory::default(), true), Fallback::Defer);
        let mut full = AttemptHistory::default();
        full.record_refusal(A, Reason::Overloaded);
        assert_eq!(fallback(&mut full, true), Fallback::Defer);
        full.record_refusal(B, Reason::DiskFull);
        assert_eq!(fallback(&mut full, true), Fallback::Defer);
        // They are not busy, but cannot run it.
        full.record_refusal(B, Reason::Unavailable);
        assert_eq!(fallback(&mut full, true), Fallback::RunLocally);
        // None will ever accept it, or none is up.
        assert_eq!(fallback(&mut AttemptHistory::default(), false), Fallback::RunLocally);
        // A job with a failed attempt is not started anew as if it had none.
        let mut failed = AttemptHistory { failures: 1, ..AttemptHistory::default() };
        assert_eq!(fallback(&mut failed, true), Fallback::RunLocally);
    }

    #[test]
    fn job_that_filled_the_disk_does_not_run_locally() {
        let policy = JobPolicy::default();
        let mut history = AttemptHistory::default();
        fail(&mut history, A, Reason::DiskFull, &policy);
        for place in [CompactionPlace::Any, CompactionPlace::Remote] {
            let placement = Placement { place, deferrable: false };
            let fallback = history.fallback(&policy, placement, Duration::ZERO, true);
            assert_eq!(fallback, Fallback::Defer);
        }
    }

    #[test]
    fn place_and_policy_determine_whether_jobs_run_locally() {
        let fallback = JobPolicy::default();
        let no_fallback = JobPolicy { fallback_to_local: false, ..JobPolicy::default() };
        for (place, with, without) in [
            (CompactionPlace::Any, true, false),
            (CompactionPlace::Remote, false, false),
            (CompactionPlace::Local, true, true),
        ] {
            assert_eq!(may_run_locally(&fallback, place), with, "{place:?}");
            assert_eq!(may_run_locally(&no_fallback, place), without, "{place:?}");
        }
    }
}
