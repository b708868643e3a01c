//! One events table: calls of the client for it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tidewater_client::admin::{AlterTable, ColumnChange};
use tidewater_client::catalog::TableInfo;
use tidewater_client::{Client, ClientError, OnceOutcome, OnceWrite, OnceWriter, ResumeError};
use tidewater_common::feature_level::FeatureLevel;
use tidewater_common::ids::ProducerId;
use tidewater_events::{ExtraColumn, HandlerError, RecordedEvent};
use tidewater_proto::v1::Reason;
use uuid::Uuid;

use crate::hints::TableHints;
use crate::table::ID;
use crate::write::{EventTarget, Sent};
use crate::{fit, lookup, rows, table};

/// Attempts to create or alter a table that other nodes create or alter at the same time.
const ATTEMPTS: u32 = 20;

/// Pause between them, in which the catalog receives the changes of the others.
const PAUSE: Duration = Duration::from_millis(500);

/// Readings of the cluster's feature level in one call.
const LEVEL_ATTEMPTS: u32 = 10;

/// Pause between them.
const LEVEL_PAUSE: Duration = Duration::from_secs(2);

/// An events table of a cluster, which may be missing.
#[derive(Debug)]
pub(crate) struct EventTable<'a> {
    client: &'a Client,
    once: &'a OnceWriter,
    name: &'a str,
    /// Options of the table when it is created.
    hints: TableHints,
}

impl<'a> EventTable<'a> {
    pub(crate) fn new(
        client: &'a Client,
        once: &'a OnceWriter,
        name: &'a str,
        hints: TableHints,
    ) -> Self {
        Self { client, once, name, hints }
    }

    /// Returns the table as it is now.
    async fn current(&self) -> Result<Arc<TableInfo>, HandlerError> {
        self.client.table(self.name).await.map_err(failed)
    }

    /// Returns the table, with the columns of these events, and the events that it can never take for their columns. Creates
    /// and alters the table if necessary; other nodes may do so at the same time.
    async fn prepared(
        &self,
        events: &[&RecordedEvent],
    ) -> Result<(Arc<TableInfo>, Vec<(Uuid, String)>), HandlerError> {
        let mut last = None;
        for _ in 0..ATTEMPTS {
            match self.client.table(self.name).await {
                Ok(found) => {
                    table::check(self.name, &found.schema, &found.options)
                        .map_err(|error| HandlerError(error.to_string()))?;
                    let fit = fit::fit(&found.schema, events);
                    if fit.missing.is_empty() {
                        return Ok((found, fit.misfits));
                    }
                    last = self.add_columns(&fit.missing).await?;
                }
                Err(ClientError::TableNotFound(_)) => last = self.create().await?,
                Err(error) => return Err(failed(error)),
            }
        }
        let last = last.map(|error| format!(": {error}")).unwrap_or_default();
        Err(HandlerError(format!("table {} was not prepared in time{last}", self.name)))
    }

    /// Creates the table, once the cluster has the feature level of its options: below it, a meta leader of an earlier
    /// release would drop them, and create a table that cannot hold events.
    async fn create(&self) -> Result<Option<ClientError>, HandlerError> {
        self.wait_for_level().await?;
        match self.client.create_table(table::definition(self.name, self.hints)).await {
            Ok(_) => {
                tracing::info!(table = self.name, "events table created");
                Ok(None)
            }
            Err(error) => self.repeated(error).await,
        }
    }

    /// Waits until the cluster can have events tables. A new cluster raises its level in some seconds.
    async fn wait_for_level(&self) -> Result<(), HandlerError> {
        let needed = FeatureLevel::EVENT_TABLES;
        let mut level = FeatureLevel::FIRST;
        for _ in 0..LEVEL_ATTEMPTS {
            let status = self.client.cluster_status().await.map_err(failed)?;
            level = FeatureLevel::new(status.feature_level);
            if level >= needed {
                return Ok(());
            }
            tokio::time::sleep(LEVEL_PAUSE).await;
        }
        Err(HandlerError(format!(
            "table {} needs feature level {needed}, and the cluster is at level {level}: `tidewater cluster \
             status` shows the nodes that hold back the next level",
            self.name
        )))
    }

    /// Waits after a change that may succeed, or be needless, in a moment; returns its error.
    ///
    /// # Errors
    /// Another failure.
    async fn repeated(&self, error: ClientError) -> Result<Option<ClientError>, HandlerError> {
        if !is_transient(&error) {
            return Err(failed(error));
        }
        tokio::time::sleep(PAUSE).await;
        Ok(Some(error))
    }

