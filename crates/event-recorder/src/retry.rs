//! Decision about the next attempt to have a batch persisted (pure).

use std::time::Duration;

use crate::options::EventRecorderOptions;

/// Rounds of panics after which a batch with notes is set aside. A part of it may be persisted.
const ROUNDS_WITH_NOTES: u32 = 10;

/// Reason why an attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AttemptFailure {
    /// The handler returned an error, or did not return in time.
    Failed,
    /// The handler panicked.
    Panicked,
}

/// Next attempt after a failed one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NextAttempt {
    /// Pass the same batch again after a time.
    Retry(Duration),
    /// Divide the batch: one of its events makes the handler panic.
    Divide,
    /// Set the events of the batch aside: they make the handler panic.
    SetAside,
}

/// Attempts of a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct BatchAttempts {
    /// Attempts that failed.
    failures: u32,
    /// Those of them that panicked since the last other failure.
    panics: u32,
}

impl BatchAttempts {
    /// Counts a failed attempt.
    pub(crate) fn record(&mut self, failure: AttemptFailure) {
        self.failures = self.failures.saturating_add(1);
        self.panics = match failure {
            AttemptFailure::Failed => 0,
            AttemptFailure::Panicked => self.panics.saturating_add(1),
        };
    }

    /// Decides the next attempt for a batch of `events` events. Up to the retries of the options, the wait doubles from the
    /// first backoff to the longest; then the batch waits for the pause, and has its retries again. `has_notes`: the
    /// handler may have persisted a part of the batch, which therefore cannot be divided.
    pub(crate) fn next(
        &self,
        options: &EventRecorderOptions,
        events: usize,
        has_notes: bool,
    ) -> NextAttempt {
        let round = options.retries.saturating_add(1);
        let panics = if has_notes { round.saturating_mul(ROUNDS_WITH_NOTES) } else { round };
        if self.panics >= panics {
            let is_divisible = events > 1 && !has_notes;
            return if is_divisible { NextAttempt::Divide } else { NextAttempt::SetAside };
        }
        match self.failures % round {
            0 => NextAttempt::Retry(options.pause),
            retry => NextAttempt::Retry(backoff(options, retry)),
        }
    }
}

fn backoff(options: &EventRecorderOptions, retry: u32) -> Duration {
    let doubled = 2u32.saturating_pow(retry.saturating_sub(1).min(31));
    options.first_backoff.saturating_mul(doubled).min(options.max_backoff)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(failures: &[AttemptFailure]) -> BatchAttempts {
        let mut attempts = BatchAttempts::default();
        for failure in failures {
            attempts.record(*failure);
        }
        attempts
    }

    #[test]
    fn retries_double_their_wait_and_then_pause() {
        let options = EventRecorderOptions::default();
        let waits: Vec<_> = (1..=6)
            .map(|failures| after(&vec![AttemptFailure::Failed; failures]).next(&options, 9, false))
            .collect();
        let wait = |ms| NextAttempt::Retry(Duration::from_millis(ms));
        assert_eq!(
            waits,
            [wait(1_670), wait(3_340), wait(5_000), wait(30_000), wait(1_670), wait(3_340)]
        );
    }

    #[test]
    fn batch_that_panics_is_divided_to_one_event() {
        let options = EventRecorderOptions::default();
        let next = |panics, events, has_notes| {
            after(&vec![AttemptFailure::Panicked; panics]).next(&options, events, has_notes)
        };
        assert!(matches!(next(3, 9, false), NextAttempt::Retry(_)));
        assert_eq!(next(4, 9, false), NextAttempt::Divide);
        assert_eq!(next(4, 1, false), NextAttempt::SetAside);
        // A part may be persisted already: only the whole batch can be passed again.
        assert!(matches!(next(39, 9, true), NextAttempt::Retry(_)));
        assert_eq!(next(40, 9, true), NextAttempt::SetAside);
    }

    #[test]
    fn panics_count_from_the_last_other_failure() {
        let options = EventRecorderOptions::default();
        let mut attempts = after(&[AttemptFailure::Panicked; 3]);
        attempts.record(AttemptFailure::Failed);
        assert_eq!(attempts.next(&options, 9, false), NextAttempt::Retry(options.pause));
        for _ in 0..4 {
            attempts.record(AttemptFailure::Panicked);
        }
        assert_eq!(attempts.next(&options, 9, false), NextAttempt::Divide);
    }

    #[test]
    fn recorder_without_retries_pauses_at_once() {
        let options = EventRecorderOptions { retries: 0, ..EventRecorderOptions::default() };
        let next = after(&[AttemptFailure::Failed]).next(&options, 2, false);
        assert_eq!(next, NextAttempt::Retry(options.pause));
    }
}
