//! Backoff between attempts: a pure function of the number of attempts and random bits, and the
//! sequence of waits of one operation.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

/// Most doublings of the first wait.
const MAX_DOUBLINGS: u32 = 16;

/// Capped exponential backoff with jitter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// Wait before the second attempt, before jitter.
    pub first: Duration,
    /// Longest wait, unless the server requests a longer one.
    pub longest: Duration,
}

impl Backoff {
    /// Backoff without waits.
    pub const NONE: Self = Self { first: Duration::ZERO, longest: Duration::ZERO };

    /// Returns the wait after attempt number `made` (from 1): between half and the whole of
    /// [`Backoff::without_jitter`]. The server's `retry_after` is a lower bound. It is limited to ten times
    /// the longest wait, so that one faulty answer cannot block a caller.
    pub fn wait(&self, made: u32, retry_after: Option<Duration>, bits: u64) -> Duration {
        let half = self.without_jitter(made) / 2;
        let spread = u64::try_from(half.as_micros()).unwrap_or(u64::MAX).saturating_add(1);
        let jittered = half + Duration::from_micros(bits % spread);
        match retry_after {
            Some(requested) => jittered.max(requested.min(self.longest * 10)),
            None => jittered,
        }
    }

    /// Returns the wait after attempt number `made` (from 1) without jitter: `first x 2^(made - 1)`, at
    /// most `longest`. For waits of which the length is promised; retries of several nodes need jitter.
    pub fn without_jitter(&self, made: u32) -> Duration {
        let doublings = made.saturating_sub(1).min(MAX_DOUBLINGS);
        self.first.saturating_mul(1 << doublings).min(self.longest)
    }
}

/// Source of random bits for jitter. Tests use [`Jitter::fixed`].
#[derive(Clone)]
pub struct Jitter(Arc<dyn Fn() -> u64 + Send + Sync>);

impl Jitter {
    /// Creates a source of the operating system's randomness.
    pub fn system() -> Self {
        Self(Arc::new(|| Uuid::new_v4().as_u64_pair().1))
    }

    /// Creates a source that always returns the same bits.
    pub fn fixed(bits: u64) -> Self {
        Self(Arc::new(move || bits))
    }

    /// Returns random bits.
    pub fn bits(&self) -> u64 {
        (self.0)()
    }
}

impl fmt::Debug for Jitter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Jitter")
    }
}

/// Waits between the attempts of one operation, in order.
#[derive(Debug)]
pub struct BackoffSequence {
    backoff: Backoff,
    jitter: Jitter,
    failures: u32,
}

impl BackoffSequence {
    /// Creates the sequence of an operation without a failed attempt.
    pub fn new(backoff: Backoff, jitter: Jitter) -> Self {
        Self { backoff, jitter, failures: 0 }
    }

    /// Records a failed attempt and returns the wait before the next one.
    pub fn next_wait(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        self.backoff.wait(self.failures, None, self.jitter.bits())
    }

    /// Returns whether the waits have reached the longest one, before jitter.
    pub fn is_at_longest(&self) -> bool {
        self.backoff.without_jitter(self.failures) >= self.backoff.longest
    }

    /// Records a success: the next wait is the first one again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff =
        Backoff { first: Duration::from_millis(20), longest: Duration::from_millis(300) };

    #[test]
    fn backoff_doubles_up_to_the_longest_wait() {
        for (made, low, high) in
            [(1, 10, 20), (2, 20, 40), (3, 40, 80), (9, 150, 300), (u32::MAX, 150, 300)]
        {
            assert_eq!(BACKOFF.without_jitter(made), Duration::from_millis(high));
            for bits in [0, 1, 12_345, u64::MAX] {
                let wait = BACKOFF.wait(made, None, bits);
                assert!(wait >= Duration::from_millis(low), "{made} {bits} {wait:?}");
                assert!(wait <= Duration::from_millis(high), "{made} {bits} {wait:?}");
            }
        }
        assert_eq!(Backoff::NONE.wait(3, None, u64::MAX), Duration::ZERO);
    }

    #[test]
    fn backoff_respects_retry_after_up_to_a_limit() {
        assert_eq!(BACKOFF.wait(1, Some(Duration::from_secs(1)), 0), Duration::from_secs(1));
        assert_eq!(BACKOFF.wait(1, Some(Duration::from_secs(3_600)), 0), Duration::from_secs(3));
    }

    #[test]
    fn different_random_bits_spread_the_waits() {
        assert_ne!(BACKOFF.wait(5, None, 1), BACKOFF.wait(5, None, 2));
        let waits = |mut sequence: BackoffSequence| [(); 8].map(|()| sequence.next_wait());
        let sequence = || BackoffSequence::new(BACKOFF, Jitter::system());
        assert_ne!(waits(sequence()), waits(sequence()), "two nodes retry at the same times");
    }

    #[test]
    fn sequence_doubles_until_a_success() {
        let mut sequence = BackoffSequence::new(BACKOFF, Jitter::fixed(0));
        let millis = |wait: Duration| wait.as_millis();
        let waits = [(); 6].map(|()| millis(sequence.next_wait()));
        assert_eq!(waits, [10, 20, 40, 80, 150, 150]);
        assert!(sequence.is_at_longest());
        sequence.reset();
        assert_eq!(millis(sequence.next_wait()), 10);
        assert!(!sequence.is_at_longest());
    }
}
