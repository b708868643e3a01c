//! Bounded rate of the recorder's log lines: one a minute for each subject.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidewater_common::clock::MonotonicClock;
use tracing::warn;

const INTERVAL: Duration = Duration::from_secs(60);

/// Subjects that are remembered, at most; a line of another subject is logged when one of them is forgotten.
const MAX_SUBJECTS: usize = 256;

/// Log of problems.
#[derive(Debug)]
pub(crate) struct ProblemLog {
    clock: Arc<dyn MonotonicClock>,
    /// Time of the last line of a subject, and the problems since then.
    subjects: Mutex<BTreeMap<String, (Duration, u64)>>,
}

impl ProblemLog {
    pub(crate) fn new(clock: Arc<dyn MonotonicClock>) -> Self {
        Self { clock, subjects: Mutex::default() }
    }

    /// Logs a problem of a subject, with the number of problems since its last line.
    pub(crate) fn log(&self, subject: &str, problem: &str, error: &dyn Display) {
        if let Some(problems) = self.due(subject) {
            warn!(subject, problems, %error, "{problem}");
        }
    }

    /// Counts a problem; returns the number of problems since the last line when one is due.
    fn due(&self, subject: &str) -> Option<u64> {
        let now = self.clock.elapsed();
        let mut subjects = self.subjects.lock();
        if let Some((last, count)) = subjects.get_mut(subject) {
            *count += 1;
            if now.saturating_sub(*last) < INTERVAL {
                return None;
            }
            let problems = std::mem::take(count);
            *last = now;
            return Some(problems);
        }
        if subjects.len() >= MAX_SUBJECTS {
            subjects.retain(|_, (last, _)| now.saturating_sub(*last) < INTERVAL);
        }
        if subjects.len() >= MAX_SUBJECTS {
            return None;
        }
        subjects.insert(subject.to_owned(), (now, 0));
        Some(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manual_clock::ManualClock;

    #[test]
    fn one_line_a_minute_is_due_for_each_subject() {
        let clock = Arc::new(ManualClock::default());
        let log = ProblemLog::new(clock.clone());
        assert_eq!((log.due("a"), log.due("a"), log.due("b")), (Some(1), None, Some(1)));
        clock.set(60);
        assert_eq!((log.due("a"), log.due("a")), (Some(2), None));
    }

    #[test]
    fn subjects_are_bounded() {
        let log = ProblemLog::new(Arc::new(ManualClock::default()));
        let lines = (0..1_000).filter(|n| log.due(&n.to_string()).is_some()).count();
        assert_eq!(lines, MAX_SUBJECTS);
    }
}
