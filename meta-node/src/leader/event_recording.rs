//! Recording of the shared events of the log while this node leads.
//!
//! A new leader begins with the events that are due: the leader before it may have stopped before its spool had them. The
//! table of events has each once.

use std::sync::Arc;
use std::time::Duration;

use tidewater_cluster_events::SharedEvent;
use tidewater_events::{EventRecorderRef, Receipt, RecordOutcome};

use tokio::time::sleep;

use super::leader_term::LeaderTerm;
use crate::catalog_events::{DUE_MS, RecentEvents};

/// Events that are passed to the recorder before their receipts are awaited.
const BATCH: usize = 64;

/// Pause before events are recorded again that the recorder has dropped.
const DROPPED_PAUSE: Duration = Duration::from_secs(10);

/// Attempts to record an event: until it is not due any more.
const DROPPED_ATTEMPTS: u64 = DUE_MS / 10_000;

/// Recorder of this node, and the shared events of its replica.
#[derive(Debug, Clone)]
pub(crate) struct LeaderEvents {
    pub(crate) recorder: EventRecorderRef,
    pub(crate) recent: Arc<RecentEvents>,
}

impl LeaderTerm {
    /// Records the shared events that are due, then new ones, until the recorder is closed.
    pub(super) async fn record_shared_events(self: Arc<Self>) {
        let mut added = self.events.recent.subscribe();
        let now_ms = self.group.view.read().header().time_ms;
        let mut next = self.events.recent.first_due(now_ms);
        loop {
            added.mark_unchanged();
            match record_from(&self.events, next).await {
                Some(end) => next = end,
                None => return,
            }
            if added.changed().await.is_err() {
                return;
            }
        }
    }
}

/// Records the events from a number on, and returns the number after the last one; `None`: the recorder is closed.
async fn record_from(events: &LeaderEvents, mut next: u64) -> Option<u64> {
    loop {
        let run = events.recent.events_from(next, BATCH);
        let missed = run.first.saturating_sub(next);
        if missed > 0 {
            tracing::warn!(
                missed,
                "events of the catalog are not recorded: the recorder is behind"
            );
        }
        next = run.end();
        if run.events.is_empty() {
            return Some(next);
        }
        record_run(&events.recorder, run.events).await?;
        events.recent.mark_recorded(next);
    }
}

/// Records events, and again those that the recorder drops, e.g. since its disk is full, until they are not due any more.
/// `None`: the recorder is closed.
async fn record_run(recorder: &EventRecorderRef, events: Vec<Arc<SharedEvent>>) -> Option<()> {
    let mut pending = events;
    for _ in 0..DROPPED_ATTEMPTS {
        let receipts: Vec<Receipt> =
            pending.iter().map(|event| recorder.record(&**event)).collect();
        let mut dropped = Vec::new();
        for (event, receipt) in pending.into_iter().zip(receipts) {
            match receipt.await {
                RecordOutcome::Closed => return None,
                RecordOutcome::Dropped => dropped.push(event),
                RecordOutcome::Spooled | RecordOutcome::Filtered => {}
            }
        }
        if dropped.is_empty() {
            return Some(());
        }
        pending = dropped;
        sleep(DROPPED_PAUSE).await;
    }
    tracing::warn!(
        events = pending.len(),
        "events of the catalog are not recorded: the recorder drops them"
    );
    Some(())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tidewater_events::testing::CollectingRecorder;
    use tidewater_events::{Event, EventRecorder, RecordedEvent};
    use tidewater_proto::v1::{self, NodeState, meta_command::Kind};

    use super::*;
    use crate::catalog_events::testing::{EventLog, NOW_MS, event_at};
    use crate::commands::testing::{registration, with_nodes};

    fn leader(recent: Arc<RecentEvents>) -> (LeaderEvents, Arc<CollectingRecorder>) {
        let recorder = Arc::new(CollectingRecorder::default());
        (LeaderEvents { recorder: Arc::clone(&recorder) as EventRecorderRef, recent }, recorder)
    }

    /// A replica that has applied a registration and a failure.
    fn replica() -> EventLog {
        let mut log = EventLog::agreed(with_nodes(1));
        log.apply(Kind::RegisterNode(registration(2)));
        let down = v1::SetNodeState { node_id: 102, state: NodeState::Down.into() };
        log.apply(Kind::SetNodeState(down));
        log
    }

    /// Records the due events of a replica, as its node does at the begin of a term.
    async fn begin_term(events: &LeaderEvents, now_ms: u64) {
        let first = events.recent.first_due(now_ms);
        record_from(events, first).await.unwrap();
    }

    #[tokio::test]
    async fn new_leader_records_due_events_with_equal_ids() {
        let mut recorded: Vec<Vec<RecordedEvent>> = Vec::new();
        for _ in 0..2 {
            let (events, recorder) = leader(replica().events.recent());
            begin_term(&events, NOW_MS + 600_000).await;
            recorded.push(recorder.events());
        }
        assert_eq!(recorded[0].len(), 2);
        assert_eq!(recorded[0], recorded[1]);
    }

    #[tokio::test]
    async fn old_events_are_not_recorded_again() {
        let (events, recorder) = leader(replica().events.recent());
        begin_term(&events, NOW_MS + 600_001).await;
        assert_eq!(recorder.events(), []);
    }

    #[tokio::test]
    async fn node_records_an_event_in_one_of_its_terms() {
        let mut log = replica();
        let (events, recorder) = leader(log.events.recent());
        begin_term(&events, NOW_MS).await;
        log.apply(Kind::RegisterNode(registration(3)));
        begin_term(&events, NOW_MS).await;
        assert_eq!(recorder.types(), ["node_up", "node_down", "node_up"]);
    }

    #[tokio::test]
    async fn leader_records_more_events_than_a_batch() {
        let recent = Arc::new(RecentEvents::default());
        let count = 3 * BATCH as u64 + 1;
        recent.add((0..count).map(|index| event_at(NOW_MS, index)).collect());
        let (events, recorder) = leader(recent);
        assert_eq!(record_from(&events, 0).await, Some(count));
        assert_eq!(recorder.events().len() as u64, count);
    }

    /// Recorder whose disk is full for some calls.
    #[derive(Debug)]
    struct FullRecorder {
        recorder: CollectingRecorder,
        /// Calls that are dropped.
        left: AtomicUsize,
    }

    #[tonic::async_trait]
    impl EventRecorder for FullRecorder {
        fn record(&self, event: &dyn Event) -> Receipt {
            let decrement = |left: usize| left.checked_sub(1);
            match self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, decrement) {
                Ok(_) => Receipt::known(RecordOutcome::Dropped),
                Err(_) => self.recorder.record(event),
            }
        }

        async fn close(&self) {}
    }

    #[tokio::test(start_paused = true)]
    async fn dropped_events_are_recorded_again() {
        let full = |left| {
            let left = AtomicUsize::new(left);
            Arc::new(FullRecorder { recorder: CollectingRecorder::default(), left })
        };
        let run = || (0..2).map(|index| event_at(NOW_MS, index)).collect::<Vec<_>>();
        for (left, expected) in [(0, 2), (1, 2), (5, 2), (1_000, 0)] {
            let recorder = full(left);
            let shared: EventRecorderRef = Arc::clone(&recorder) as EventRecorderRef;
            assert_eq!(record_run(&shared, run()).await, Some(()));
            assert_eq!(recorder.recorder.events().len(), expected, "{left}");
        }
    }
}
