//! Events and recorders for tests.
#![allow(missing_docs, clippy::panic, reason = "for tests")]

use std::any::Any;

use async_trait::async_trait;
use parking_lot::Mutex;
use uuid::Uuid;

use crate::event::{Event, EventError, Priority};
use crate::name::DEFAULT_TABLE;
use crate::receipt::{Receipt, RecordOutcome};
use crate::recorded::RecordedEvent;
use crate::recorder::EventRecorder;
use crate::value::{ExtraColumn, Value};

/// Most bytes of an event, as with the default options of the recorder.
const MAX_EVENT_BYTES: usize = 1 << 20;

/// An event with fields for all of its parts.
#[derive(Debug, Clone, PartialEq)]
pub struct TestEvent {
    pub table: String,
    pub event_type: String,
    pub payload: String,
    pub shared_id: Option<Uuid>,
    pub extra: Vec<(ExtraColumn, Value)>,
    pub priority: Priority,
    pub fails: bool,
}

impl TestEvent {
    pub fn new(event_type: &str) -> Self {
        Self {
            table: DEFAULT_TABLE.to_owned(),
            event_type: event_type.to_owned(),
            payload: String::new(),
            shared_id: None,
            extra: Vec::new(),
            priority: Priority::Normal,
            fails: false,
        }
    }

    /// An event with a number as its payload.
    pub fn numbered(number: usize) -> Self {
        Self { payload: number.to_string(), ..Self::new("numbered") }
    }
}

impl Event for TestEvent {
    fn table_name(&self) -> &str {
        &self.table
    }

    fn event_type(&self) -> &str {
        &self.event_type
    }

    fn shared_id(&self) -> Option<Uuid> {
        self.shared_id
    }

    fn json_payload(&self) -> Result<String, EventError> {
        if self.fails {
            return Err(EventError::Value("it fails".to_owned()));
        }
        Ok(self.payload.clone())
    }

    fn extra_schema(&self) -> Vec<ExtraColumn> {
        self.extra.iter().map(|(column, _)| column.clone()).collect()
    }

    fn extra_row(&self) -> Result<Vec<Value>, EventError> {
        Ok(self.extra.iter().map(|(_, value)| value.clone()).collect())
    }

    fn priority(&self) -> Priority {
        self.priority
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Recorder that keeps its events. The ids and times of events without their own are numbers from 1.
#[derive(Debug, Default)]
pub struct CollectingRecorder {
    events: Mutex<Vec<RecordedEvent>>,
}

impl CollectingRecorder {
    /// Returns the types of the events, in the order of recording.
    pub fn types(&self) -> Vec<String> {
        self.events.lock().iter().map(|event| event.event_type.clone()).collect()
    }

    /// Returns the events, in the order of recording.
    pub fn events(&self) -> Vec<RecordedEvent> {
        self.events.lock().clone()
    }
}

#[async_trait]
impl EventRecorder for CollectingRecorder {
    /// # Panics
    /// The event is invalid: a defect of the code that records it.
    fn record(&self, event: &dyn Event) -> Receipt {
        let mut events = self.events.lock();
        let number = events.len() as u64 + 1;
        let id = Uuid::from_u128(u128::from(number));
        let time_ns = i64::try_from(number).unwrap_or(i64::MAX);
        match RecordedEvent::new(event, id, time_ns, MAX_EVENT_BYTES) {
            Ok(recorded) => events.push(recorded),
            Err(error) => panic!("{event:?}: {error}"),
        }
        Receipt::known(RecordOutcome::Spooled)
    }

    async fn close(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn collected_events_keep_their_order() {
        let recorder = CollectingRecorder::default();
        for name in ["b", "a", "b"] {
            assert_eq!(recorder.record(&TestEvent::new(name)).await, RecordOutcome::Spooled);
        }
        assert_eq!(recorder.types(), ["b", "a", "b"]);
        let times: Vec<_> = recorder.events().iter().map(|event| event.timestamp_ns).collect();
        assert_eq!(times, [1, 2, 3]);
    }
}
