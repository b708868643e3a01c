//! Attempts to complete procedures: when the next one is due, and the regions that have completed their part
//! (pure).
//!
//! In memory only: a new leader repeats the regions that are not recorded as completed, which changes nothing.
//!
//! - `failing_regions`: regions that fail, and the failure that is recorded for their step.

mod failing_regions;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tidewater_common::backoff::Backoff;
use tidewater_common::ids::RegionId;
use tidewater_proto::v1::Reason;
use tokio::time::Instant;

pub(super) use self::failing_regions::{FailingRegions, failure_of, recorded};

/// Backoff between the attempts on a procedure, without progress.
const BACKOFF: Backoff =
    Backoff { first: Duration::from_millis(500), longest: Duration::from_secs(10) };
/// Maximum number of attempts that begin in one round: each reads all routes of its table.
const MAX_BEGUN: usize = 64;

/// Change of a procedure's condition that is logged. Attempts that fail like the previous one are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AttemptNotice {
    /// The first failure, or another one than before.
    Failing,
    /// The first success after failures.
    Recovered,
}

/// Attempts of one phase.
#[derive(Debug)]
struct PhaseAttempts<P> {
    phase: P,
    in_progress: bool,
    /// Failures in a row without progress.
    failures: u32,
    /// Reason of the last failure.
    reason: Option<Reason>,
    due: Instant,
    completed: BTreeSet<RegionId>,
    failing: FailingRegions,
    /// Number of completed regions before the attempt.
    before: usize,
}

/// Attempts on all procedures in progress. `K`: what identifies a procedure; `P`: its phase, work that the
/// regions do once.
#[derive(Debug)]
pub(super) struct Attempts<K, P> {
    procedures: BTreeMap<K, PhaseAttempts<P>>,
}

impl<K, P> Default for Attempts<K, P> {
    fn default() -> Self {
        Self { procedures: BTreeMap::new() }
    }
}

impl<K: Copy + Ord, P: Copy + PartialEq> Attempts<K, P> {
    /// Begins the attempts that are due at `now`, and returns their keys: those with the fewest failures
    /// first, so that procedures that fail again and again delay no new ones. `unfinished`: all procedures in
    /// progress.
    pub(super) fn begin_due(&mut self, unfinished: Vec<(K, P)>, now: Instant) -> Vec<K> {
        let known: BTreeSet<K> = unfinished.iter().map(|(key, _)| *key).collect();
        self.procedures.retain(|key, attempts| attempts.in_progress || known.contains(key));
        let mut due: Vec<(u32, K)> = Vec::new();
        for (key, phase) in unfinished {
            let attempts =
                self.procedures.entry(key).or_insert_with(|| PhaseAttempts::new(phase, now));
            if attempts.in_progress {
                continue;
            }
            if attempts.phase != phase {
                *attempts = PhaseAttempts::new(phase, now);
            }
            if attempts.due <= now {
                due.push((attempts.failures, key));
            }
        }
        due.sort_unstable();
        let keys: Vec<K> = due.into_iter().take(MAX_BEGUN).map(|(_, key)| key).collect();
        for key in &keys {
            if let Some(attempts) = self.procedures.get_mut(key) {
                attempts.in_progress = true;
                attempts.before = attempts.completed.len();
            }
        }
        keys
    }

    /// Returns whether a region has completed its part of a phase.
    pub(super) fn is_completed(&self, key: K, phase: P, region: RegionId) -> bool {
        self.procedures
            .get(&key)
            .is_some_and(|attempts| attempts.phase == phase && attempts.completed.contains(&region))
    }

    /// Returns the regions that have completed their part of a phase in this term.
    pub(super) fn completed(&self, key: K, phase: P) -> BTreeSet<RegionId> {
        let of_phase = self.procedures.get(&key).filter(|attempts| attempts.phase == phase);
        of_phase.map(|attempts| attempts.completed.clone()).unwrap_or_default()
    }

    /// Records that a region has completed its part of a phase.
    pub(super) fn record_completed(&mut self, key: K, phase: P, region: RegionId, now: Instant) {
        if let Some(attempts) = self.procedures.get_mut(&key)
            && attempts.phase == phase
        {
            attempts.completed.insert(region);
            attempts.failing.clear(region, now);
        }
    }

    /// Returns the failing regions of a phase.
    pub(super) fn failing(&mut self, key: K, phase: P) -> Option<&mut FailingRegions> {
        let attempts = self.procedures.get_mut(&key).filter(|attempts| attempts.phase == phase)?;
        Some(&mut attempts.failing)
    }

    /// Changes the reason for which a procedure fails while its attempt continues; `None`: it does not fail.
    pub(super) fn note(&mut self, key: K, failed: Option<Reason>) -> Option<AttemptNotice> {
        self.procedures.get_mut(&key)?.note(failed)
    }

    /// Ends an attempt. `failed`: the reason of its failure; `bits`: random bits for the backoff.
    pub(super) fn end(
        &mut self,
        key: K,
        failed: Option<Reason>,
        now: Instant,
        bits: u64,
    ) -> Option<AttemptNotice> {
        let attempts = self.procedures.get_mut(&key)?;
        attempts.in_progress = false;
        let notice = attempts.note(failed);
        if failed.is_none() {
            // Another phase is due at once. The same one had nothing to do yet.
            attempts.failures = 0;
            attempts.due = now + BACKOFF.first;
            return notice;
        }
        let has_progress = attempts.completed.len() > attempts.before;
        attempts.failures = if has_progress { 1 } else { attempts.failures.saturating_add(1) };
        attempts.due = now + BACKOFF.wait(attempts.failures, None, bits);
        notice
    }
}

impl<P> PhaseAttempts<P> {
    fn new(phase: P, now: Instant) -> Self {
        Self {
            phase,
            in_progress: false,
            failures: 0,
            reason: None,
            due: now,
            completed: BTreeSet::new(),
            failing: FailingRegions::new(now),
            before: 0,
        }
    }

    /// Changes the reason of the last failure, and returns the change of the condition.
    fn note(&mut self, failed: Option<Reason>) -> Option<AttemptNotice> {
        let before = std::mem::replace(&mut self.reason, failed);
        match failed {
            Some(_) => (before != failed).then_some(AttemptNotice::Failing),
            None => before.map(|_| AttemptNotice::Recovered),
        }
    }
}

#[cfg(test)]
mod tests;
