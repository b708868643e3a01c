//! Events that a follower has printed (pure).
//!
//! Nodes write their events in batches, so that an event may become visible after later ones. A follower therefore reads
//! a window of time again and again, and prints the events that it has not seen in it.

use std::collections::BTreeSet;

use uuid::Uuid;

/// Time before the newest event that is read again: an event that becomes visible later is not printed.
pub(super) const OVERLAP_NS: i64 = 60_000_000_000;

/// Most events that a window remembers. With more of them, the window is shorter.
const MAX_SEEN: usize = 100_000;

/// Window of time with the events that were seen in it.
#[derive(Debug)]
pub(super) struct TailWindow {
    start_ns: i64,
    /// Time of the newest event.
    newest_ns: Option<i64>,
    seen: BTreeSet<(i64, Uuid)>,
    max_seen: usize,
}

impl TailWindow {
    /// Window of the events from a time on, nanoseconds since the Unix epoch.
    pub(super) fn new(start_ns: i64) -> Self {
        Self { start_ns, newest_ns: None, seen: BTreeSet::new(), max_seen: MAX_SEEN }
    }

    /// Time from which on events are to be read.
    pub(super) fn start_ns(&self) -> i64 {
        self.start_ns
    }

    /// Returns whether an event was seen, or is older than the window.
    pub(super) fn has(&self, time_ns: i64, id: Uuid) -> bool {
        time_ns < self.start_ns || self.seen.contains(&(time_ns, id))
    }

    /// Adds an event; returns false if it was seen before.
    pub(super) fn add(&mut self, time_ns: i64, id: Uuid) -> bool {
        if time_ns < self.start_ns || !self.seen.insert((time_ns, id)) {
            return false;
        }
        self.newest_ns = self.newest_ns.max(Some(time_ns));
        true
    }

    /// Moves the window to the newest event, and forgets the events before it. `now_ns`: time of the cluster, so that a
    /// node whose clock is ahead does not hide the events of others.
    pub(super) fn advance(&mut self, now_ns: i64) {
        if let Some(newest_ns) = self.newest_ns {
            self.move_start(newest_ns.min(now_ns).saturating_sub(OVERLAP_NS));
        }
        if let Some(surplus) = self.seen.len().checked_sub(self.max_seen + 1)
            && let Some((last_forgotten_ns, _)) = self.seen.iter().nth(surplus).copied()
        {
            self.move_start(last_forgotten_ns.saturating_add(1));
        }
    }

    fn move_start(&mut self, start_ns: i64) {
        self.start_ns = self.start_ns.max(start_ns);
        self.seen = self.seen.split_off(&(self.start_ns, Uuid::nil()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    fn id(number: u128) -> Uuid {
        Uuid::from_u128(number)
    }

    #[test]
    fn late_event_within_the_window_is_new_once() {
        let mut window = TailWindow::new(0);
        assert!(!window.has(100 * SECOND, id(1)));
        assert!(window.add(100 * SECOND, id(1)));
        assert!(window.has(100 * SECOND, id(1)));
        assert!(!window.add(100 * SECOND, id(1)));
        assert!(window.add(100 * SECOND, id(2)));
        window.advance(200 * SECOND);
        assert_eq!(window.start_ns(), 40 * SECOND);
        assert!(window.add(50 * SECOND, id(3)));
        assert!(!window.add(50 * SECOND, id(3)));
        assert!(!window.add(39 * SECOND, id(4)), "the window has moved on");
    }

    #[test]
    fn window_stays_without_events() {
        let mut window = TailWindow::new(5 * SECOND);
        window.advance(1_000 * SECOND);
        assert_eq!(window.start_ns(), 5 * SECOND);
    }

    #[test]
    fn event_of_the_future_does_not_move_the_window() {
        let mut window = TailWindow::new(0);
        window.add(900 * SECOND, id(1));
        window.advance(100 * SECOND);
        assert_eq!(window.start_ns(), 40 * SECOND);
        assert!(window.add(90 * SECOND, id(2)));
        assert!(!window.add(900 * SECOND, id(1)));
    }

    #[test]
    fn seen_events_are_bounded() {
        let mut window = TailWindow { max_seen: 3, ..TailWindow::new(0) };
        for time in 1..=5 {
            window.add(time, id(1));
        }
        window.advance(100);
        assert_eq!((window.seen.len(), window.start_ns()), (3, 3));
        for time in 1..=5 {
            assert!(!window.add(time, id(1)), "{time}");
        }
        window.advance(100);
        assert_eq!(window.start_ns(), 3);
    }

    #[test]
    fn events_of_one_time_are_forgotten_together() {
        let mut window = TailWindow { max_seen: 3, ..TailWindow::new(0) };
        for number in 1..=5 {
            window.add(7, id(number));
        }
        window.advance(100);
        assert_eq!((window.seen.len(), window.start_ns()), (0, 8));
    }
}
