//! `compaction`

mod cancel;
mod list;

use clap::Subcommand;

use crate::exit::Failure;

/// The verbs of `compaction`.
#[derive(Debug, Subcommand)]
#[command(
    after_help = "Example:\n  tidewater compaction list\n\n`tidewater region compact R` begins one."
)]
pub(crate) enum Compaction {
    /// List the compactions that run, wait to be tried again, or are quarantined
    List(list::Options),
    /// End a compaction; one that is quarantined is forgotten, and its files may be chosen again
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
