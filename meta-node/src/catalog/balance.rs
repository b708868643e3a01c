//! Settings of the balance of routes.

use tidewater_proto::v1;

/// Settings of the balance of routes. Without a row, they have their defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BalanceSettings {
    /// Routes are spread evenly over the groups.
    pub spread: bool,
    /// Time after an operation on a route in which the balance leaves it alone, in milliseconds of replicated time.
    pub rest_ms: u64,
}

impl Default for BalanceSettings {
    fn default() -> Self {
        Self { spread: true, rest_ms: 60_000 }
    }
}

impl From<BalanceSettings> for v1::BalanceSettings {
    fn from(settings: BalanceSettings) -> Self {
        Self { spread: settings.spread, rest_ms: settings.rest_ms }
    }
}

impl From<v1::BalanceSettings> for BalanceSettings {
    fn from(stored: v1::BalanceSettings) -> Self {
        Self { spread: stored.spread, rest_ms: stored.rest_ms }
    }
}
