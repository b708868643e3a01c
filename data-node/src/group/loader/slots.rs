//! Limits of concurrent manifest loads.
//!
//! A small limit, so that a group that starts with many regions does not flood the store. A load
//! that takes long no longer counts toward the small limit, so that unresponsive manifests do not
//! delay responsive ones; a second, larger limit holds for all loads.

use std::time::Duration;

use tokio::time::Instant;

/// Concurrent loads, slow ones excluded.
const BRISK: usize = 4;
/// Concurrent loads, slow ones included.
const MOST: usize = 64;
/// A load that takes longer counts as slow.
const SLOW: Duration = Duration::from_secs(1);

/// Start times of the running loads, and the decision whether another may start.
#[derive(Debug, Default)]
pub(super) struct LoadSlots {
    // Start times of the running loads, oldest first.
    begun: Vec<Instant>,
}

impl LoadSlots {
    /// Returns whether another load may start.
    pub(super) fn has_room(&self, now: Instant) -> bool {
        self.begun.len() < MOST && self.brisk(now).len() < BRISK
    }

    /// Time at which another load may start although none has ended; `None`: never.
    pub(super) fn next_room(&self, now: Instant) -> Option<Instant> {
        if self.begun.len() >= MOST {
            return None;
        }
        self.brisk(now).first().map(|begun| *begun + SLOW)
    }

    /// Adds a load that starts now.
    pub(super) fn begin(&mut self, now: Instant) {
        self.begun.push(now);
    }

    /// Removes the load that started at `begun`.
    pub(super) fn end(&mut self, begun: Instant) {
        if let Some(at) = self.begun.iter().position(|start| *start == begun) {
            self.begun.remove(at);
        }
    }

    fn brisk(&self, now: Instant) -> &[Instant] {
        let slow = self.begun.partition_point(|begun| now.duration_since(*begun) >= SLOW);
        &self.begun[slow..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_loads_release_their_slots_up_to_a_bound() {
        let start = Instant::now();
        let mut slots = LoadSlots::default();
        let mut now = start;
        for _ in 0..MOST / BRISK {
            for _ in 0..BRISK {
                assert!(slots.has_room(now));
                slots.begin(now);
            }
            assert!(!slots.has_room(now));
            if slots.begun.len() < MOST {
                assert_eq!(slots.next_room(now), Some(now + SLOW));
            }
            now += SLOW;
        }
        assert!(!slots.has_room(now), "the larger limit holds");
        assert_eq!(slots.next_room(now), None);
        slots.end(start);
        assert!(slots.has_room(now));
    }
}
