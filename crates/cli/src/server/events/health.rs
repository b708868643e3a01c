//! Problem of a process whose events do not reach their table, or are dropped (pure).

use std::time::Duration;

use tidewater_common::problem::Problem;
use tidewater_common::quote::quoted;
use tidewater_event_recorder::FailingTable;
use tidewater_proto::v1::ProblemKind;
use tokio::time::Instant;

/// Time without a written event after which a table is a problem: longer than an election, a call that is aborted, and
/// the pause of a batch whose retries have failed.
const NOT_WRITTEN: Duration = Duration::from_secs(2 * 60);

/// Time for which dropped events are a problem.
const DROPPED: Duration = Duration::from_secs(10 * 60);

/// Health of an open recorder.
#[derive(Debug, Default)]
pub(super) struct RecorderHealth {
    /// Events that the recorder had dropped at the last check.
    dropped: u64,
    drops: Option<Drops>,
}

/// Events that were dropped at times that differ by less than [`DROPPED`].
#[derive(Debug, Clone, Copy)]
struct Drops {
    first: Instant,
    last: Instant,
    events: u64,
}

impl RecorderHealth {
    /// Returns the problem at a time. `dropped`: events that the recorder has dropped since it was opened; `failing`: the
    /// table that has taken no events for the longest time.
    pub(super) fn problem(
        &mut self,
        dropped: u64,
        failing: Option<&FailingTable>,
        now: Instant,
    ) -> Option<Problem> {
        self.count(dropped, now);
        let failing = failing.filter(|failing| failing.lasting >= NOT_WRITTEN);
        let of_table = failing.map(|FailingTable { table, error, .. }| {
            format!("its events are not written to the table {}: {error}", quoted(table))
        });
        let of_drops = self.drops.map(|Drops { events, .. }| {
            format!("{events} of its events were dropped: the spool or its queue is full, or its disk fails")
        });
        let details: Vec<String> = of_table.into_iter().chain(of_drops).collect();
        if details.is_empty() {
            return None;
        }
        let since_drop = self.drops.map(|drops| now.saturating_duration_since(drops.first));
        let age = since_drop.max(failing.map(|failing| failing.lasting)).unwrap_or_default();
        Some(Problem::new(ProblemKind::EventsNotRecorded, details.join("; ")).lasting(age))
    }

    fn count(&mut self, dropped: u64, now: Instant) {
        let new = dropped.saturating_sub(self.dropped);
        self.dropped = dropped;
        if self.drops.is_some_and(|drops| now.saturating_duration_since(drops.last) >= DROPPED) {
            self.drops = None;
        }
        if new > 0 {
            let drops = self.drops.get_or_insert(Drops { first: now, last: now, events: 0 });
            drops.last = now;
            drops.events += new;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failing(seconds: u64) -> Option<FailingTable> {
        let lasting = Duration::from_secs(seconds);
        Some(FailingTable { table: "events".to_owned(), lasting, error: "no leader".to_owned() })
    }

    fn shown(problem: Option<Problem>) -> Option<(String, u64)> {
        problem.map(|problem| {
            assert_eq!(problem.kind, ProblemKind::EventsNotRecorded);
            (problem.detail, problem.age.unwrap_or_default().as_secs())
        })
    }

    const OF_TABLE: &str = "its events are not written to the table \"events\": no leader";

    fn of_drops(events: u64) -> String {
        format!(
            "{events} of its events were dropped: the spool or its queue is full, or its disk fails"
        )
    }

    #[test]
    fn table_is_a_problem_after_two_minutes() {
        let mut health = RecorderHealth::default();
        let now = Instant::now();
        let mut at = |seconds: Option<u64>| {
            let failing = seconds.and_then(failing);
            shown(health.problem(0, failing.as_ref(), now))
        };
        assert_eq!(at(None), None);
        assert_eq!(at(Some(119)), None);
        assert_eq!(at(Some(120)), Some((OF_TABLE.to_owned(), 120)));
        assert_eq!(at(None), None);
    }

    #[test]
    fn dropped_events_are_a_problem_for_ten_minutes() {
        let mut health = RecorderHealth::default();
        let begun = Instant::now();
        let mut at = |seconds: u64, dropped: u64| {
            shown(health.problem(dropped, None, begun + Duration::from_secs(seconds)))
        };
        assert_eq!(at(0, 0), None);
        assert_eq!(at(100, 3), Some((of_drops(3), 0)));
        assert_eq!(at(600, 5), Some((of_drops(5), 500)));
        assert_eq!(at(1_199, 5), Some((of_drops(5), 1_099)));
        assert_eq!(at(1_200, 5), None);
        assert_eq!(at(1_201, 6), Some((of_drops(1), 0)));
    }

    #[test]
    fn both_problems_are_reported_as_one() {
        let mut health = RecorderHealth::default();
        let found = shown(health.problem(1, failing(300).as_ref(), Instant::now()));
        assert_eq!(found, Some((format!("{OF_TABLE}; {}", of_drops(1)), 300)));
    }
}
