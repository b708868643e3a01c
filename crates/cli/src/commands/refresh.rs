//! `refresh`

mod alter;
mod cancel;
mod create;
mod history;
mod pause;
mod run_line;
mod start;
mod status;

use clap::Subcommand;

pub(crate) use self::status::StatusLine;
use crate::exit::Failure;

/// Subcommands of `refresh`.
#[derive(Debug, Subcommand)]
#[command(
    after_help = "Example:\n  tidewater refresh create airlines --columns 'carrier utf8, name utf8' \
                  --primary-key carrier --source csv --config \
                  '{\"url\": \"file:///srv/airlines\"}'\n  tidewater refresh start airlines\n  \
                  tidewater scan airlines\n\nA refreshable table mirrors a source outside of the cluster. \
                  A refresh compares the source with the table, row by row, and publishes all changes at \
                  once: readers see the contents of one refresh."
)]
pub(crate) enum Refresh {
    /// Create a refreshable table
    Create(create::Options),
    /// Refresh a table from its source
    Start(start::Options),
    /// Show the refreshes of tables and their progress
    Status(status::Options),
    /// Cancel the refresh in progress
    Cancel(cancel::Options),
    /// Begin no refreshes of a table; one in progress continues
    Pause(pause::Options),
    /// Begin refreshes of a table again
    Resume(pause::Options),
    /// Change the interval, deadline or guard of a table's refreshes
    Alter(alter::Options),
    /// List the last refreshes of a table
    History(history::Options),
}

impl Refresh {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        match self {
            Self::Create(options) => create::run(options).await,
            Self::Start(options) => start::run(options).await,
            Self::Status(options) => status::run(options).await,
            Self::Cancel(options) => cancel::run(options).await,
            Self::Pause(options) => pause::run(options, true).await,
            Self::Resume(options) => pause::run(options, false).await,
            Self::Alter(options) => alter::run(options).await,
            Self::History(options) => history::run(options).await,
        }
    }
}
