//! What becomes of a job when an attempt at it has ended: pure.

use std::collections::BTreeSet;
use std::time::Duration;

use tidewater_common::ids::NodeId;
use tidewater_proto::v1::{CompactionPlace, Reason};

/// How jobs are carried out on compactors, and what is done when that fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobPolicy {
    /// Whether the data node does what no compactor takes.
    pub fallback_to_local: bool,
    /// An attempt without any progress for so long is given up.
    pub patience: Duration,
    /// Attempts that fail before a job is quarantined.
    pub most_failures: u32,
    /// How long a job stays quarantined.
    pub quarantine: Duration,
    /// How often it is looked whether its files are there still.
    pub quarantine_look: Duration,
    /// First and longest wait before the next attempt.
    pub backoff: (Duration, Duration),
    /// Longest wait for a compactor with room, after which the job is left.
    pub longest_wait: Duration,
}

impl Default for JobPolicy {
    fn default() -> Self {
        Self {
            fallback_to_local: true,
            patience: Duration::from_secs(30),
            most_failures: 3,
            quarantine: Duration::from_secs(3_600),
            quarantine_look: Duration::from_secs(60),
            backoff: (Duration::from_secs(1), Duration::from_secs(30)),
            longest_wait: Duration::from_secs(60),
        }
    }
}

/// What is known of a job's attempts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Attempts that failed.
    pub failures: u32,
    /// Compactors that did not take it since the last attempt, or the last wait.
    refused: BTreeSet<NodeId>,
    /// Compactors that will never take it.
    never: BTreeSet<NodeId>,
    /// Where the last attempt failed.
    failed_at: Option<NodeId>,
    /// An attempt failed because the store is down: so would every other job.
    store_down: bool,
    /// A compactor refused it for another reason than that it has no room.
    unable: bool,
    /// An attempt failed because the disk of the store is full: it is here as well.
    disk_full: bool,
}

/// Where a job shall be done, and how soon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Where.
    pub place: CompactionPlace,
    /// Nobody waits for it, and its region does not need it soon.
    pub may_wait: bool,
}

/// What to do after a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Wait, then try again, elsewhere if there is somewhere else.
    Again(Duration),
    /// Leave it for now: it would go no better with any other job.
    GiveUp,
    /// Leave it alone.
    Quarantine,
}

/// What to do when no compactor takes a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Untaken {
    /// Do it here.
    Here,
    /// Wait, then ask all of them again.
    Wait(Duration),
    /// Leave it.
    Leave,
}

impl Tally {
    /// A compactor did not take it, for this reason. Whether it never will.
    pub fn refused_by(&mut self, node: NodeId, reason: Reason) -> bool {
        let refusal = meaning(reason);
        self.unable |= refusal != Meaning::Busy;
        let is_final = refusal == Meaning::Never;
        let refused = if is_final { &mut self.never } else { &mut self.refused };
        refused.insert(node);
        is_final
    }

    /// Compactors that need not be asked again.
    pub fn never(&self) -> &BTreeSet<NodeId> {
        &self.never
    }

    /// Nor could this node read the manifest to settle an attempt.
    pub fn could_not_settle(&mut self) {
        self.store_down = true;
    }

    /// An attempt on a compactor has failed, and the manifest does not show it committed.
    pub fn failed_on(&mut self, node: NodeId, reason: Reason, policy: &JobPolicy) -> Next {
        self.failures = self.failures.saturating_add(1);
        self.failed_at = Some(node);
        self.refused.clear();
        self.disk_full |= reason == Reason::DiskFull;
        self.store_down |= self.disk_full || reason == Reason::ObjectStoreUnavailable;
        if self.failures >= policy.most_failures {
            return if self.store_down { Next::GiveUp } else { Next::Quarantine };
        }
        Next::Again(policy.wait(self.failures))
    }

