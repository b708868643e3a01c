//! `bench`

mod compact;
mod figures;
mod holds;
mod ingest;
mod meta;
mod sample;
mod scan;

use clap::Subcommand;

use crate::exit::Failure;

/// Subcommands of `bench`.
#[derive(Debug, Subcommand)]
#[command(after_help = "Example:\n  tidewater bench ingest --rows 4000000 --output json")]
pub(crate) enum Bench {
    /// Measure writing time-series rows to the table `bench`
    Ingest(ingest::Options),
    /// Measure reading a whole table
    Scan(scan::Options),
    /// Measure compacting overlapping files in a local directory
    Compact(compact::Options),
    /// Measure sending no-op commands through the meta group
    Meta(meta::Options),
    /// Measure acquiring, downgrading and releasing read holds
    Holds(holds::Options),
}

impl Bench {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        match self {
            Self::Ingest(options) => ingest::run(options).await,
            Self::Scan(options) => scan::run(options).await,
            Self::Compact(options) => compact::run(options).await,
            Self::Meta(options) => meta::run(options).await,
            Self::Holds(options) => holds::run(options).await,
        }
    }
}
