//! Suspension of hooks (pure). A hook is suspended for a while after a number of failures in a row,
//! or after fewer timeouts, since these delay a flush. Then one call probes the hook; no caller
//! waits for it. Its success ends the suspension, its failure starts another one of twice the
//! length.
//!
//! A success resets only the failures of its own method: a hook that hangs on every written file
//! may accept everything else, and most hooks ignore most events.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use tidewater_common::backoff::Backoff;
use tokio::time::Instant;

use crate::layout::RegionDir;

/// Longest suspension, as a multiple of the first.
const LONGEST_SUSPENSION: u32 = 64;

/// Limits that keep a faulty hook from delaying all regions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HookLimits {
    /// Time limit of one call. A flush waits that long for a hook that hangs.
    pub time_limit: Duration,
    /// Failures in a row after which a hook is suspended; at least 1.
    pub failures_in_a_row: u32,
    /// Timeouts in a row after which a hook is suspended; at least 1. Should be lower than the
    /// number of failures: each timeout delays a flush for its whole duration.
    pub late_in_a_row: u32,
    /// Length of a suspension before the hook is probed; doubles with each failed probe, up to 64
    /// times the length.
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

/// Receives the suspensions of the hooks of a registry.
pub trait SuspensionCallback: Debug + Send + Sync + 'static {
    /// Called once when a suspension begins, not for its failed probes. Must not block. `dir`: the region of the call
    /// that failed last; `cause`: its error.
    fn suspended(&self, hook: &str, dir: RegionDir, cause: &str);
}

/// Recent failures and suspension of a hook.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct HookHealth {
    /// Failures in a row of each method whose last call failed.
    failing: BTreeMap<&'static str, Failures>,
    suspended_until: Option<Instant>,
    /// A probe after a suspension is in progress.
    probing: bool,
    /// Failed probes in a row.
    failed_probes: u32,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Failures {
    all: u32,
    late: u32,
}

/// Decision about a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CallAdmission {
    /// The hook is called.
    Call,
    /// The hook is suspended, and this call probes it. The caller does not wait: earlier calls have
    /// already delayed it.
    Probe,
    /// The hook is skipped.
    Skip,
}

/// Outcome of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CallOutcome {
    Succeeded,
    Failed,
    /// The call exceeded the time limit.
    TimedOut,
}

/// Effect of a call's outcome on the hook's suspension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HealthChange {
    /// No change.
    Unchanged,
    /// The hook is suspended from now on.
    Suspended,
    /// The suspension ended.
    Resumed,
}

impl HookHealth {
    /// Decides about a call of this method. After a suspension, one call of a method that has
    /// failed probes the hook; all others are skipped until the probe succeeds or another
    /// suspension has passed.
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

    /// Records the outcome of a call of this method.
    pub(super) fn record(
        &mut self,
        method: &'static str,
        outcome: CallOutcome,
        now: Instant,
        limits: &HookLimits,
    ) -> HealthChange {
        if outcome == CallOutcome::Succeeded {
            let failed = self.failing.remove(method).is_some();
            if failed && self.is_suspended() {
                *self = Self::default();
                return HealthChange::Resumed;
            }
            return HealthChange::Unchanged;
        }
        let own = self.failing.entry(method).or_default();
        own.all = own.all.saturating_add(1);
        own.late = own.late.saturating_add(u32::from(outcome == CallOutcome::TimedOut));
        if self.is_suspended() {
            // Calls that were in progress when the suspension began do not count as probes.
            self.failed_probes =
                self.failed_probes.saturating_add(u32::from(std::mem::take(&mut self.probing)));
            self.suspended_until = now.checked_add(self.pause(limits));
            return HealthChange::Unchanged;
        }
        let sum = |field: fn(&Failures) -> u32| {
            self.failing.values().map(field).fold(0, u32::saturating_add)
        };
        if sum(|failures| failures.all) < limits.failures_in_a_row.max(1)
            && sum(|failures| failures.late) < limits.late_in_a_row.max(1)
        {
            return HealthChange::Unchanged;
        }
        self.suspended_until = now.checked_add(self.pause(limits));
        HealthChange::Suspended
    }

    fn pause(&self, limits: &HookLimits) -> Duration {
        let first = limits.suspension;
        let longest = first.saturating_mul(LONGEST_SUSPENSION);
        // Without jitter: operators rely on the length.
        Backoff { first, longest }.without_jitter(self.failed_probes.saturating_add(1))
    }

