//! Bounded rate of the log's lines about input of other processes.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Allows one line for each interval, and counts the events between two lines.
#[derive(Debug)]
pub struct LogRate {
    interval: Duration,
    state: Mutex<(Option<Instant>, u64)>,
}

impl LogRate {
    /// Creates a rate of one line for each interval.
    pub const fn new(interval: Duration) -> Self {
        Self { interval, state: Mutex::new((None, 0)) }
    }

    /// Counts an event at `now`. Returns the number of events since the last line, when a line is due.
    pub fn due(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.1 = state.1.saturating_add(1);
        if state.0.is_some_and(|last| now.duration_since(last) < self.interval) {
            return None;
        }
        state.0 = Some(now);
        Some(std::mem::take(&mut state.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_is_due_in_each_interval() {
        let rate = LogRate::new(Duration::from_secs(1));
        let now = Instant::now();
        assert_eq!((rate.due(now), rate.due(now), rate.due(now)), (Some(1), None, None));
        assert_eq!(rate.due(now + Duration::from_secs(1)), Some(3));
    }
}
