//! One events table: its events as rows, and the calls for them.

mod prepare;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use tidewater_client::ClientError;
use tidewater_client::catalog::TableInfo;
use tidewater_common::ids::ProducerId;
use tidewater_events::{HandlerError, RecordedEvent};
use uuid::Uuid;

use crate::hints::TableHints;
use crate::note::unreadable;
use crate::table::ID;
use crate::table_calls::{NotResumed, TableCalls};
use crate::write::{EventTarget, Resumed, Sent};
use crate::{lookup, rows};

/// An events table of a cluster, which may be missing.
#[derive(Debug)]
pub(crate) struct EventTable<'a, C> {
    calls: &'a C,
    name: &'a str,
    /// Options of the table when it is created.
    hints: TableHints,
}

impl<'a, C: TableCalls> EventTable<'a, C> {
    pub(crate) fn new(calls: &'a C, name: &'a str, hints: TableHints) -> Self {
        Self { calls, name, hints }
    }

    /// Returns the table as it is now.
    async fn current(&self) -> Result<Arc<TableInfo>, HandlerError> {
        self.calls.table(self.name).await.map_err(failed)
    }
}

fn failed(error: ClientError) -> HandlerError {
    HandlerError(error.to_string())
}

#[async_trait]
impl<C: TableCalls> EventTarget for EventTable<'_, C> {
    type Write = C::Write;

    async fn misfits(
        &self,
        events: &[&RecordedEvent],
    ) -> Result<Vec<(Uuid, String)>, HandlerError> {
        let (table, mut misfits) = self.prepared(events).await?;
        let is_misfit = |event: &RecordedEvent| misfits.iter().any(|(id, _)| *id == event.id);
        let fitting: Vec<&RecordedEvent> =
            events.iter().copied().filter(|event| !is_misfit(event)).collect();
        let requests = rows::requests(&fitting)?;
        let batch = rows::record_batch(&table.schema, &requests)?;
        let oversized = rows::oversized(&table.codec, &requests, &batch)?;
        misfits.extend(oversized);
        Ok(misfits)
    }

    async fn open(&self, events: &[&RecordedEvent]) -> Result<(C::Write, Vec<u8>), HandlerError> {
        let table = self.current().await?;
        let batch = rows::record_batch(&table.schema, &rows::requests(events)?)?;
        self.calls.open(table, batch).await.map_err(failed)
    }

    async fn resume(
        &self,
        note: &[u8],
        events: &[&RecordedEvent],
    ) -> Result<Resumed<C::Write>, HandlerError> {
        let (table, misfits) = self.prepared(events).await?;
        if !misfits.is_empty() {
            // Their write may have taken effect: they cannot be set aside any more.
            let events = misfits.len();
            tracing::warn!(table = self.name, events, "events lack values of altered columns");
        }
        let batch = rows::record_batch(&table.schema, &rows::requests(events)?)?;
        match self.calls.resume(table, note, &batch) {
            Ok(write) => Ok(Resumed::Write(write)),
            Err(NotResumed::OtherTable) => Ok(Resumed::TableDropped),
            Err(NotResumed::OtherRows { problem, write }) => {
                tracing::warn!(table = self.name, problem, "a write of events cannot be repeated");
                self.calls.fence(write).await.map_err(failed)?;
                Ok(Resumed::Fenced)
            }
            Err(NotResumed::Damaged(problem)) => Err(unreadable(&problem)),
        }
    }

    async fn send(&self, write: C::Write) -> Result<Sent, HandlerError> {
        self.calls.send(write).await.map_err(failed)
    }

    async fn present(&self, events: &[&RecordedEvent]) -> Result<BTreeSet<Uuid>, HandlerError> {
        if events.is_empty() {
            return Ok(BTreeSet::new());
        }
        let table = self.current().await?;
        let keys = lookup::keys(table.schema.key_arrow(), events)
            .map_err(|error| HandlerError(error.to_string()))?;
        let columns = [ID.to_owned()];
        let found = self.calls.get(self.name, &keys, &columns).await.map_err(failed)?;
        Ok(lookup::ids(&found))
    }

    async fn put_shared(&self, event: &RecordedEvent) -> Result<(), HandlerError> {
        let table = self.current().await?;
        let row = rows::record_batch(&table.schema, &rows::requests(&[event])?)?;
        self.calls.put_as(table, row, ProducerId(event.id)).await.map_err(failed)
    }
}
