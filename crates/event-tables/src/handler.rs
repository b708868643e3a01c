//! The handler.

use async_trait::async_trait;
use tidewater_client::Client;
use tidewater_events::{EventBatch, EventHandler, EventHandlerOptions, Handled, HandlerError};

use crate::event_table::EventTable;
use crate::hints::TableHints;
use crate::table_calls::ClientCalls;
use crate::write::write_batch;

/// Writes events to tables of a cluster, each once.
#[derive(Debug)]
pub struct TableEventHandler {
    calls: ClientCalls,
    options: EventHandlerOptions,
}

impl TableEventHandler {
    /// Creates a handler. `client`: its deadline must be shorter than the time that the recorder gives a call; `options`:
    /// those of the tables that the handler makes.
    pub fn new(client: Client, options: EventHandlerOptions) -> Self {
        Self { calls: ClientCalls::new(client), options }
    }
}

#[async_trait]
impl EventHandler for TableEventHandler {
    async fn handle(&self, batch: &EventBatch) -> Result<Handled, HandlerError> {
        let Some(first) = batch.events().first() else { return Ok(Handled::default()) };
        let hints = self.options(&first.event_type).to_hints();
        let hints =
            TableHints::from_map(&hints).map_err(|error| HandlerError(error.to_string()))?;
        let table = EventTable::new(&self.calls, batch.table(), hints);
        write_batch(&table, batch).await
    }

    fn options(&self, _event_type: &str) -> EventHandlerOptions {
        self.options.clone()
    }
}
