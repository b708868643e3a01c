//! Settings of the balance of routes.

use std::time::Duration;

use tidewater_proto::v1;

use crate::client::Client;
use crate::error::ClientError;

/// Settings of the balance of routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BalanceSettings {
    /// Routes are spread evenly over the groups.
    pub spread: bool,
    /// Time after an operation on a route in which the balance leaves it alone.
    pub rest: Duration,
}

/// Settings to change. Those that are `None` stay as they are.
#[derive(Debug, Clone, Copy, Default)]
pub struct BalanceChange {
    /// Routes are spread evenly over the groups.
    pub spread: Option<bool>,
    /// Time after an operation on a route in which the balance leaves it alone: 1 s to 24 h.
    pub rest: Option<Duration>,
}

impl From<v1::BalanceSettings> for BalanceSettings {
    fn from(settings: v1::BalanceSettings) -> Self {
        Self { spread: settings.spread, rest: Duration::from_millis(settings.rest_ms) }
    }
}

impl Client {
    /// Returns the settings of the balance of routes.
    ///
    /// # Errors
    /// [`ClientError::Unavailable`] and others.
    pub async fn balance(&self) -> Result<BalanceSettings, ClientError> {
        let response = self
            .core
            .change(
                "reading the settings of the balance",
                v1::GetBalanceRequest {},
                |mut client, request| async move { client.get_balance(request).await },
            )
            .await?;
        Ok(response.settings.unwrap_or_default().into())
    }

    /// Changes settings of the balance of routes, and returns all of them.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `InvalidArgument` for a rest outside of its range.
    pub async fn set_balance(&self, change: BalanceChange) -> Result<BalanceSettings, ClientError> {
        let rest_ms = change.rest.map(|rest| u64::try_from(rest.as_millis()).unwrap_or(u64::MAX));
        let request = v1::SetBalanceRequest { spread: change.spread, rest_ms };
        let response = self
            .core
            .change("changing the balance", request, |mut client, request| async move {
                client.set_balance(request).await
            })
            .await?;
        Ok(response.settings.unwrap_or_default().into())
    }
}
