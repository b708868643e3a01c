//! Calls that begin, describe, cancel and alter refreshes.

use tidewater_common::ids::{Generation, GroupId};
use tidewater_common::quote::quoted;
use tidewater_proto::v1::{self, RefreshTrigger};
use tidewater_rpc::timed;

use crate::client::Client;
use crate::core::Repeat;
use crate::error::ClientError;

impl Client {
    /// Begins a refresh of a table, and returns its generation. A lost response is harmless. `force`: publish also if the
    /// source is empty or has shrunk.
    ///
    /// # Errors
    /// [`ClientError::TableNotFound`]; [`ClientError::Refused`] with `NotRefreshable`, `AlreadyRefreshing`, `TableBusy` and
    /// others.
    pub async fn start_refresh(&self, table: &str, force: bool) -> Result<Generation, ClientError> {
        let info = self.table(table).await?;
        let request = v1::RefreshRequest {
            request_id: self.options().ids.next().to_string(),
            table_id: info.id.get(),
            associated_source_id: 0,
            trigger: RefreshTrigger::Manual.into(),
            force,
        };
        let what = format!("refreshing table {}", quoted(table));
        let router = &self.core.router;
        let longest = self.options().attempt_timeout;
        let response = self
            .core
            .call(GroupId::META, &what, Repeat::Idempotent, longest, |channel, timeout| {
                let mut client = router.refreshes(channel);
                let request = request.clone();
                async move { client.start_refresh(timed(request, timeout)).await }
            })
            .await?;
        Ok(Generation(response.generation))
    }

    /// Returns the refreshes of a table, or of all tables, by name. `with_progress`: with the progress of merges, which the
    /// data nodes report.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `TableNotFound`, `NotRefreshable` and others.
    pub async fn refreshes(
        &self,
        table: Option<&str>,
        with_progress: bool,
    ) -> Result<Vec<v1::RefreshInfo>, ClientError> {
        let table = table.unwrap_or_default().to_owned();
        let request = v1::GetRefreshesRequest { table, with_progress };
        let router = &self.core.router;
        let longest = self.options().attempt_timeout;
        let response = self
            .core
            .call(GroupId::META, "refreshes", Repeat::Read, longest, |channel, timeout| {
                let mut client = router.refreshes(channel);
                let request = request.clone();
                async move { client.get_refreshes(timed(request, timeout)).await }
            })
            .await?;
        Ok(response.refreshes)
    }

    /// Cancels the refresh of a table that is in progress, and returns its generation; `None`: none is.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `TableNotFound`, `NotRefreshable`, `ProcedureNotAbandonable` and others.
    pub async fn cancel_refresh(&self, table: &str) -> Result<Option<Generation>, ClientError> {
        let what = format!("cancelling the refresh of table {}", quoted(table));
        let request = v1::CancelRefreshRequest { table: table.to_owned(), generation: 0 };
        let router = &self.core.router;
        let longest = self.options().attempt_timeout;
        let response = self
            .core
            .call(GroupId::META, &what, Repeat::Idempotent, longest, |channel, timeout| {
                let mut client = router.refreshes(channel);
                let request = request.clone();
                async move { client.cancel_refresh(timed(request, timeout)).await }
            })
            .await?;
        Ok(Some(Generation(response.generation)).filter(|generation| generation.get() > 0))
    }

    /// Pauses or resumes the refreshes of a table, or changes their settings. `None`: unchanged.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `TableNotFound`, `NotRefreshable`, `InvalidArgument` and others.
    pub async fn alter_refresh(
        &self,
        table: &str,
        paused: Option<bool>,
        settings: Option<v1::RefreshSettings>,
    ) -> Result<(), ClientError> {
        let what = format!("altering the refreshes of table {}", quoted(table));
        let request = v1::AlterRefreshRequest { table: table.to_owned(), paused, settings };
        let router = &self.core.router;
        let longest = self.options().attempt_timeout;
        self.core
            .call(GroupId::META, &what, Repeat::Idempotent, longest, |channel, timeout| {
                let mut client = router.refreshes(channel);
                let request = request.clone();
                async move { client.alter_refresh(timed(request, timeout)).await }
            })
            .await?;
        Ok(())
    }
}
