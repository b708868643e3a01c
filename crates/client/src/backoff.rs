//! Backoff between attempts: a pure function of the number of attempts and random bits.

use std::time::Duration;

/// Capped exponential backoff with jitter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// Wait before the second attempt, before jitter.
    pub first: Duration,
    /// Longest wait, unless the server requests a longer one.
    pub cap: Duration,
}

impl Backoff {
    /// Returns the wait after attempt number `made` (from 1): between half and the whole of
    /// `first x 2^(made - 1)`, capped. The server's `retry_after` is a lower bound. It is limited to ten
    /// times the cap, so that one faulty answer cannot block a client.
    pub fn wait(&self, made: u32, retry_after: Option<Duration>, bits: u64) -> Duration {
        let doublings = made.saturating_sub(1).min(16);
        let full = self.first.saturating_mul(1 << doublings).min(self.cap);
        let half = full / 2;
        let spread = u64::try_from(half.as_micros()).unwrap_or(u64::MAX).saturating_add(1);
        let jittered = half + Duration::from_micros(bits % spread);
        match retry_after {
            Some(requested) => jittered.max(requested.min(self.cap * 10)),
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
    fn backoff_doubles_up_to_the_cap() {
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
    fn backoff_respects_retry_after_up_to_a_limit() {
        assert_eq!(BACKOFF.wait(1, Some(Duration::from_secs(1)), 0), Duration::from_secs(1));
        assert_eq!(BACKOFF.wait(1, Some(Duration::from_secs(3_600)), 0), Duration::from_secs(3));
    }

    #[test]
    fn different_random_bits_spread_the_waits() {
        assert_ne!(BACKOFF.wait(5, None, 1), BACKOFF.wait(5, None, 2));
    }
}
