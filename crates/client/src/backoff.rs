//! How long to wait before the next attempt: a pure function of the attempt and some random bits.

use std::time::Duration;

/// Capped exponential waits with jitter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// Wait before the second attempt, before jitter.
    pub first: Duration,
    /// No wait is longer than this, unless the server asked for a longer one.
    pub cap: Duration,
}

impl Backoff {
    /// The wait after attempt number `made` (counts from 1): between half of and the whole of
    /// `first x 2^(made - 1)`, capped. A server's `retry_after` is a lower bound, itself limited
    /// to ten times the cap, so that one odd answer cannot park a client.
    pub fn wait(&self, made: u32, retry_after: Option<Duration>, bits: u64) -> Duration {
        let doublings = made.saturating_sub(1).min(16);
        let full = self.first.saturating_mul(1 << doublings).min(self.cap);
        let half = full / 2;
        let spread = u64::try_from(half.as_micros()).unwrap_or(u64::MAX).saturating_add(1);
        let jittered = half + Duration::from_micros(bits % spread);
        match retry_after {
            Some(asked) => jittered.max(asked.min(self.cap * 10)),
            None => jittered,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff =
        Backoff { first: Duration::from_millis(20), cap: Duration::from_millis(300) };

    #[test]
    fn waits_double_up_to_the_cap() {
        for (made, low, high) in
            [(1, 10, 20), (2, 20, 40), (3, 40, 80), (9, 150, 300), (u32::MAX, 150, 300)]
        {
            for bits in [0, 1, 12_345, u64::MAX] {
                let wait = BACKOFF.wait(made, None, bits);
                assert!(wait >= Duration::from_millis(low), "{made} {bits} {wait:?}");
                assert!(wait <= Duration::from_millis(high), "{made} {bits} {wait:?}");
            }
        }
    }

    #[test]
    fn a_server_that_asks_for_more_time_gets_it_within_reason() {
        assert_eq!(BACKOFF.wait(1, Some(Duration::from_secs(1)), 0), Duration::from_secs(1));
        assert_eq!(BACKOFF.wait(1, Some(Duration::from_secs(3_600)), 0), Duration::from_secs(3));
    }

    #[test]
    fn different_bits_spread_the_waits() {
        assert_ne!(BACKOFF.wait(5, None, 1), BACKOFF.wait(5, None, 2));
    }
}