    /// No compactor takes it. `wanted`: where it shall be done, and how soon; `waited`: since when nobody
    /// has taken it; `some_up`: there are compactors that may.
    pub fn untaken(
        &mut self,
        policy: &JobPolicy,
        wanted: Wanted,
        waited: Duration,
        some_up: bool,
    ) -> Untaken {
        if self.disk_full {
            return Untaken::Leave;
        }
        // Compactors are busy: nothing is lost by asking them later, and this node has other work.
        let busy = some_up && self.failures == 0 && !self.unable;
        if busy && wanted.may_wait && wanted.place == CompactionPlace::Any {
            return Untaken::Leave;
        }
        if may_be_here(policy, wanted.place) {
            return Untaken::Here;
        }
        if !some_up || waited >= policy.longest_wait {
            return Untaken::Leave;
        }
        self.refused.clear();
        Untaken::Wait(policy.backoff.0)
    }

    /// Compactors to leave out, in order of preference: first also the one where it failed last.
    pub fn without(&self) -> [BTreeSet<NodeId>; 2] {
        let refused: BTreeSet<NodeId> = self.refused.union(&self.never).copied().collect();
        let elsewhere = refused.iter().chain(&self.failed_at).copied().collect();
        [elsewhere, refused]
    }
}

impl JobPolicy {
    /// Before the next try, after so many in vain.
    fn wait(&self, times: u32) -> Duration {
        let doubled = 1_u32.checked_shl(times.saturating_sub(1)).unwrap_or(u32::MAX);
        self.backoff.0.saturating_mul(doubled).min(self.backoff.1)
    }
}

/// What it says of a compactor that it does not take a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    /// It has no room: later it may.
    Busy,
    /// It cannot, for now.
    Unable,
    /// It would refuse the same whenever it is asked.
    Never,
}

fn meaning(reason: Reason) -> Meaning {
    match reason {
        Reason::Overloaded | Reason::ShuttingDown | Reason::DiskFull => Meaning::Busy,
        Reason::JobTooLarge
        | Reason::BadPlugin
        | Reason::BadPlan
        | Reason::InvalidArgument
        | Reason::MessageTooLarge
        | Reason::ObjectStoreMismatch
        | Reason::WrongCluster
        | Reason::WrongNode
        | Reason::Unsupported => Meaning::Never,
        _ => Meaning::Unable,
    }
}

