//! Preparation of an events table: creates it, and adds columns of events.

use std::sync::Arc;
use std::time::Duration;

use tidewater_client::ClientError;
use tidewater_client::catalog::TableInfo;
use tidewater_common::feature_level::FeatureLevel;
use tidewater_events::{ExtraColumn, HandlerError, RecordedEvent};
use tidewater_proto::v1::Reason;
use uuid::Uuid;

use super::{EventTable, failed};
use crate::table_calls::TableCalls;
use crate::{fit, table};

/// Attempts to create or alter a table that other nodes create or alter at the same time.
pub(super) const ATTEMPTS: u32 = 20;

/// Pause between them, in which the catalog receives the changes of the others.
pub(super) const PAUSE: Duration = Duration::from_millis(500);

/// Readings of the cluster's feature level in one call.
pub(super) const LEVEL_ATTEMPTS: u32 = 10;

/// Pause between them.
pub(super) const LEVEL_PAUSE: Duration = Duration::from_secs(2);

impl<C: TableCalls> EventTable<'_, C> {
    /// Returns the table, with the columns of these events, and the events that it can never take for their columns. Creates
    /// and alters the table if necessary; other nodes may do so at the same time.
    pub(super) async fn prepared(
        &self,
        events: &[&RecordedEvent],
    ) -> Result<(Arc<TableInfo>, Vec<(Uuid, String)>), HandlerError> {
        let mut last = None;
        for _ in 0..ATTEMPTS {
            match self.calls.table(self.name).await {
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
        match self.calls.create_table(table::definition(self.name, self.hints)).await {
            Ok(()) => {
                tracing::info!(table = self.name, "events table created");
                Ok(None)
            }
            Err(error) => repeated(error).await,
        }
    }

    /// Waits until the cluster can have events tables. A new cluster raises its level in some seconds.
    async fn wait_for_level(&self) -> Result<(), HandlerError> {
        let needed = FeatureLevel::EVENT_TABLES;
        let mut level = FeatureLevel::FIRST;
        for _ in 0..LEVEL_ATTEMPTS {
            level = self.calls.feature_level().await.map_err(failed)?;
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

    async fn add_columns(
        &self,
        columns: &[ExtraColumn],
    ) -> Result<Option<ClientError>, HandlerError> {
        let new = columns.iter().map(table::new_column).collect();
        match self.calls.add_columns(self.name, new).await {
            Ok(()) => {
                let columns = columns.len();
                tracing::info!(table = self.name, columns, "columns of events added");
                Ok(None)
            }
            Err(error) => repeated(error).await,
        }
    }
}

/// Waits after a change that may succeed, or be needless, in a moment; returns its error.
///
/// # Errors
/// Another failure.
async fn repeated(error: ClientError) -> Result<Option<ClientError>, HandlerError> {
    if !is_transient(&error) {
        return Err(failed(error));
    }
    tokio::time::sleep(PAUSE).await;
    Ok(Some(error))
}

/// Returns whether a change of a table may succeed, or be needless, in a moment.
fn is_transient(error: &ClientError) -> bool {
    // Another node has made the change, or makes one now. An alteration that adds a column again is an invalid argument.
    let reason = error.refusal().map(|refusal| refusal.reason);
    matches!(reason, Some(Reason::TableExists | Reason::TableBusy | Reason::InvalidArgument))
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
