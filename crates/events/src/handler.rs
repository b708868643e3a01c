//! Handlers of events, which persist them.

use std::fmt;

use async_trait::async_trait;
use uuid::Uuid;

use crate::handler_options::EventHandlerOptions;
use crate::notes::Notes;
use crate::recorded::RecordedEvent;

/// Persists events.
#[async_trait]
pub trait EventHandler: fmt::Debug + Send + Sync + 'static {
    /// Persists a batch of events of one table, each event once. A batch that fails is passed again, also after a restart of
    /// the process: with the same events if an earlier call has noted anything ([`EventBatch::notes`]), otherwise perhaps
    /// with other ones. Calls for different tables overlap; those for one table do not, but work that a call has
    /// handed to other threads may outlast it.
    ///
    /// # Errors
    /// [`HandlerError`] when the batch is to be passed again. An event that can never be persisted is no error: it is set
    /// aside.
    async fn handle(&self, batch: &EventBatch) -> Result<Handled, HandlerError>;

    /// Options of the table that has the events of a type.
    fn options(&self, _event_type: &str) -> EventHandlerOptions {
        EventHandlerOptions::default()
    }
}

/// Batch of events of one table.
#[derive(Debug, Clone)]
pub struct EventBatch {
    table: String,
    events: Vec<RecordedEvent>,
    notes: Notes,
}

/// Outcome of a batch: all of its events are persisted, or set aside.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Handled {
    /// Events that can never be persisted, with the reasons.
    pub set_aside: Vec<(Uuid, String)>,
}

/// Reason why a batch is to be passed again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct HandlerError(pub String);

impl EventBatch {
    /// Creates a batch.
    pub fn new(table: &str, events: Vec<RecordedEvent>, notes: Notes) -> Self {
        Self { table: table.to_owned(), events, notes }
    }

    /// Table of the events.
    pub fn table(&self) -> &str {
        &self.table
    }

    /// The events, in the order in which they were recorded.
    pub fn events(&self) -> &[RecordedEvent] {
        &self.events
    }

    /// Notes of earlier calls with this batch.
    pub fn notes(&self) -> &Notes {
        &self.notes
    }
}