/// Whether the data node may carry a job out itself.
pub fn may_be_here(policy: &JobPolicy, place: CompactionPlace) -> bool {
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

    #[test]
    fn a_job_is_tried_elsewhere_with_longer_and_longer_waits_and_then_left_alone() {
        let policy = JobPolicy { most_failures: 8, ..JobPolicy::default() };
        let mut tally = Tally::default();
        let waits: Vec<Next> =
            (0..8).map(|_| tally.failed_on(A, Reason::Unavailable, &policy)).collect();
        let again = |seconds| Next::Again(Duration::from_secs(seconds));
        let mut expected: Vec<Next> = [1, 2, 4, 8, 16, 30, 30].map(again).into();
        expected.push(Next::Quarantine);
        assert_eq!(waits, expected);
        let three = JobPolicy::default();
        let mut tally = Tally { failures: 2, ..Tally::default() };
        assert_eq!(tally.failed_on(A, Reason::Corrupt, &three), Next::Quarantine);
        let mut tally = Tally { failures: 2, ..Tally::default() };
        assert_eq!(tally.failed_on(A, Reason::ObjectStoreUnavailable, &three), Next::GiveUp);
        // One such reason is enough, whatever the others are.
        let mut tally = Tally::default();
        tally.failed_on(A, Reason::DiskFull, &three);
        tally.failed_on(A, Reason::DeadlineExceeded, &three);
        assert_eq!(tally.failed_on(A, Reason::DeadlineExceeded, &three), Next::GiveUp);
        let mut tally = Tally { failures: 2, ..Tally::default() };
        tally.could_not_settle();
        assert_eq!(tally.failed_on(A, Reason::DeadlineExceeded, &three), Next::GiveUp);
    }

    #[test]
    fn whoever_refused_or_failed_is_left_out_as_long_as_there_are_others() {
        let mut tally = Tally::default();
        let none = BTreeSet::new();
        assert_eq!(tally.without(), [none.clone(), none.clone()]);
        tally.failed_on(A, Reason::Unavailable, &JobPolicy::default());
        assert_eq!(tally.without(), [BTreeSet::from([A]), none.clone()]);
        tally.refused_by(B, Reason::Overloaded);
        assert_eq!(tally.without(), [BTreeSet::from([A, B]), BTreeSet::from([B])]);
        // Who was full then may have room now.
        tally.failed_on(B, Reason::Unavailable, &JobPolicy::default());
        assert_eq!(tally.without(), [BTreeSet::from([B]), none]);
        // Who can never take it is not asked again.
        tally.refused_by(A, Reason::JobTooLarge);
        tally.failed_on(B, Reason::Unavailable, &JobPolicy::default());
        assert_eq!(tally.without(), [BTreeSet::from([A, B]), BTreeSet::from([A])]);
        assert_eq!(*tally.never(), BTreeSet::from([A]));
    }

    #[test]
    fn what_may_not_be_done_here_waits_for_a_compactor_with_room_but_not_for_ever() {
        let policy = JobPolicy { fallback_to_local: false, ..JobPolicy::default() };
        let soon = |place| Wanted { place, may_wait: false };
        let (any, there) = (soon(CompactionPlace::Any), soon(CompactionPlace::Remote));
        let mut tally = Tally::default();
        let (zero, long) = (Duration::ZERO, policy.longest_wait);
        assert_eq!(tally.untaken(&policy, there, zero, false), Untaken::Leave, "there is none");
        tally.refused_by(A, Reason::Overloaded);
        assert_eq!(tally.untaken(&policy, any, zero, true), Untaken::Wait(Duration::from_secs(1)));
        assert_eq!(tally.without(), [BTreeSet::new(), BTreeSet::new()], "it is asked again");
        assert_eq!(tally.untaken(&policy, any, long, true), Untaken::Leave);
        assert_eq!(tally.untaken(&JobPolicy::default(), any, zero, true), Untaken::Here);
    }

    #[test]
    fn what_nobody_waits_for_is_left_while_compactors_are_busy() {
        let policy = JobPolicy::default();
        let later = Wanted { place: CompactionPlace::Any, may_wait: true };
        let untaken =
            |tally: &mut Tally, some_up| tally.untaken(&policy, later, Duration::ZERO, some_up);
        assert_eq!(untaken(&mut Tally::default(), true), Untaken::Leave);
        let mut full = Tally::default();
        full.refused_by(A, Reason::Overloaded);
        assert_eq!(untaken(&mut full, true), Untaken::Leave);
        full.refused_by(B, Reason::DiskFull);
        assert_eq!(untaken(&mut full, true), Untaken::Leave);
        // They are not busy, but cannot.
        full.refused_by(B, Reason::Unavailable);
        assert_eq!(untaken(&mut full, true), Untaken::Here);
        // None will ever take it, or none is up.
        assert_eq!(untaken(&mut Tally::default(), false), Untaken::Here);
        // What has failed is not begun anew as if it had not.
        assert_eq!(untaken(&mut Tally { failures: 1, ..Tally::default() }, true), Untaken::Here);
    }

    #[test]
    fn what_has_filled_the_disk_is_not_begun_here_on_the_same_disk() {
        let policy = JobPolicy::default();
        let mut tally = Tally::default();
        tally.failed_on(A, Reason::DiskFull, &policy);
        for place in [CompactionPlace::Any, CompactionPlace::Remote] {
            let wanted = Wanted { place, may_wait: false };
            assert_eq!(tally.untaken(&policy, wanted, Duration::ZERO, true), Untaken::Leave);
        }
    }

    #[test]
    fn what_no_compactor_takes_is_done_here_if_that_is_allowed() {
        let (yes, no) =
            (JobPolicy::default(), JobPolicy { fallback_to_local: false, ..JobPolicy::default() });
        for (place, with, without) in [
            (CompactionPlace::Any, true, false),
            (CompactionPlace::Remote, false, false),
            (CompactionPlace::Local, true, true),
        ] {
            let allowed = (may_be_here(&yes, place), may_be_here(&no, place));
            assert_eq!(allowed, (with, without), "{place:?}");
        }
    }
}