    async fn add_columns(
        &self,
        columns: &[ExtraColumn],
    ) -> Result<Option<ClientError>, HandlerError> {
        let changes = columns.iter().map(|column| ColumnChange::Add(table::new_column(column)));
        let change =
            AlterTable { columns: changes.collect(), by_node: true, ..AlterTable::default() };
        match self.client.alter_table(self.name, change).await {
            Ok(_) => {
                let columns = columns.len();
                tracing::info!(table = self.name, columns, "columns of events added");
                Ok(None)
            }
            Err(error) => self.repeated(error).await,
        }
    }
}

/// Returns whether a change of a table may succeed, or be needless, in a moment.
fn is_transient(error: &ClientError) -> bool {
    // Another node has made the change, or makes one now. An alteration that adds a column again is an invalid argument.
    let reason = error.refusal().map(|refusal| refusal.reason);
    matches!(reason, Some(Reason::TableExists | Reason::TableBusy | Reason::InvalidArgument))
}

fn failed(error: ClientError) -> HandlerError {
    HandlerError(error.to_string())
}

#[async_trait]
impl EventTarget for EventTable<'_> {
    type Write = OnceWrite;

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

    async fn open(&self, events: &[&RecordedEvent]) -> Result<(OnceWrite, Vec<u8>), HandlerError> {
        let table = self.current().await?;
        let batch = rows::record_batch(&table.schema, &rows::requests(events)?)?;
        let write = self.once.open(table, batch).await.map_err(failed)?;
        let note = write.note();
        Ok((write, note))
    }

    async fn resume(
        &self,
        note: &[u8],
        events: &[&RecordedEvent],
    ) -> Result<Option<OnceWrite>, HandlerError> {
        let (table, misfits) = self.prepared(events).await?;
        if !misfits.is_empty() {
            // Their write may have taken effect: they cannot be set aside any more.
            let events = misfits.len();
            tracing::warn!(table = self.name, events, "events lack values of altered columns");
        }
        let batch = rows::record_batch(&table.schema, &rows::requests(events)?)?;
        match self.once.resume(table, note, &batch) {
            Ok(write) => Ok(Some(write)),
            Err(ResumeError::OtherTable { .. }) => Ok(None),
            Err(error) => Err(HandlerError(error.to_string())),
        }
    }

    async fn send(&self, write: OnceWrite) -> Result<Sent, HandlerError> {
        match self.once.send(write).await.map_err(failed)? {
            OnceOutcome::Written(_) => Ok(Sent::Written),
            OnceOutcome::Forgotten(forgotten) => {
                // A late attempt must not take effect after the look-up.
                self.once.fence(&forgotten).await.map_err(failed)?;
                Ok(Sent::Forgotten)
            }
        }
    }

    async fn present(&self, events: &[&RecordedEvent]) -> Result<BTreeSet<Uuid>, HandlerError> {
        let table = self.current().await?;
        let keys = lookup::keys(table.schema.key_arrow(), events)
            .map_err(|error| HandlerError(error.to_string()))?;
        let columns = [ID.to_owned()];
        let found = self.client.get(self.name, &keys, Some(&columns)).await.map_err(failed)?;
        Ok(lookup::ids(&found))
    }

    async fn put_shared(&self, event: &RecordedEvent) -> Result<(), HandlerError> {
        let table = self.current().await?;
        let row = rows::record_batch(&table.schema, &rows::requests(&[event])?)?;
        self.client.put_as(table, row, ProducerId(event.id)).await.map_err(failed)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tidewater_common::refusal::Refusal;

    use super::*;

    #[test]
    fn changes_that_may_succeed_soon_are_repeated() {
        let refused = |reason| ClientError::Refused {
            what: "altering table \"events\"".to_owned(),
            refusal: Box::new(Refusal::new(reason, "injected")),
        };
        for (reason, expected) in [
            (Reason::TableExists, true),
            (Reason::TableBusy, true),
            (Reason::InvalidArgument, true),
            (Reason::NoDataNodes, false),
            (Reason::Unsupported, false),
        ] {
            assert_eq!(is_transient(&refused(reason)), expected, "{reason:?}");
        }
        assert!(!is_transient(&ClientError::TableNotFound("events".to_owned())));
    }
}
