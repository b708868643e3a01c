//! Limit of the rate of events: a bucket of tokens (pure).

use std::time::Duration;

/// Allows a burst, and the same number of events in each second after it. Generic cell rate algorithm, ITU-T I.371.
#[derive(Debug)]
pub(super) struct EventRate {
    /// Time between two events at the full rate.
    interval: Duration,
    /// Time from which on the bucket is full.
    full_at: Duration,
}

/// Time in which an empty bucket is filled.
const REFILL: Duration = Duration::from_secs(1);

impl EventRate {
    /// Creates a limit of `most` events in a second, at least one.
    pub(super) fn per_second(most: u32) -> Self {
        Self { interval: REFILL / most.max(1), full_at: Duration::ZERO }
    }

    /// Returns whether an event at `now` is allowed, and counts it then.
    pub(super) fn take(&mut self, now: Duration) -> bool {
        let full_at = self.full_at.max(now) + self.interval;
        if full_at > now + REFILL {
            return false;
        }
        self.full_at = full_at;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_allows_a_burst_and_then_its_interval() {
        let mut rate = EventRate::per_second(10);
        let mut allowed = |millis| {
            let now = Duration::from_millis(millis);
            (0..100).filter(|_| rate.take(now)).count()
        };
        for (millis, expected) in
            [(0, 10), (99, 0), (100, 1), (450, 3), (500, 1), (60_000, 10), (60_500, 5)]
        {
            assert_eq!(allowed(millis), expected, "{millis}");
        }
    }
}
