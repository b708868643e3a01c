//! `table`

mod alter;
mod clone;
pub(crate) mod create;
mod describe;
mod drop;
mod list;
mod open;
mod truncate;

use clap::Subcommand;

use crate::exit::Failure;

/// Subcommands of `table`.
#[derive(Debug, Subcommand)]
#[command(
    after_help = "Example:\n  tidewater table create airlines --columns 'carrier utf8, name \
                        utf8' --primary-key carrier\n  tidewater table list"
)]
pub(crate) enum Table {
    /// Create a table
    Create(create::Options),
    /// List tables
    List(list::Options),
    /// Show the columns and options of a table
    Describe(describe::Options),
    /// Add or drop columns, or change options
    Alter(alter::Options),
    /// Remove all rows of a table
    Truncate(truncate::Options),
    /// Clone a table with its rows, without copying files
    Clone(clone::Options),
    /// Open a reserved table with its saved routes
    Open(open::Options),
    /// Drop a table and all its rows
    Drop(drop::Options),
}

impl Table {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        match self {
            Self::Create(options) => create::run(options).await,
            Self::List(options) => list::run(options).await,
            Self::Describe(options) => describe::run(options).await,
            Self::Alter(options) => alter::run(options).await,
            Self::Truncate(options) => truncate::run(options).await,
            Self::Clone(options) => clone::run(options).await,
            Self::Open(options) => open::run(options).await,
            Self::Drop(options) => drop::run(options).await,
        }
    }
}

/// Returns the name of a table state, for output.
fn state_text(state: tidewater_proto::v1::TableState) -> &'static str {
    use tidewater_proto::v1::TableState;
    match state {
        TableState::Unspecified => "unknown",
        TableState::Creating => "creating",
        TableState::Active => "active",
        TableState::Dropping => "dropping",
        TableState::Reserved => "reserved",
    }
}
