//! When a hook is left out: after a number of failures in a row, or of fewer calls that came too late,
//! for those hold a flush up; for a while. Then one call is let through, for which nobody waits. Its
//! success ends the suspension, its failure begins one that is twice as long.
//!
//! A success counts for its own method alone: a hook that hangs whenever files are written may well
//! take everything else, and most hooks do not even look at it.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// Limits that keep a bad hook from slowing everybody down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HookLimits {
    /// Longest time of one call. A flush waits that long for a hook that hangs.
    pub time_limit: Duration,
    /// Failures in a row after which a hook is suspended; at least 1.
    pub failures_in_a_row: u32,
    /// Late calls in a row after which a hook is suspended; at least 1. Less than of failures: a flush
    /// stands still for as long as each of them lasts.
    pub late_in_a_row: u32,
    /// How long it is suspended before it is tried again; doubles each time that this fails, up to 64
    /// times as long.
    pub suspension: Duration,
}

impl Default for HookLimits {
    fn default() -> Self {
        Self {
            time_limit: Duration::from_secs(5),
            failures_in_a_row: 5,
            late_in_a_row: 2,
            suspension: Duration::from_secs(60),
        }
    }
}

/// How a hook has behaved lately.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct HookHealth {
    /// Failures in a row of each method whose last call has failed.
    failing: BTreeMap<&'static str, Failures>,
    suspended_until: Option<Instant>,
    /// A call was let through after a suspension.
    probing: bool,
    /// Such calls that have failed, in a row.
    failed_probes: u32,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Failures {
    all: u32,
    late: u32,
}

/// Whether a call may be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CallAdmission {
    /// The hook takes part.
    Called,
    /// It is suspended, and this call is to show whether it works again. Nobody waits for it: they
    /// have waited in failed_probes before.
    Tried,
    /// It is left out.
    LeftOut,
}

/// How a call came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CallOutcome {
    Succeeded,
    Failed,
    /// There was no answer in time.
    Late,
}

/// What a call's result did to the hook's health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HealthChange {
    /// Nothing new.
    Same,
    /// It is left out from here on.
    Suspended,
    /// It takes part again.
    Resumed,
}

impl HookHealth {
    /// Whether a call of this method may be made now. Asking after a suspension lets one call of a
    /// method that has failed through, and holds back all others until that one has succeeded or
    /// another suspension has passed.
    pub(super) fn admit(
        &mut self,
        method: &'static str,
        now: Instant,
        limits: &HookLimits,
    ) -> CallAdmission {
        match self.suspended_until {
            None => CallAdmission::Call,
            Some(until) if now < until || !self.failing.contains_key(method) => CallAdmission::Skip,
            Some(_) => {
                self.probing = true;
                self.suspended_until = now.checked_add(self.pause(limits));
                CallAdmission::Probe
            }
        }
    }

    /// Takes note of how a call of this method has ended.
    pub(super) fn note(
        &mut self,
        method: &'static str,
        ending: CallOutcome,
        now: Instant,
        limits: &HookLimits,
    ) -> HealthChange {
        if ending == CallOutcome::Succeeded {
            let failed = self.failing.remove(method).is_some();
            if failed && self.is_suspended() {
                *self = Self::default();
                return HealthChange::Resumed;
            }
            return HealthChange::Unchanged;
        }
        let own = self.failing.entry(method).or_default();
        own.all = own.all.saturating_add(1);
        own.late = own.late.saturating_add(u32::from(ending == CallOutcome::TimedOut));
        if self.is_suspended() {
            // Calls that were under way when the suspension began say nothing new.
            self.failed_probes =
                self.failed_probes.saturating_add(u32::from(std::mem::take(&mut self.probing)));
            self.suspended_until = now.checked_add(self.pause(limits));
            return HealthChange::Unchanged;
        }
        let sum =
            |of: fn(&Failures) -> u32| self.failing.values().map(of).fold(0, u32::saturating_add);
        if sum(|one| one.all) < limits.failures_in_a_row.max(1)
            && sum(|one| one.late) < limits.late_in_a_row.max(1)
        {
            return HealthChange::Unchanged;
        }
        self.suspended_until = now.checked_add(self.pause(limits));
        HealthChange::Suspended
    }

    fn pause(&self, limits: &HookLimits) -> Duration {
        limits.suspension.saturating_mul(1 << self.failed_probes.min(6))
    }

