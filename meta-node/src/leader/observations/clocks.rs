//! Observed clocks, and the jump of replicated time after an outage.

use std::collections::BTreeMap;
use std::time::Duration;

use tidewater_common::ids::NodeId;
use tokio::time::Instant;

use super::{NodeObservation, Observations};

/// Maximum age of a clock in a heartbeat: a clock that jumps meanwhile must not count for longer.
const CLOCK_TIMEOUT: Duration = Duration::from_secs(4);

/// Time that a loader has for its next call after a jump of replicated time: more than the interval of
/// its calls.
pub(super) const LOADER_RETURN: Duration = Duration::from_secs(90);

impl Observations {
    /// Returns whether replicated time has followed the cluster's clocks in this term.
    pub(crate) fn has_agreed(&self) -> bool {
        *self.agreed.borrow()
    }

    /// Records that replicated time has followed the agreed time of the clocks.
    pub(crate) fn record_agreement(&self) {
        self.agreed.send_replace(true);
    }

    /// Records that replicated time is about to jump.
    pub(crate) fn record_jump(&self, now: Instant) {
        self.inner.lock().jumped_at = Some(now);
    }

    /// Returns whether a procedure past its deadline is to be abandoned. After a jump of replicated time, its loader
    /// has time for the next call.
    pub(crate) fn may_pass_deadlines(&self, now: Instant) -> bool {
        let jumped_at = self.inner.lock().jumped_at;
        jumped_at.is_none_or(|at| now.saturating_duration_since(at) >= LOADER_RETURN)
    }

    /// Waits until replicated time has followed the clocks in this term, for at most `limit`. After an
    /// outage, replicated time jumps once: a deadline that was set before would have passed.
    pub(crate) async fn wait_for_agreement(&self, limit: Duration) {
        let mut agreed = self.agreed.subscribe();
        // Otherwise no clocks are known, and time does not jump either.
        let _ = tokio::time::timeout(limit, agreed.wait_for(|agreed| *agreed)).await;
    }

    /// Clocks of the nodes with a recent heartbeat at `now`, milliseconds since the Unix epoch.
    pub(crate) fn clocks(&self, now: Instant) -> BTreeMap<NodeId, u64> {
        let inner = self.inner.lock();
        let clock = |(node, known): (&NodeId, &NodeObservation)| {
            let age = now.saturating_duration_since(known.at?);
            let recent = known.clock_ms > 0 && age < CLOCK_TIMEOUT;
            let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
            recent.then_some((*node, known.clock_ms.saturating_add(age_ms)))
        };
        inner.nodes.iter().filter_map(clock).collect()
    }

    /// Records this node's own clock beside the agreed time.
    pub(crate) fn record_own_clock(&self, own_ms: u64, agreed_ms: u64, bound: Duration) {
        let mut inner = self.inner.lock();
        let bound_ms = u64::try_from(bound.as_millis()).unwrap_or(u64::MAX);
        inner.own_clock.record(0, agreed_ms, Duration::ZERO);
        inner.own_difference = inner.own_clock.difference(own_ms, Duration::ZERO, bound_ms);
    }
}
