//! `refresh alter NAME`

use clap::Args;
use tidewater_proto::v1::RefreshSettings;

use crate::commands::client::ClientArgs;
use crate::exit::Failure;
use crate::output::line;
use crate::text::time_span::TimeSpan;

/// Settings of a table's refreshes.
#[derive(Debug, Args)]
pub(crate) struct Settings {
    /// Time between the begins of two refreshes; 0s: only on request
    #[arg(long, value_name = "TIME")]
    interval: Option<TimeSpan>,

    /// Time after which a refresh is abandoned [default: 24h]
    #[arg(long, value_name = "TIME")]
    deadline: Option<TimeSpan>,

    /// Share of the last refresh's rows below which a refresh fails [default: 50]
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(0..=100))]
    min_rows_percent: Option<u32>,
}

impl Settings {
    /// Returns the settings with those that are given.
    pub(crate) fn apply(&self, settings: RefreshSettings) -> RefreshSettings {
        RefreshSettings {
            interval_ms: self.interval.map_or(settings.interval_ms, |time| time.0),
            deadline_ms: self.deadline.map_or(settings.deadline_ms, |time| time.0),
            min_rows_percent: self.min_rows_percent.or(settings.min_rows_percent),
        }
    }
}

/// Options of `refresh alter`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tidewater refresh alter airlines --interval 1h")]
pub(crate) struct Options {
    /// Name of the table
    table: String,

    #[command(flatten)]
    settings: Settings,

    #[command(flatten)]
    client: ClientArgs,
}

/// Changes the settings that are given.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let client = options.client.connect().await?;
    let found = client.refreshes(Some(&options.table), false).await?;
    let record = found.into_iter().next().and_then(|info| info.record).unwrap_or_default();
    let settings = options.settings.apply(record.settings.unwrap_or_default());
    client.alter_refresh(&options.table, None, Some(settings)).await?;
    line(&format!("refreshes of table {} altered", options.table))
}
