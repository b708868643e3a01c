//! Event of the tests of this crate and of the recorder.
#![allow(missing_docs, reason = "for tests")]

use std::any::Any;

use crate::event::{Event, EventError, Priority};
use crate::name::DEFAULT_TABLE;
use crate::value::{ExtraColumn, Value};

/// An event with fields for all of its parts.
#[derive(Debug, Clone, PartialEq)]
pub struct TestEvent {
    pub table: String,
    pub event_type: String,
    pub payload: String,
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
