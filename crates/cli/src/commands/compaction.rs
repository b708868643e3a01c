//! `compaction`

mod cancel;
mod list;

use clap::Subcommand;

use crate::exit::Failure;

/// Subcommands of `compaction`.
#[derive(Debug, Subcommand)]
#[command(
    after_help = "Example:\n  tidewater compaction list\n\n`tidewater region compact R` starts one."
)]
pub(crate) enum Compaction {
    /// List compactions that are running, waiting for a retry, or quarantined
    List(list::Options),
    /// Cancel a compaction, or end the quarantine of one
    Cancel(cancel::Options),
}

impl Compaction {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        match self {
            Self::List(options) => list::run(options).await,
            Self::Cancel(options) => cancel::run(options).await,
        }
    }
}
