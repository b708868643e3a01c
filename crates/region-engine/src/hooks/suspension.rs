//! When a hook is left out: after a number of failures in a row, for a while; then one call is let
//! through. Its success ends the suspension, its failure begins one that is twice as long: a hook
//! that always hangs holds flushes up ever more rarely.

use std::time::Duration;

use tokio::time::Instant;

/// Limits that keep a bad hook from slowing everybody down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HookLimits {
    /// Longest time of one call. A flush waits that long for a hook that hangs.
    pub time_limit: Duration,
    /// Failures in a row after which a hook is suspended; at least 1.
    pub failures_in_a_row: u32,
    /// How long it is suspended before it is tried again; doubles each time that this fails, up to 64
    /// times as long.
    pub suspension: Duration,
}

impl Default for HookLimits {
    fn default() -> Self {
        Self {
            time_limit: Duration::from_secs(5),
            failures_in_a_row: 5,
            suspension: Duration::from_secs(60),
        }
    }
}

/// How a hook has behaved lately.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Standing {
    in_a_row: u32,
    suspended_until: Option<Instant>,
    /// A call was let through after a suspension.
    probing: bool,
    /// Such calls that have failed, in a row.
    vain: u32,
}

/// What a call's result did to the hook's standing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Nothing new.
    Same,
    /// It is left out from here on.
    Suspended,
    /// It takes part again.
    Resumed,
}

impl Standing {
    /// Whether a call may be made now. Asking after a suspension lets one call through, and holds
    /// back all others until that one has succeeded or another suspension has passed.
    pub(super) fn admit(&mut self, now: Instant, limits: &HookLimits) -> bool {
        match self.suspended_until {
            None => true,
            Some(until) if now < until => false,
            Some(_) => {
                self.probing = true;
                self.suspended_until = now.checked_add(self.pause(limits));
                true
            }
        }
    }

    /// Takes note of a call's result.
    pub(super) fn note(&mut self, succeeded: bool, now: Instant, limits: &HookLimits) -> Turn {
        if succeeded {
            let turn = if self.is_suspended() { Turn::Resumed } else { Turn::Same };
            *self = Self::default();
            return turn;
        }
        self.in_a_row = self.in_a_row.saturating_add(1);
        if self.in_a_row < limits.failures_in_a_row.max(1) {
            return Turn::Same;
        }
        let turn = if self.is_suspended() {
            // Calls that were under way when the suspension began say nothing new.
            self.vain = self.vain.saturating_add(u32::from(std::mem::take(&mut self.probing)));
            Turn::Same
        } else {
            Turn::Suspended
        };
        self.suspended_until = now.checked_add(self.pause(limits));
        turn
    }

    fn pause(&self, limits: &HookLimits) -> Duration {
        limits.suspension.saturating_mul(1 << self.vain.min(6))
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
        suspension: Duration::from_secs(60),
    };

    fn failing(times: u32, now: Instant) -> Standing {
        let mut standing = Standing::default();
        for _ in 0..times {
            let _ = standing.note(false, now, &LIMITS);
        }
        standing
    }

    #[test]
    fn a_hook_is_suspended_after_failures_in_a_row() {
        let now = Instant::now();
        let mut standing = failing(2, now);
        assert!(standing.admit(now, &LIMITS));
        assert_eq!(standing.note(true, now, &LIMITS), Turn::Same);
        let mut standing = failing(2, now);
        assert_eq!(standing.note(false, now, &LIMITS), Turn::Suspended);
        assert!(!standing.admit(now, &LIMITS));
        assert!(!standing.admit(now + LIMITS.suspension - Duration::from_millis(1), &LIMITS));
    }

    #[test]
    fn one_success_between_failures_keeps_a_hook() {
        let now = Instant::now();
        let mut standing = failing(2, now);
        let _ = standing.note(true, now, &LIMITS);
        for _ in 0..2 {
            assert_eq!(standing.note(false, now, &LIMITS), Turn::Same);
        }
        assert!(standing.admit(now, &LIMITS));
    }

    #[test]
    fn calls_that_were_under_way_do_not_make_a_suspension_longer() {
        let start = Instant::now();
        let mut standing = failing(3 + 4, start);
        assert!(standing.admit(start + LIMITS.suspension, &LIMITS));
    }

    #[test]
    fn one_call_is_let_through_after_a_suspension() {
        let start = Instant::now();
        let mut standing = failing(3, start);
        let later = start + LIMITS.suspension;
        assert!(standing.admit(later, &LIMITS));
        assert!(!standing.admit(later, &LIMITS), "a second call beside the first");
        assert_eq!(standing.note(false, later, &LIMITS), Turn::Same);
        let again = later + LIMITS.suspension * 2;
        assert!(!standing.admit(again - Duration::from_millis(1), &LIMITS), "twice as long");
        assert!(standing.admit(again, &LIMITS));
        assert_eq!(standing.note(true, again, &LIMITS), Turn::Resumed);
        assert!(standing.admit(again, &LIMITS));
        assert!(!standing.is_suspended());
    }
}
