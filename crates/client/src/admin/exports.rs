//! Calls that prepare, create, list and drop exports: a table as of an epoch, then its changes, as Parquet objects below a
//! prefix.

use std::time::Duration;

use tidewater_common::ids::Epoch;
use tidewater_common::quote::quoted;
use tidewater_proto::v1::{self, Reason};
use uuid::Uuid;

use super::storage_call::CHANGE_TIMEOUT;
use super::storage_pages::{ListPage, PAGE, all_entries, entry_named};
use super::tables::milliseconds;
use crate::client::Client;
use crate::core::Repeat;
use crate::error::ClientError;

/// Timeout of an attempt to create an export. The first hold or export of a table alters it before a data node claims the prefix.
const CREATE_TIMEOUT: Duration = Duration::from_secs(60);

/// Parameters of a new export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportDefinition {
    /// Name, unique in the cluster; 1 to 100 characters.
    pub name: String,
    /// Name of the table.
    pub table: String,
    /// JSON object with the `url` of the prefix and the way to reach it, without passwords and keys.
    pub target: String,
    /// Epoch of the contents that are exported first; `None`: that of the [`token`](Self::token), or without a token the last
    /// epoch that has begun.
    pub epoch: Option<Epoch>,
    /// Token of [`Client::prepare_export`] for the same table, at or below the epoch.
    pub token: Option<String>,
    /// Time between the begins of two steps, [`MIN_INTERVAL`](Self::MIN_INTERVAL) to [`MAX_INTERVAL`](Self::MAX_INTERVAL);
    /// zero: 10 s.
    pub interval: Duration,
}

impl ExportDefinition {
    /// Shortest time between the begins of two steps: 1 s.
    pub const MIN_INTERVAL: Duration = Duration::from_secs(1);
    /// Longest time between the begins of two steps: 1 day.
    pub const MAX_INTERVAL: Duration = Duration::from_secs(24 * 3_600);

    fn request(self, id: Uuid) -> v1::CreateExportRequest {
        v1::CreateExportRequest {
            request_id: id.to_string(),
            name: self.name,
            table: self.table,
            target: self.target,
            epoch: self.epoch.map_or(0, Epoch::get),
            token: self.token.unwrap_or_default(),
            interval_ms: milliseconds(self.interval),
        }
    }
}

impl Client {
    /// Holds a table at an epoch for an export that is created later, and returns the hold, whose name is the token. The token
    /// expires with its lease unless [`renew_read_holds`](Self::renew_read_holds) renews it.
    ///
    /// `epoch`: `None`: the earliest one that can be read. `lease`: length like that of other holds; zero: a minute. `holder`: text
    /// for people, at most 256 bytes. A lost response is harmless, because retries carry the same request id.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `TableNotFound`, `TableBusy`, `EpochBelowSince`, `InvalidArgument` and
    /// others; [`ClientError::OutcomeUnknown`] when the table may still be held.
    pub async fn prepare_export(
        &self,
        table: &str,
        epoch: Option<Epoch>,
        lease: Duration,
        holder: &str,
    ) -> Result<v1::ReadHold, ClientError> {
        let what = format!("preparing an export of table {}", quoted(table));
        let request = v1::PrepareExportRequest {
            request_id: self.options().ids.next().to_string(),
            table: table.to_owned(),
            epoch: epoch.map_or(0, Epoch::get),
            lease_ms: milliseconds(lease),
            holder: holder.to_owned(),
        };
        let response = self
            .core
            .storage(
                &what,
                Repeat::Idempotent,
                CHANGE_TIMEOUT,
                request,
                |mut client, request| async move { client.prepare_export(request).await },
            )
            .await?;
        Ok(response.hold.unwrap_or_default())
    }

    /// Releases the hold of a token. An unknown, used or expired token has no effect.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `InvalidArgument` (no token) and others; [`ClientError::OutcomeUnknown`] when the hold may
    /// still be released.
    pub async fn cancel_prepare_export(&self, token: &str) -> Result<(), ClientError> {
        let what = format!("cancelling token {}", quoted(token));
        let request = v1::CancelPrepareExportRequest { token: token.to_owned() };
        let longest = self.options().attempt_timeout;
        self.core
            .storage(
                &what,
                Repeat::Idempotent,
                longest,
                request,
                |mut client, request| async move { client.cancel_prepare_export(request).await },
            )
            .await?;
        Ok(())
    }

    /// Creates an export, and returns it before its first step is complete. It uses up its token. A lost response is harmless,
    /// because retries carry the same request id.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `TableNotFound`, `TableBusy`, `EpochBelowSince`, `ExportExists`,
    /// `ExportTokenExpired`, `ExportPrefixInUse`, `ExportTargetUnavailable`, `InvalidArgument` and others;
    /// [`ClientError::OutcomeUnknown`] when it may still be created.
    pub async fn create_export(&self, export: ExportDefinition) -> Result<v1::Export, ClientError> {
        let what = format!("creating export {}", quoted(&export.name));
        let request = export.request(self.options().ids.next());
        let response = self
            .core
            .storage(
                &what,
                Repeat::Idempotent,
                CREATE_TIMEOUT,
                request,
                |mut client, request| async move { client.create_export(request).await },
            )
            .await?;
        Ok(response.export.unwrap_or_default())
    }

    /// Returns all exports with their progress, by name.
    ///
    /// # Errors
    /// The meta service cannot be reached or has no leader.
    pub async fn exports(&self) -> Result<Vec<v1::ListedExport>, ClientError> {
        all_entries(|after| self.page_of_exports(after)).await
    }

    /// Returns the export with this name and its progress; `None`: there is none.
    ///
    /// # Errors
    /// The meta service cannot be reached or has no leader.
    pub async fn export(&self, name: &str) -> Result<Option<v1::ListedExport>, ClientError> {
        entry_named(name, |after| self.page_of_exports(after)).await
    }

    async fn page_of_exports(
        &self,
        after: String,
    ) -> Result<ListPage<v1::ListedExport>, ClientError> {
        let request = v1::ListExportsRequest { after, limit: PAGE };
        let longest = self.options().attempt_timeout;
        let page = self
            .core
            .storage("exports", Repeat::Read, longest, request, |mut client, request| async move {
                client.list_exports(request).await
            })
            .await?;
        Ok(ListPage { entries: page.exports, more: page.more })
    }

    /// Ends an export and releases its hold. Its objects stay. A lost response is harmless: if no export has the name after
    /// it, the export is dropped.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `ExportNotFound` and others; [`ClientError::OutcomeUnknown`] when it may still be dropped.
    pub async fn drop_export(&self, name: &str) -> Result<(), ClientError> {
        let what = format!("dropping export {}", quoted(name));
        let request = v1::DropExportRequest { name: name.to_owned() };
        let longest = self.options().attempt_timeout;
        let dropped = self
            .core
            .storage(
                &what,
                Repeat::Idempotent,
                longest,
                request,
                |mut client, request| async move { client.drop_export(request).await },
            )
            .await;
        match dropped {
            Ok(_) => Ok(()),
            // An earlier attempt has dropped it.
            Err(ClientError::OutcomeUnknown { cause, .. })
                if cause.reason == Reason::ExportNotFound =>
            {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests;
