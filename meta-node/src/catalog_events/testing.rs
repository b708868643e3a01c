//! Events of a log in tests.

use std::sync::Arc;

use tidewater_cluster_events::types::NodeUp;
use tidewater_cluster_events::{SharedEvent, SharedPosition};
use tidewater_common::ids::{LogIndex, Term};
use tidewater_events::testing::CollectingRecorder;
use tidewater_events::{EventRecorder, RecordedEvent, Value};
use tidewater_proto::v1::{self, meta_command::Kind};

use super::LogEvents;
use crate::catalog::MetaState;
use crate::commands::apply;
use crate::commands::procedures::testing::report;
use crate::commands::testing::command;

/// A time on which the clocks agree.
pub(crate) const NOW_MS: u64 = 1_700_000_000_000;

/// An event with this position.
pub(crate) fn event_at(time_ms: u64, index: u64) -> Arc<SharedEvent> {
    let event =
        NodeUp { node_id: index, node_kind: "data".to_owned(), address: format!("a:{index}") };
    let position = SharedPosition { time_ms, index: LogIndex(index), number: 0 };
    Arc::new(SharedEvent::at(Box::new(event), position))
}

/// The values of events.
pub(crate) fn values(events: &[Arc<SharedEvent>]) -> Vec<RecordedEvent> {
    let recorder = CollectingRecorder::default();
    for event in events {
        drop(recorder.record(&**event));
    }
    recorder.events()
}

/// Value of a column of an event.
pub(crate) fn value(event: &RecordedEvent, column: &str) -> Value {
    let (_, value) = event.extra.iter().find(|(of, _)| of.name == column).unwrap();
    value.clone()
}

/// Text of a column of an event; empty without one.
pub(crate) fn text(event: &RecordedEvent, column: &str) -> String {
    match value(event, column) {
        Value::Text(text) => text,
        Value::Null => String::new(),
        other => panic!("{other:?}"),
    }
}

/// A state with the events of the entries that it applies. The first one has index 1.
#[derive(Debug)]
pub(crate) struct EventLog {
    pub(crate) state: MetaState,
    pub(crate) events: LogEvents,
    /// Term of the next entries.
    pub(crate) term: u64,
    index: u64,
    seen: u64,
}

impl EventLog {
    pub(crate) fn new(state: MetaState) -> Self {
        Self { state, events: LogEvents::default(), term: 1, index: 0, seen: 0 }
    }

    /// A log of which the clocks have agreed.
    pub(crate) fn agreed(state: MetaState) -> Self {
        let mut log = Self::new(state);
        log.apply(Kind::AdvanceTime(v1::AdvanceTime { now_ms: NOW_MS, agreed_ms: NOW_MS }));
        log
    }

    /// Applies a command as a batch of its own.
    pub(crate) fn apply(&mut self, kind: Kind) {
        self.index += 1;
        let term = Term(self.term);
        let (_, effects) = apply(&mut self.state, term, command(kind)).unwrap();
        self.events.follow((term, LogIndex(self.index)), &effects.replaced, &self.state);
        self.events.publish();
    }

    /// Returns the log of a replica that has restarted: it has no events.
    pub(crate) fn restarted(&self) -> Self {
        let state = self.state.clone();
        Self { state, events: LogEvents::default(), seen: 0, ..*self }
    }

    /// Completes the step of the procedure that this request has begun.
    pub(crate) fn complete(&mut self, number: u64) {
        let of_step = report(&self.state, number);
        let completed = v1::AdvanceProcedure { completed: true, requested: true, ..of_step };
        self.apply(Kind::AdvanceProcedure(completed));
    }

    /// Returns the events since the last call.
    pub(crate) fn take(&mut self) -> Vec<RecordedEvent> {
        let run = self.events.recent().events_from(self.seen, usize::MAX);
        self.seen = run.end();
        values(&run.events)
    }
}
