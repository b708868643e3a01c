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
    /// True when the thread has ended.
    pub(crate) ended: watch::Sender<bool>,
}

impl Drop for Intake {
    fn drop(&mut self) {
        // Also after a panic: events that nothing moves are refused.
        self.queue.close();
        self.ended.send_replace(true);
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
