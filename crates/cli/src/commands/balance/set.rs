//! `balance set`

use clap::{ArgGroup, Args, ValueEnum};
use tidewater_client::admin::BalanceChange;

use super::Shown;
use crate::commands::client::ClientArgs;
use crate::exit::Failure;
use crate::output::fact;
use crate::text::time_span::TimeSpan;

/// Options of `balance set`.
#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("settings").required(true).multiple(true).args(["spread", "rest"]),
    after_help = "Example:\n  tidewater balance set --spread off\n  tidewater balance set --spread on --rest 10m\n\nSettings that \
                  are not named stay as they are. Moves in progress are completed. Routes of groups that retire move with \
                  --spread off, too."
)]
pub(crate) struct Options {
    /// Spread routes evenly over the groups
    #[arg(long)]
    spread: Option<Switch>,

    /// Time after an operation on a route in which the balance leaves it alone, 1s to 24h
    #[arg(long, value_name = "TIME")]
    rest: Option<TimeSpan>,

    #[command(flatten)]
    client: ClientArgs,
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
    };
    let settings = options.client.connect().await?.set_balance(change).await?;
    fact(options.client.output, &Shown::from(settings), Shown::text)
}
