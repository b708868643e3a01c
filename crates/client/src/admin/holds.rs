//! Calls that acquire, list, renew, downgrade and release read holds, and a guard that renews its hold.
//!
//! - [`LiveHold`] (`live`): hold that a program keeps while it reads.
//! - `renewal`: when a lease is renewed, and when it is lost.

mod live;
mod renewal;

use std::time::Duration;

use tidewater_common::ids::Epoch;
use tidewater_common::quote::quoted;
use tidewater_proto::v1;
use uuid::Uuid;

pub use self::live::LiveHold;
pub use self::renewal::HoldLoss;
use super::storage_call::CHANGE_TIMEOUT;
use super::storage_pages::{ListPage, PAGE, all_entries, entry_named};
use super::tables::milliseconds;
use crate::client::Client;
use crate::core::Repeat;
use crate::error::ClientError;

/// Maximum number of names of one call.
const MAX_NAMES: usize = 1_000;

/// Parameters of a new read hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcquireHold {
    /// Name, unique in the cluster; 1 to 128 characters.
    pub name: String,
    /// Text about the holder, for people; at most 256 bytes.
    pub holder: String,
    /// Names of the tables, each once; empty with [`like`](Self::like).
    pub tables: Vec<String>,
    /// Epoch to hold; `None`: the earliest one that all tables can be read at, or that of [`like`](Self::like).
    pub epoch: Option<Epoch>,
    /// Length of the lease from each renewal, [`MIN_LEASE`](Self::MIN_LEASE) to [`MAX_LEASE`](Self::MAX_LEASE); zero: a
    /// minute.
    pub lease: Duration,
    /// Name of another hold, whose tables are held.
    pub like: Option<String>,
}

impl AcquireHold {
    /// Shortest lease that the cluster grants: 10 s.
    pub const MIN_LEASE: Duration = Duration::from_secs(10);
    /// Longest lease that the cluster grants: 30 days.
    pub const MAX_LEASE: Duration = Duration::from_secs(30 * 24 * 3_600);

    fn request(self, id: Uuid) -> v1::AcquireReadHoldRequest {
        v1::AcquireReadHoldRequest {
            request_id: id.to_string(),
            name: self.name,
            holder: self.holder,
            tables: self.tables,
            epoch: self.epoch.map_or(0, Epoch::get),
            lease_ms: milliseconds(self.lease),
            like: self.like.unwrap_or_default(),
        }
    }
}

impl Client {
    /// Acquires a hold: its tables remain readable as of its epoch and later ones until the hold is downgraded or released, or
    /// its lease expires. A lost response is harmless, because retries carry the same request id. [`hold`](Self::hold) renews
    /// its hold by itself.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `TableNotFound`, `TableBusy`, `EpochBelowSince`, `HoldExists`,
    /// `HoldNotFound` (of `like`), `InvalidArgument` and others; [`ClientError::OutcomeUnknown`] when it may still be acquired.
    pub async fn acquire_read_hold(&self, hold: AcquireHold) -> Result<v1::ReadHold, ClientError> {
        let what = format!("acquiring hold {}", quoted(&hold.name));
        let request = hold.request(self.options().ids.next());
        let response = self
            .core
            .storage(
                &what,
                Repeat::Idempotent,
                CHANGE_TIMEOUT,
                request,
                |mut client, request| async move { client.acquire_read_hold(request).await },
            )
            .await?;
        Ok(response.hold.unwrap_or_default())
    }

    /// Returns the holds of a table, or all holds, by name.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `TableNotFound` and others.
    pub async fn read_holds(
        &self,
        table: Option<&str>,
    ) -> Result<Vec<v1::ListedHold>, ClientError> {
        all_entries(|after| self.page_of_holds(table, after)).await
    }

    /// Returns the hold with this name; `None`: there is none.
    ///
    /// # Errors
    /// The meta service cannot be reached or has no leader.
    pub async fn read_hold(&self, name: &str) -> Result<Option<v1::ListedHold>, ClientError> {
        entry_named(name, |after| self.page_of_holds(None, after)).await
    }

    async fn page_of_holds(
        &self,
        table: Option<&str>,
        after: String,
    ) -> Result<ListPage<v1::ListedHold>, ClientError> {
        let table = table.unwrap_or_default().to_owned();
        let request = v1::ListReadHoldsRequest { table, after, limit: PAGE };
        let longest = self.options().attempt_timeout;
        let page = self
            .core
            .storage(
                "read holds",
                Repeat::Read,
                longest,
                request,
                |mut client, request| async move { client.list_read_holds(request).await },
            )
            .await?;
        Ok(ListPage { entries: page.holds, more: page.more })
    }

    /// Extends the leases of holds. Returns the names that are no holds, because they were released or their leases have
    /// expired.
    ///
    /// # Errors
    /// The meta service cannot be reached or has no leader; [`ClientError::OutcomeUnknown`] when leases may still be extended.
    pub async fn renew_read_holds(&self, names: &[String]) -> Result<Vec<String>, ClientError> {
        let longest = self.options().attempt_timeout;
        let mut missing = Vec::new();
        for names in names.chunks(MAX_NAMES) {
            missing.extend(self.renew_within(names.to_vec(), longest).await?);
        }
        Ok(missing)
    }

    /// Extends the leases of at most [`MAX_NAMES`] holds. `longest`: timeout of an attempt.
    async fn renew_within(
        &self,
        names: Vec<String>,
        longest: Duration,
    ) -> Result<Vec<String>, ClientError> {
        let request = v1::RenewReadHoldsRequest { names };
        let response = self
            .core
            .storage(
                "renewing holds",
                Repeat::Idempotent,
                longest,
                request,
                |mut client, request| async move { client.renew_read_holds(request).await },
            )
            .await?;
        Ok(response.missing)
    }

    /// Moves a hold to a later epoch. A lost response is harmless.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `HoldNotFound`, `InvalidArgument` (an earlier epoch) and others;
    /// [`ClientError::OutcomeUnknown`] when it may still be moved.
    pub async fn downgrade_read_hold(
        &self,
        name: &str,
        epoch: Epoch,
    ) -> Result<v1::ReadHold, ClientError> {
        let what = format!("downgrading hold {}", quoted(name));
        let request = v1::DowngradeReadHoldRequest { name: name.to_owned(), epoch: epoch.get() };
        let longest = self.options().attempt_timeout;
        let response = self
            .core
            .storage(
                &what,
                Repeat::Idempotent,
                longest,
                request,
                |mut client, request| async move { client.downgrade_read_hold(request).await },
            )
            .await?;
        Ok(response.hold.unwrap_or_default())
    }

    /// Releases holds; unknown names have no effect. Returns the number of holds that the calls have released, which is lower
    /// after a lost response.
    ///
    /// # Errors
    /// The meta service cannot be reached or has no leader; [`ClientError::OutcomeUnknown`] when holds may still be released.
    pub async fn release_read_holds(&self, names: &[String]) -> Result<u32, ClientError> {
        let longest = self.options().attempt_timeout;
        let mut released: u32 = 0;
        for names in names.chunks(MAX_NAMES) {
            let request = v1::ReleaseReadHoldsRequest { names: names.to_vec() };
            let response = self
                .core
                .storage(
                    "releasing holds",
                    Repeat::Idempotent,
                    longest,
                    request,
                    |mut client, request| async move { client.release_read_holds(request).await },
                )
                .await?;
            released = released.saturating_add(response.released);
        }
        Ok(released)
    }
}

#[cfg(test)]
mod tests;
