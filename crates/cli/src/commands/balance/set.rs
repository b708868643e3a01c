//! `balance set`

use clap::{ArgGroup, Args, ValueEnum};
use tidewater_client::admin::BalanceChange;
use tidewater_proto::v1::HotspotMode;

use super::Shown;
use crate::commands::client::ClientArgs;
use crate::exit::Failure;
use crate::output::fact;
use crate::text::time_span::TimeSpan;

/// Options of `balance set`.
#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("settings").required(true).multiple(true)
        .args(["spread", "rest", "hotspots", "split_score", "max_routes"]),
    after_help = "Example:\n  tidewater balance set --spread off\n  tidewater balance set --spread on --rest 10m\n  tidewater balance set --hotspots on --split-score 1000000\n\nSettings that \
                  are not named stay as they are. Moves in progress are completed. Routes of groups that retire move with \
                  --spread off, too."
)]
pub(crate) struct Options {
    /// Spread routes evenly over the groups
    #[arg(long)]
    spread: Option<Switch>,

    /// Time after an operation on a route in which the balance leaves it alone, 1s to 1h
    #[arg(long, value_name = "TIME")]
    rest: Option<TimeSpan>,

    /// Let routes follow the load: split hot routes, move routes away from busy nodes, merge cold routes that were
    /// split. With `advise`, `tidewater route advise` shows what `on` would do
    #[arg(long)]
    hotspots: Option<Hotspots>,

    /// Score per minute above which a route is hot: 4 for a written row, 1 for a key that is looked up and for a scan
    #[arg(long, value_name = "SCORE")]
    split_score: Option<u64>,

    /// Number of routes of a table from which on hot ones are not split
    #[arg(long, value_name = "N")]
    max_routes: Option<u64>,

    #[command(flatten)]
    client: ClientArgs,
}

/// Mode of the search for hotspots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Hotspots {
    Off,
    Advise,
    On,
}

impl From<Hotspots> for HotspotMode {
    fn from(mode: Hotspots) -> Self {
        match mode {
            Hotspots::Off => Self::Off,
            Hotspots::Advise => Self::Advise,
            Hotspots::On => Self::On,
        }
    }
}

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Switch {
    On,
    Off,
}

/// Changes the settings and shows all of them.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let change = BalanceChange {
        spread: options.spread.map(|spread| spread == Switch::On),
        rest: options.rest.map(|rest| rest.duration()),
        hotspots: options.hotspots.map(Into::into),
        split_score: options.split_score,
        max_routes: options.max_routes,
    };
    let settings = options.client.connect().await?.set_balance(change).await?;
    fact(options.client.output, &Shown::from(settings), Shown::text)
}