    /// Returns `true` if the hook is suspended; single probes may still be made.
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

    fn record(
        health: &mut HookHealth,
        method: &'static str,
        outcome: CallOutcome,
        now: Instant,
    ) -> HealthChange {
        health.record(method, outcome, now, &LIMITS)
    }

    fn failing(times: u32, now: Instant) -> HookHealth {
        let mut health = HookHealth::default();
        for _ in 0..times {
            let _ = record(&mut health, ONE, CallOutcome::Failed, now);
        }
        health
    }

    fn admit(health: &mut HookHealth, now: Instant) -> CallAdmission {
        health.admit(ONE, now, &LIMITS)
    }

    #[test]
    fn hook_is_suspended_after_failures_in_a_row() {
        let now = Instant::now();
        let mut health = failing(2, now);
        assert_eq!(admit(&mut health, now), CallAdmission::Call);
        assert_eq!(record(&mut health, ONE, CallOutcome::Succeeded, now), HealthChange::Unchanged);
        let mut health = failing(2, now);
        assert_eq!(record(&mut health, ONE, CallOutcome::Failed, now), HealthChange::Suspended);
        assert_eq!(admit(&mut health, now), CallAdmission::Skip);
        let almost = now + LIMITS.suspension - Duration::from_millis(1);
        assert_eq!(admit(&mut health, almost), CallAdmission::Skip);
    }

    #[test]
    fn timeouts_suspend_a_hook_sooner() {
        let now = Instant::now();
        let mut health = failing(1, now);
        assert_eq!(record(&mut health, ONE, CallOutcome::TimedOut, now), HealthChange::Unchanged);
        assert_eq!(record(&mut health, ONE, CallOutcome::Succeeded, now), HealthChange::Unchanged);
        assert_eq!(record(&mut health, ONE, CallOutcome::TimedOut, now), HealthChange::Unchanged);
        assert_eq!(record(&mut health, OTHER, CallOutcome::TimedOut, now), HealthChange::Suspended);
    }

    #[test]
    fn success_between_failures_prevents_a_suspension() {
        let now = Instant::now();
        let mut health = failing(2, now);
        let _ = record(&mut health, ONE, CallOutcome::Succeeded, now);
        for _ in 0..2 {
            assert_eq!(record(&mut health, ONE, CallOutcome::Failed, now), HealthChange::Unchanged);
        }
        assert_eq!(admit(&mut health, now), CallAdmission::Call);
    }

    #[test]
    fn success_of_one_method_does_not_reset_another() {
        let now = Instant::now();
        let mut health = HookHealth::default();
        for change in [HealthChange::Unchanged, HealthChange::Unchanged, HealthChange::Suspended] {
            assert_eq!(record(&mut health, ONE, CallOutcome::Failed, now), change);
            assert_eq!(
                record(&mut health, OTHER, CallOutcome::Succeeded, now),
                HealthChange::Unchanged
            );
        }
        let later = now + LIMITS.suspension;
        assert_eq!(health.admit(OTHER, later, &LIMITS), CallAdmission::Skip);
        assert_eq!(admit(&mut health, later), CallAdmission::Probe);
    }

    #[test]
    fn calls_in_progress_do_not_extend_a_suspension() {
        let start = Instant::now();
        let mut health = failing(3 + 4, start);
        assert_eq!(admit(&mut health, start + LIMITS.suspension), CallAdmission::Probe);
    }

    #[test]
    fn one_call_probes_the_hook_after_a_suspension() {
        let start = Instant::now();
        let mut health = failing(3, start);
        let later = start + LIMITS.suspension;
        assert_eq!(admit(&mut health, later), CallAdmission::Probe);
        assert_eq!(
            admit(&mut health, later),
            CallAdmission::Skip,
            "a second call during the probe"
        );
        assert_eq!(record(&mut health, ONE, CallOutcome::Failed, later), HealthChange::Unchanged);
        let again = later + LIMITS.suspension * 2;
        let almost = again - Duration::from_millis(1);
        assert_eq!(admit(&mut health, almost), CallAdmission::Skip, "twice as long");
        assert_eq!(admit(&mut health, again), CallAdmission::Probe);
        assert_eq!(record(&mut health, ONE, CallOutcome::Succeeded, again), HealthChange::Resumed);
        assert_eq!(admit(&mut health, again), CallAdmission::Call);
        assert!(!health.is_suspended());
    }
}
