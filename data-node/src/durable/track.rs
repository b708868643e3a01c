//! What is known of one cursor, and when its next turn is due: pure.

use std::time::Duration;

use tidewater_common::ids::ManifestVersion;
use tidewater_proto::v1::CursorState;
use tokio::time::Instant;

use super::cursor::{Cursor, Move};

/// First and longest wait after a failed turn.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));
/// How often the manifest of a region is looked at that this node does not host: it is being dropped.
const SOON: Duration = Duration::from_secs(2);
/// How often one is looked at that the region here has read to its end: others may have committed
/// bookkeeping.
const SELDOM: Duration = Duration::from_secs(300);

/// A cursor and its turns.
#[derive(Debug)]
pub(super) struct Track {
    pub(super) cursor: Cursor,
    /// The table is gone, and with it the region.
    pub(super) dropped: bool,
    phase: Phase,
    failures: u32,
    not_before: Option<Instant>,
    /// When a turn began last.
    began: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Idle,
    Running,
    /// A turn has ended, and the meta service has not taken the move yet.
    Moving(Move),
}

impl Track {
    pub(super) fn new(cursor: Cursor, dropped: bool) -> Self {
        let phase = Phase::Idle;
        Self { cursor, dropped, phase, failures: 0, not_before: None, began: None }
    }

    /// Whether a turn may begin. `version`: as far as the region here has read its manifest; `None`:
    /// it is not hosted here.
    pub(super) fn is_due(&self, version: Option<ManifestVersion>, now: Instant) -> bool {
        let waits = self.not_before.is_some_and(|when| when > now);
        if self.phase != Phase::Idle || waits {
            return false;
        }
        let rested = |pause| self.began.is_none_or(|began| now >= began + pause);
        match (self.cursor.state, version) {
            (CursorState::Gone | CursorState::Unspecified, _) => false,
            (CursorState::Tail, Some(version)) => version > self.cursor.version || rested(SELDOM),
            (CursorState::Tail, None) => rested(SOON),
            _ => true,
        }
    }

    /// Whoever has waited longest comes first.
    pub(super) fn began(&self) -> Option<Instant> {
        self.began
    }

    /// A turn begins.
    pub(super) fn begin(&mut self, now: Instant) {
        self.phase = Phase::Running;
        self.began = Some(now);
    }

    /// A turn has ended. How long the track waits after a failure.
    pub(super) fn end(&mut self, to: Option<Move>, failed: bool, now: Instant) -> Option<Duration> {
        self.phase = to.map_or(Phase::Idle, Phase::Moving);
        if !failed {
            self.failures = 0;
            // What the region here has read, and the manifest as stored does not show, comes soon.
            self.not_before = to.is_none().then(|| now + BACKOFF.0);
            return None;
        }
        if to.is_some() {
            // It took something since it failed last.
            self.failures = 0;
        }
        let wait = BACKOFF.0.saturating_mul(1 << self.failures.min(16)).min(BACKOFF.1);
        self.failures = self.failures.saturating_add(1);
        self.not_before = Some(now + wait);
        Some(wait)
    }

    /// The move that the meta service is to be asked for.
    pub(super) fn moving(&self) -> Option<Move> {
        match self.phase {
            Phase::Moving(to) => Some(to),
            Phase::Idle | Phase::Running => None,
        }
    }

    /// The meta service has answered: the cursor is there, whoever has moved it.
    pub(super) fn moved(&mut self, cursor: Cursor) {
        self.cursor = cursor;
        self.phase = Phase::Idle;
    }

    /// The meta service lists the cursor there. While a turn is under way that counts for nothing:
    /// its move is decided by the meta service.
    pub(super) fn listed(&mut self, cursor: Cursor, dropped: bool) {
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
    use crate::durable::tests::cursor;

    fn v(version: u64) -> Option<ManifestVersion> {
        Some(ManifestVersion(version))
    }

    fn track(version: u64, state: CursorState) -> Track {
        Track::new(cursor(7, "h", version, state), false)
    }

    #[test]
    fn a_turn_is_due_when_there_is_something_to_tell() {
        use CursorState::{From, Gone, Lagged, Now, Start, Tail};
        let now = Instant::now();
        for (state, due) in
            [(Now, true), (Start, true), (From, true), (Lagged, true), (Gone, false)]
        {
            assert_eq!(track(5, state).is_due(v(5), now), due, "{state:?}");
        }
        let mut track = track(5, Tail);
        assert!(track.is_due(v(5), now), "nobody has looked here yet");
        track.begin(now);
        assert!(!track.is_due(v(9), now), "one at a time");
        assert_eq!(track.end(None, false, now), None);
        let later = now + Duration::from_secs(1);
        assert!(!track.is_due(v(5), later));
        assert!(track.is_due(v(6), later));
        assert!(!track.is_due(None, later));
        assert!(track.is_due(None, now + SOON));
        assert!(track.is_due(v(5), now + SELDOM));
    }

    #[test]
    fn no_turn_begins_until_the_last_move_is_recorded() {
        let now = Instant::now();
        let mut track = track(5, CursorState::Tail);
        track.begin(now);
        let to = Move::To(ManifestVersion(8), CursorState::Tail);
        track.end(Some(to), false, now);
        assert_eq!(track.moving(), Some(to));
        assert!(!track.is_due(v(9), now));
        // What is listed meanwhile may be older than the move.
        track.listed(cursor(7, "h", 5, CursorState::Tail), false);
        assert_eq!(track.moving(), Some(to));
        track.moved(cursor(7, "h", 8, CursorState::Tail));
        assert!(track.is_due(v(9), now) && track.moving().is_none());
    }

    #[test]
    fn a_region_that_fails_waits_longer_each_time() {
        let mut now = Instant::now();
        let mut track = track(5, CursorState::Tail);
        let mut waits = Vec::new();
        for _ in 0..9 {
            track.begin(now);
            let wait = track.end(None, true, now).unwrap();
            assert!(!track.is_due(v(9), now + wait - Duration::from_millis(1)));
            now += wait;
            assert!(track.is_due(v(9), now));
            waits.push(wait.as_millis());
        }
        assert_eq!(waits[..4], [500, 1_000, 2_000, 4_000]);
        assert_eq!(waits[8], 60_000);
        // Progress before the failure.
        track.begin(now);
        let to = Move::To(ManifestVersion(6), CursorState::Tail);
        assert_eq!(track.end(Some(to), true, now), Some(BACKOFF.0));
        track.moved(cursor(7, "h", 6, CursorState::Tail));
        assert!(!track.is_due(v(9), now));
    }
}
