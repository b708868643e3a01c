//! How many manifests are read at the same time.
//!
//! A few, so that a group that starts with many regions does not flood the store. A load that takes
//! long no longer counts among these few, so that regions whose manifests do not answer do not keep
//! those waiting whose manifests would; only a second, larger bound holds for all.

use std::time::Duration;

use tokio::time::Instant;

/// Loads at the same time, but for slow ones.
const BRISK: usize = 4;
/// Loads at the same time.
const MOST: usize = 64;
/// A load that takes longer is slow.
const SLOW: Duration = Duration::from_secs(1);

/// See the module's head.
#[derive(Debug, Default)]
pub(super) struct Slots {
    // When each of the running loads was begun, oldest first.
    begun: Vec<Instant>,
}

impl Slots {
    /// Whether one more load may begin.
    pub(super) fn room(&self, now: Instant) -> bool {
        self.begun.len() < MOST && self.brisk(now).len() < BRISK
    }

    /// When there will be room though no load ends; `None`: never.
    pub(super) fn next_room(&self, now: Instant) -> Option<Instant> {
        if self.begun.len() >= MOST {
            return None;
        }
        self.brisk(now).first().map(|begun| *begun + SLOW)
    }

    /// A load begins.
    pub(super) fn begin(&mut self, now: Instant) {
        self.begun.push(now);
    }

    /// The load that was begun at this moment has ended.
    pub(super) fn end(&mut self, begun: Instant) {
        if let Some(at) = self.begun.iter().position(|one| *one == begun) {
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
    fn slow_loads_leave_their_slots_to_others_up_to_a_bound() {
        let start = Instant::now();
        let mut slots = Slots::default();
        let mut now = start;
        for _ in 0..MOST / BRISK {
            for _ in 0..BRISK {
                assert!(slots.room(now));
                slots.begin(now);
            }
            assert!(!slots.room(now));
            if slots.begun.len() < MOST {
                assert_eq!(slots.next_room(now), Some(now + SLOW));
            }
            now += SLOW;
        }
        assert!(!slots.room(now), "the larger bound");
        assert_eq!(slots.next_room(now), None);
        slots.end(start);
        assert!(slots.room(now));
    }
}
