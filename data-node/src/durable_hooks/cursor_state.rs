//! State of one cursor on this node, and when its next delivery is due (pure).

use std::time::Duration;

use tidewater_common::backoff::Backoff;
use tidewater_common::ids::ManifestVersion;
use tidewater_proto::v1::CursorState;
use tokio::time::Instant;

use super::cursor::{Cursor, CursorMove};

/// Backoff after failed deliveries.
const BACKOFF: Backoff =
    Backoff { first: Duration::from_millis(500), longest: Duration::from_secs(60) };
/// Interval between reads of a manifest whose region this node does not host: it is being dropped.
const NOT_HOSTED_INTERVAL: Duration = Duration::from_secs(2);
/// Interval between reads of a manifest that the local region has read to its end: other nodes may have
/// committed bookkeeping.
const IDLE_INTERVAL: Duration = Duration::from_secs(300);

/// State of a cursor on this node, and of its deliveries.
#[derive(Debug)]
pub(super) struct LocalCursorState {
    pub(super) cursor: Cursor,
    /// The table was dropped, and its regions with it.
    pub(super) dropped: bool,
    /// Error of the last delivery.
    pub(super) problem: Option<String>,
    phase: Phase,
    failures: u32,
    not_before: Option<Instant>,
    /// Start of the last delivery.
    started_at: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Idle,
    Running,
    /// A delivery has ended, and the meta service has not recorded the move yet.
    Moving(CursorMove),
}

impl LocalCursorState {
    pub(super) fn new(cursor: Cursor, dropped: bool) -> Self {
        Self {
            cursor,
            dropped,
            problem: None,
            phase: Phase::Idle,
            failures: 0,
            not_before: None,
            started_at: None,
        }
    }

    /// Returns whether a delivery may begin. `version`: the version to which the local region has read
    /// its manifest; `None`: the region is not hosted on this node.
    pub(super) fn is_due(&self, version: Option<ManifestVersion>, now: Instant) -> bool {
        let backs_off = self.not_before.is_some_and(|when| when > now);
        if self.phase != Phase::Idle || backs_off {
            return false;
        }
        let is_past = |interval| self.started_at.is_none_or(|started| now >= started + interval);
        match (self.cursor.state, version) {
            (CursorState::Gone | CursorState::Unspecified, _) => false,
            (CursorState::Tail, Some(version)) => {
                // A cursor above the manifest is wrong, unless the region has yet to read its manifest.
                let is_ahead = version < self.cursor.version && is_past(NOT_HOSTED_INTERVAL);
                version > self.cursor.version || is_ahead || is_past(IDLE_INTERVAL)
            }
            (CursorState::Tail, None) => is_past(NOT_HOSTED_INTERVAL),
            _ => true,
        }
    }

    /// Start of the last delivery: the cursor that has waited longest comes first.
    pub(super) fn started_at(&self) -> Option<Instant> {
        self.started_at
    }

    /// Marks the start of a delivery.
    pub(super) fn mark_running(&mut self, now: Instant) {
        self.phase = Phase::Running;
        self.started_at = Some(now);
    }

    /// Records the end of a delivery. Returns the backoff after a failure, with jitter by random `bits`.
    pub(super) fn end(
        &mut self,
        to: Option<CursorMove>,
        failed: bool,
        now: Instant,
        bits: u64,
    ) -> Option<Duration> {
        self.phase = to.map_or(Phase::Idle, Phase::Moving);
        if !failed {
            self.failures = 0;
            // The stored manifest soon shows a version that the local region has read already.
            self.not_before = to.is_none().then(|| now + BACKOFF.first);
            return None;
        }
        if to.is_some() {
            // The hook accepted a version after its last failure.
            self.failures = 0;
        }
        self.failures = self.failures.saturating_add(1);
        let wait = BACKOFF.wait(self.failures, None, bits);
        self.not_before = Some(now + wait);
        Some(wait)
    }

    /// Returns the move that the meta service has to record.
    pub(super) fn pending_move(&self) -> Option<CursorMove> {
        match self.phase {
            Phase::Moving(to) => Some(to),
            Phase::Idle | Phase::Running => None,
        }
    }