    /// Whether the hook is left out, but for one call now and then.
    pub(super) fn is_suspended(&self) -> bool {
        self.suspended_until.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HookLimits = HookLimits {
        time_limit: Duration::from_secs(5),
        failures_in_a_row: 3,
        late_in_a_row: 2,
        suspension: Duration::from_secs(60),
    };
    const ONE: &str = "one";
    const OTHER: &str = "other";

    fn note(
        health: &mut HookHealth,
        method: &'static str,
        ending: CallOutcome,
        now: Instant,
    ) -> HealthChange {
        health.note(method, ending, now, &LIMITS)
    }

    fn failing(times: u32, now: Instant) -> HookHealth {
        let mut health = HookHealth::default();
        for _ in 0..times {
            let _ = note(&mut health, ONE, CallOutcome::Failed, now);
        }
        health
    }

    fn admit(health: &mut HookHealth, now: Instant) -> CallAdmission {
        health.admit(ONE, now, &LIMITS)
    }

    #[test]
    fn a_hook_is_suspended_after_failures_in_a_row() {
        let now = Instant::now();
        let mut health = failing(2, now);
        assert_eq!(admit(&mut health, now), CallAdmission::Call);
        assert_eq!(note(&mut health, ONE, CallOutcome::Succeeded, now), HealthChange::Unchanged);
        let mut health = failing(2, now);
        assert_eq!(note(&mut health, ONE, CallOutcome::Failed, now), HealthChange::Suspended);
        assert_eq!(admit(&mut health, now), CallAdmission::Skip);
        let almost = now + LIMITS.suspension - Duration::from_millis(1);
        assert_eq!(admit(&mut health, almost), CallAdmission::Skip);
    }

    #[test]
    fn late_calls_suspend_a_hook_sooner() {
        let now = Instant::now();
        let mut health = failing(1, now);
        assert_eq!(note(&mut health, ONE, CallOutcome::TimedOut, now), HealthChange::Unchanged);
        assert_eq!(note(&mut health, ONE, CallOutcome::Succeeded, now), HealthChange::Unchanged);
        assert_eq!(note(&mut health, ONE, CallOutcome::TimedOut, now), HealthChange::Unchanged);
        assert_eq!(note(&mut health, OTHER, CallOutcome::TimedOut, now), HealthChange::Suspended);
    }

    #[test]
    fn one_success_between_failures_keeps_a_hook() {
        let now = Instant::now();
        let mut health = failing(2, now);
        let _ = note(&mut health, ONE, CallOutcome::Succeeded, now);
        for _ in 0..2 {
            assert_eq!(note(&mut health, ONE, CallOutcome::Failed, now), HealthChange::Unchanged);
        }
        assert_eq!(admit(&mut health, now), CallAdmission::Call);
    }

    #[test]
    fn what_a_hook_takes_does_not_excuse_what_it_fails() {
        let now = Instant::now();
        let mut health = HookHealth::default();
        for turn in [HealthChange::Unchanged, HealthChange::Unchanged, HealthChange::Suspended] {
            assert_eq!(note(&mut health, ONE, CallOutcome::Failed, now), turn);
            assert_eq!(
                note(&mut health, OTHER, CallOutcome::Succeeded, now),
                HealthChange::Unchanged
            );
        }
        let later = now + LIMITS.suspension;
        assert_eq!(health.admit(OTHER, later, &LIMITS), CallAdmission::Skip);
        assert_eq!(admit(&mut health, later), CallAdmission::Probe);
    }

    #[test]
    fn calls_that_were_under_way_do_not_make_a_suspension_longer() {
        let start = Instant::now();
        let mut health = failing(3 + 4, start);
        assert_eq!(admit(&mut health, start + LIMITS.suspension), CallAdmission::Probe);
    }

    #[test]
    fn one_call_is_let_through_after_a_suspension() {
        let start = Instant::now();
        let mut health = failing(3, start);
        let later = start + LIMITS.suspension;
        assert_eq!(admit(&mut health, later), CallAdmission::Probe);
        assert_eq!(
            admit(&mut health, later),
            CallAdmission::Skip,
            "a second call beside the first"
        );
        assert_eq!(note(&mut health, ONE, CallOutcome::Failed, later), HealthChange::Unchanged);
        let again = later + LIMITS.suspension * 2;
        let almost = again - Duration::from_millis(1);
        assert_eq!(admit(&mut health, almost), CallAdmission::Skip, "twice as long");
        assert_eq!(admit(&mut health, again), CallAdmission::Probe);
        assert_eq!(note(&mut health, ONE, CallOutcome::Succeeded, again), HealthChange::Resumed);
        assert_eq!(admit(&mut health, again), CallAdmission::Call);
        assert!(!health.is_suspended());
    }
}
