//! `bench`

mod compact;
mod figures;
mod ingest;
mod meta;
mod sample;
mod scan;

use clap::Subcommand;

use crate::exit::Failure;

/// The verbs of `bench`.
#[derive(Debug, Subcommand)]
#[command(after_help = "Example:\n  tidewater bench ingest --rows 4000000 --output json")]
pub(crate) enum Bench {
    /// Write rows of a time series to the table `bench`, and time it
    Ingest(ingest::Options),
    /// Read a whole table, and time it
    Scan(scan::Options),
    /// Merge files that overlap in a local directory, and time it
    Compact(compact::Options),
    /// Send commands without effect through the meta group, and time it
    Meta(meta::Options),
}

impl Bench {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        match self {
            Self::Ingest(options) => ingest::run(options).await,
            Self::Scan(options) => scan::run(options).await,
            Self::Compact(options) => compact::run(options).await,
            Self::Meta(options) => meta::run(options).await,
        }
    }
}
