//! Decision about the next attempt to have a batch persisted (pure).

use std::time::Duration;

use crate::options::EventRecorderOptions;

/// Reason why an attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AttemptFailure {
    /// The handler returned an error.
    Failed,
    /// The handler did not return in time, and was aborted.
    TimedOut,
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
    /// The only event of the batch makes the handler panic: set it aside.
    SetAside,
}

/// State of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BatchState {
    /// Events of the batch.
    pub(crate) events: usize,
    /// The handler has noted something: it may have persisted a part of the batch.
    pub(crate) has_notes: bool,
    /// Failed attempts in a row, this one included.
    pub(crate) failures: u32,
    /// All of them were panics.
    pub(crate) only_panics: bool,
}

/// Decides what follows a failed attempt. Up to the retries of the options, the wait doubles from the first backoff to
/// the longest; then the batch waits for the pause, and has its retries again.
pub(crate) fn next_attempt(options: &EventRecorderOptions, batch: BatchState) -> NextAttempt {
    let round = options.retries.saturating_add(1);
    let in_round = batch.failures % round;
    if in_round != 0 {
        return NextAttempt::Retry(backoff(options, in_round));
    }
    if !batch.only_panics || batch.has_notes {
        return NextAttempt::Retry(options.pause);
    }
    if batch.events > 1 { NextAttempt::Divide } else { NextAttempt::SetAside }
}

fn backoff(options: &EventRecorderOptions, retry: u32) -> Duration {
    let doubled = 2u32.saturating_pow(retry.saturating_sub(1).min(31));
    options.first_backoff.saturating_mul(doubled).min(options.max_backoff)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(failures: u32, events: usize, only_panics: bool, has_notes: bool) -> NextAttempt {
        let options = EventRecorderOptions::default();
        next_attempt(&options, BatchState { events, has_notes, failures, only_panics })
    }

    #[test]
    fn retries_double_their_wait_and_then_pause() {
        let waits: Vec<_> = (1..=6).map(|failures| after(failures, 9, false, false)).collect();
        let wait = |ms| NextAttempt::Retry(Duration::from_millis(ms));
        assert_eq!(
            waits,
            [wait(1_670), wait(3_340), wait(5_000), wait(30_000), wait(1_670), wait(3_340)]
        );
    }

    #[test]
    fn batch_that_panics_is_divided_to_one_event() {
        assert_eq!(after(4, 9, true, false), NextAttempt::Divide);
        assert_eq!(after(4, 1, true, false), NextAttempt::SetAside);
        // A part may be persisted already: only the whole batch can be passed again.
        assert_eq!(after(4, 9, true, true), NextAttempt::Retry(Duration::from_secs(30)));
        assert!(matches!(after(3, 1, true, false), NextAttempt::Retry(_)));
    }

    #[test]
    fn recorder_without_retries_pauses_at_once() {
        let options = EventRecorderOptions { retries: 0, ..EventRecorderOptions::default() };
        let batch = BatchState { events: 2, has_notes: false, failures: 1, only_panics: false };
        assert_eq!(next_attempt(&options, batch), NextAttempt::Retry(options.pause));
    }
}