    /// Records the meta service's reply: the cursor's position, whichever node moved it.
    pub(super) fn record_moved(&mut self, cursor: Cursor) {
        self.cursor = cursor;
        self.phase = Phase::Idle;
    }

    /// Records the position that the meta service lists. It is ignored during a delivery, whose move
    /// the meta service has yet to decide.
    pub(super) fn record_listed(&mut self, cursor: Cursor, dropped: bool) {
        self.dropped = dropped;
        if self.phase == Phase::Idle {
            self.cursor = cursor;
        }
    }

    pub(super) fn is_running(&self) -> bool {
        self.phase == Phase::Running
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::durable_hooks::tests::cursor;

    fn v(version: u64) -> Option<ManifestVersion> {
        Some(ManifestVersion(version))
    }

    fn state_at(version: u64, state: CursorState) -> LocalCursorState {
        LocalCursorState::new(cursor(7, "h", version, state), false)
    }

    #[test]
    fn delivery_is_due_when_versions_are_undelivered() {
        use CursorState::{From, Gone, Lagged, Now, Start, Tail};
        let now = Instant::now();
        for (state, due) in
            [(Now, true), (Start, true), (From, true), (Lagged, true), (Gone, false)]
        {
            assert_eq!(state_at(5, state).is_due(v(5), now), due, "{state:?}");
        }
        let mut state = state_at(5, Tail);
        assert!(state.is_due(v(5), now), "its manifest was not read yet");
        state.mark_running(now);
        assert!(!state.is_due(v(9), now), "one delivery at a time");
        assert_eq!(state.end(None, false, now, 0), None);
        let later = now + Duration::from_secs(1);
        assert!(!state.is_due(v(5), later));
        assert!(!state.is_due(v(4), later), "the region may have yet to read its manifest");
        assert!(state.is_due(v(4), now + NOT_HOSTED_INTERVAL), "it is above the manifest");
        assert!(!state.is_due(v(5), now + NOT_HOSTED_INTERVAL));
        assert!(state.is_due(v(6), later));
        assert!(!state.is_due(None, later));
        assert!(state.is_due(None, now + NOT_HOSTED_INTERVAL));
        assert!(state.is_due(v(5), now + IDLE_INTERVAL));
    }

    #[test]
    fn delivery_waits_until_the_last_move_is_recorded() {
        let now = Instant::now();
        let mut state = state_at(5, CursorState::Tail);
        state.mark_running(now);
        let to = CursorMove::To(ManifestVersion(8), CursorState::Tail);
        state.end(Some(to), false, now, 0);
        assert_eq!(state.pending_move(), Some(to));
        assert!(!state.is_due(v(9), now));
        // A listed position may be older than the move.
        state.record_listed(cursor(7, "h", 5, CursorState::Tail), false);
        assert_eq!(state.pending_move(), Some(to));
        state.record_moved(cursor(7, "h", 8, CursorState::Tail));
        assert!(state.is_due(v(9), now) && state.pending_move().is_none());
    }

    #[test]
    fn failed_delivery_backs_off_exponentially() {
        let mut now = Instant::now();
        let mut state = state_at(5, CursorState::Tail);
        let mut waits = Vec::new();
        for _ in 0..9 {
            state.mark_running(now);
            let wait = state.end(None, true, now, 0).unwrap();
            assert!(!state.is_due(v(9), now + wait - Duration::from_millis(1)));
            now += wait;
            assert!(state.is_due(v(9), now));
            waits.push(wait.as_millis());
        }
        assert_eq!(waits[..4], [250, 500, 1_000, 2_000]);
        assert_eq!(waits[8], 30_000);
        // Progress before the failure.
        state.mark_running(now);
        let to = CursorMove::To(ManifestVersion(6), CursorState::Tail);
        assert_eq!(state.end(Some(to), true, now, 0), Some(BACKOFF.first / 2));
        state.record_moved(cursor(7, "h", 6, CursorState::Tail));
        assert!(!state.is_due(v(9), now));
    }
}
