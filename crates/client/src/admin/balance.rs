//! Settings of the balance of routes.

use std::time::Duration;

use tidewater_proto::v1::{self, HotspotMode};

use crate::client::Client;
use crate::error::ClientError;

/// Settings of the balance of routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BalanceSettings {
    /// Routes are spread evenly over the groups.
    pub spread: bool,
    /// Time after an operation on a route in which the balance leaves it alone.
    pub rest: Duration,
    /// Mode of the search for hotspots.
    pub hotspots: HotspotMode,
    /// Score per minute above which a route is hot.
    pub split_score: u64,
    /// Number of routes of a table from which on hot ones are not split.
    pub max_routes: u64,
}

/// Settings to change. Those that are `None` stay as they are.
#[derive(Debug, Clone, Copy, Default)]
pub struct BalanceChange {
    /// Routes are spread evenly over the groups.
    pub spread: Option<bool>,
    /// Time after an operation on a route in which the balance leaves it alone: 1 s to 1 h.
    pub rest: Option<Duration>,
    /// Mode of the search for hotspots.
    pub hotspots: Option<HotspotMode>,
    /// Score per minute above which a route is hot: 60 or more.
    pub split_score: Option<u64>,
    /// Number of routes of a table from which on hot ones are not split: 1 or more.
    pub max_routes: Option<u64>,
}

impl From<v1::BalanceSettings> for BalanceSettings {
    fn from(settings: v1::BalanceSettings) -> Self {
        Self {
            spread: settings.spread,
            rest: Duration::from_millis(settings.rest_ms),
            hotspots: settings.hotspots(),
            split_score: settings.split_score,
            max_routes: settings.max_routes,
        }
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
        let request = v1::SetBalanceRequest {
            spread: change.spread,
            rest_ms,
            hotspots: change.hotspots.map(Into::into),
            split_score: change.split_score,
            max_routes: change.max_routes,
        };
        let response = self
            .core
            .change("changing the balance", request, |mut client, request| async move {
                client.set_balance(request).await
            })
            .await?;
        Ok(response.settings.unwrap_or_default().into())
    }

    /// Returns the operations on routes that their load suggests, with the figures.
    ///
    /// # Errors
    /// [`ClientError::Unavailable`] and others.
    pub async fn advise_routes(&self) -> Result<v1::AdviseRoutesResponse, ClientError> {
        let request = v1::AdviseRoutesRequest {};
        self.core
            .change("reading the advice on routes", request, |mut client, request| async move {
                client.advise_routes(request).await
            })
            .await
    }
}
