//! `balance`

mod set;
mod show;

use clap::Subcommand;
use serde::Serialize;
use tidewater_client::admin::BalanceSettings;
use tidewater_proto::v1::HotspotMode;

use crate::exit::Failure;

/// Subcommands of `balance`.
#[derive(Debug, Subcommand)]
#[command(after_help = "Example:\n  tidewater balance show\n  tidewater balance set --hotspots on")]
pub(crate) enum Balance {
    /// Show the settings of the balance of routes
    Show(show::Options),
    /// Change settings of the balance of routes, while it runs
    Set(set::Options),
}

impl Balance {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        match self {
            Self::Show(options) => show::run(options).await,
            Self::Set(options) => set::run(options).await,
        }
    }
}

/// Settings of the balance. The JSON field names are stable.
#[derive(Debug, Serialize)]
struct Shown {
    spread: bool,
    rest_ms: u128,
    hotspots: &'static str,
    split_score: u64,
    max_routes: u64,
}

impl From<BalanceSettings> for Shown {
    fn from(settings: BalanceSettings) -> Self {
        Self {
            spread: settings.spread,
            rest_ms: settings.rest.as_millis(),
            hotspots: mode(settings.hotspots),
            split_score: settings.split_score,
            max_routes: settings.max_routes,
        }
    }
}

impl Shown {
    fn text(&self) -> String {
        let spread = if self.spread { "on" } else { "off" };
        let (seconds, millis) = (self.rest_ms / 1_000, self.rest_ms % 1_000);
        let fraction = if millis == 0 { String::new() } else { format!(".{millis:03}") };
        let Self { hotspots, split_score, max_routes, .. } = self;
        format!(
            "spread: {spread}\nrest: {seconds}{fraction}s\nhotspots: {hotspots}\nsplit score: {split_score} per minute\n\
             most routes of a table: {max_routes}"
        )
    }
}

/// Name of a mode, as it is set.
pub(crate) fn mode(mode: HotspotMode) -> &'static str {
    match mode {
        HotspotMode::Unspecified => "unknown",
        HotspotMode::Off => "off",
        HotspotMode::Advise => "advise",
        HotspotMode::On => "on",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn settings_have_stable_json_fields() {
        let settings = BalanceSettings {
            spread: false,
            rest: Duration::from_millis(1_500),
            hotspots: HotspotMode::Advise,
            split_score: 600,
            max_routes: 7,
        };
        let shown = Shown::from(settings);
        assert_eq!(
            serde_json::to_string(&shown).unwrap(),
            r#"{"spread":false,"rest_ms":1500,"hotspots":"advise","split_score":600,"max_routes":7}"#
        );
        assert_eq!(
            shown.text(),
            "spread: off\nrest: 1.500s\nhotspots: advise\nsplit score: 600 per minute\nmost routes of a table: 7"
        );
    }
}
