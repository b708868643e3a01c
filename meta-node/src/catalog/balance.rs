//! Settings of the balance of routes.

use tidewater_proto::v1::{self, HotspotMode};

use super::CatalogError;
use super::records::invalid;

/// Settings of the balance of routes. Without a row, they have their defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BalanceSettings {
    /// Routes are spread evenly over the groups.
    pub spread: bool,
    /// Time after an operation on a route in which the balance leaves it alone, in milliseconds of replicated time.
    pub rest_ms: u64,
    /// Mode of the search for hotspots.
    pub hotspots: HotspotMode,
    /// Score per minute above which a route is hot.
    pub split_score: u64,
    /// Number of routes of a table from which on hot ones are not split.
    pub max_routes: u64,
}

impl Default for BalanceSettings {
    fn default() -> Self {
        Self {
            spread: true,
            rest_ms: 60_000,
            hotspots: HotspotMode::Advise,
            // 2,500 rows a second.
            split_score: 600_000,
            max_routes: 1_024,
        }
    }
}

impl From<BalanceSettings> for v1::BalanceSettings {
    fn from(settings: BalanceSettings) -> Self {
        Self {
            spread: settings.spread,
            rest_ms: settings.rest_ms,
            hotspots: settings.hotspots.into(),
            split_score: settings.split_score,
            max_routes: settings.max_routes,
        }
    }
}

impl TryFrom<v1::BalanceSettings> for BalanceSettings {
    type Error = CatalogError;

    fn try_from(stored: v1::BalanceSettings) -> Result<Self, CatalogError> {
        let hotspots = match stored.hotspots() {
            HotspotMode::Unspecified => return Err(invalid("balance", "its mode is unknown")),
            known => known,
        };
        Ok(Self {
            spread: stored.spread,
            rest_ms: stored.rest_ms,
            hotspots,
            split_score: stored.split_score,
            max_routes: stored.max_routes,
        })
    }
}
