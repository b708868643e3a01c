//! Thread that moves events from the queue to the spool.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tidewater_events::{DEFAULT_TABLE, Priority, RecordOutcome, RecordedEvent};
use tokio::sync::watch;

use crate::counters::Counters;
use crate::env::RecorderEnv;
use crate::problem_log::ProblemLog;
use crate::queue::{PriorityCounts, Queue, QueuedEvent};
use crate::spool::{Appended, DroppedSummary, Spool, SpoolError};

/// Type of the event that reports how many events were dropped.
pub const DROPPED_TYPE: &str = "events_dropped";

/// Time between two looks at an empty queue.
const ROUND: Duration = Duration::from_secs(1);

/// Shortest time between two summaries.
const SUMMARY_INTERVAL: Duration = Duration::from_secs(10);

/// State of the thread.
#[derive(Debug)]
pub(crate) struct Intake {
    pub(crate) queue: Arc<Queue>,
    pub(crate) spool: Arc<Spool>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) env: RecorderEnv,
    pub(crate) problems: Arc<ProblemLog>,
    /// Closed when the thread has ended. Declared last, so that it is dropped after the spool.
    #[expect(dead_code, reason = "its end is its message")]
    pub(crate) ended: watch::Sender<()>,
}

impl Drop for Intake {
    fn drop(&mut self) {
        // Also after a panic: events that nothing moves are refused.
        self.queue.close();
    }
}

impl Intake {
    /// Moves events until the queue is closed and empty. Blocking.
    pub(crate) fn run(self) {
        let mut unreported = PriorityCounts::default();
        let mut last_summary = None;
        loop {
            let taken = self.queue.take(ROUND);
            self.counters.count_dropped(taken.dropped.total());
            unreported.add_all(taken.dropped);
            if !taken.events.is_empty() || unreported.total() > 0 {
                unreported = self.append(taken.events, unreported);
            }
            let now = self.env.monotonic.elapsed();
            let is_due =
                last_summary.is_none_or(|last| now.saturating_sub(last) >= SUMMARY_INTERVAL);
            if (is_due || taken.is_last)
                && let Some(summary) = self.spool.dropped()
            {
                last_summary = Some(now);
                self.summarize(&summary);
            }
            if taken.is_last {
                return;
            }
        }
    }

    /// Appends events to the spool and resolves their receipts. Returns the dropped events that the spool has not
    /// counted.
    fn append(&self, queued: Vec<QueuedEvent>, unreported: PriorityCounts) -> PriorityCounts {
        let (events, receipts): (Vec<_>, Vec<_>) =
            queued.into_iter().map(|queued| (queued.event, queued.receipt)).unzip();
        match self.spool.append(&events, unreported, self.env.clock.now_ms()) {
            Ok(Appended { accepted, dropped }) => {
                let spooled = accepted.iter().filter(|accepted| **accepted).count();
                self.counters.count_spooled(spooled as u64);
                self.counters.count_dropped(dropped);
                for (receipt, accepted) in receipts.into_iter().zip(accepted) {
                    let outcome =
                        if accepted { RecordOutcome::Spooled } else { RecordOutcome::Dropped };
                    let _ = receipt.send(outcome);
                }
                PriorityCounts::default()
            }
            Err(error) => {
                self.report(&error);
                let mut unreported = unreported;
                for event in &events {
                    unreported.add(event.priority, 1);
                }
                self.counters.count_dropped(events.len() as u64);
                for receipt in receipts {
                    let _ = receipt.send(RecordOutcome::Dropped);
                }
                unreported
            }
        }
    }

    fn summarize(&self, summary: &DroppedSummary) {
        let of = |priority| summary.counts.of(priority);
        let payload = json!({
            "dropped": summary.counts.total(),
            "low": of(Priority::Low),
            "normal": of(Priority::Normal),
            "high": of(Priority::High),
            "since_ms": summary.since_ms,
        });
        let timestamp_ns = self.env.next_timestamp_ns();
        let event = RecordedEvent {
            id: self.env.id_at(timestamp_ns),
            table: DEFAULT_TABLE.to_owned(),
            event_type: DROPPED_TYPE.to_owned(),
            payload: payload.to_string(),
            timestamp_ns,
            priority: Priority::High,
            extra: Vec::new(),
        };
        if let Err(error) = self.spool.append_summary(summary, &event) {
            self.report(&error);
        }
    }

    fn report(&self, error: &SpoolError) {
        self.problems.log("spool", "events cannot be spooled and are dropped", error);
    }
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Instant;

    use tidewater_events::testing::TestEvent;
    use uuid::Uuid;

    use super::*;

    /// Bytes of each event.
    const SIZE: usize = 1_000;

    fn event() -> RecordedEvent {
        let small = RecordedEvent::new(&TestEvent::new("a"), Uuid::nil(), 0, SIZE).unwrap();
        let payload = "x".repeat(SIZE - small.size() + small.payload.len());
        RecordedEvent { payload, ..small }
    }

    fn intake(queue: &Arc<Queue>, spool: &Arc<Spool>, counters: &Arc<Counters>) -> Intake {
        let env = RecorderEnv::default();
        let problems = Arc::new(ProblemLog::new(Arc::clone(&env.monotonic)));
        let (ended, _) = watch::channel(());
        Intake {
            queue: Arc::clone(queue),
            spool: Arc::clone(spool),
            counters: Arc::clone(counters),
            env,
            problems,
            ended,
        }
    }

    // V4.
    #[tokio::test]
    async fn bytes_in_memory_are_bounded_while_the_disk_hangs() {
        let directory = tempfile::tempdir().unwrap();
        let spool = Arc::new(Spool::open(directory.path(), 1 << 20).unwrap());
        let queue = Arc::new(Queue::new(1_000, 10 * SIZE));
        let counters = Arc::new(Counters::default());
        let intake = intake(&queue, &spool, &counters);
        let push = || queue.push(event()).unwrap();
        let mut receipts = Vec::new();
        let thread = spool.while_hanging(|| {
            receipts.extend((0..10).map(|_| push()));
            let thread = thread::spawn(move || intake.run());
            let begun = Instant::now();
            while queue.len() > 0 {
                assert!(begun.elapsed() < Duration::from_secs(20), "the events were not taken");
                thread::sleep(Duration::from_millis(1));
            }
            // The first ten are being written, and ten more wait.
            receipts.extend((0..100).map(|_| push()));
            assert_eq!(queue.len(), 10);
            thread
        });
        queue.close();
        thread.join().unwrap();
        let mut spooled = 0_u64;
        let mut dropped = 0_u64;
        for receipt in receipts {
            match receipt.await {
                RecordOutcome::Spooled => spooled += 1,
                RecordOutcome::Dropped => dropped += 1,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((spooled, dropped), (20, 90));
        let counts = counters.counts();
        assert_eq!((counts.spooled, counts.dropped), (spooled, dropped));
    }
}
