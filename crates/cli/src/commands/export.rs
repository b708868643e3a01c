//! `export`
//!
//! - `export_line`: an export, for output. `wait`: wait for the contents.
//! - `target`: target of an export. `interval`: time between two steps.

mod cancel;
mod create;
mod drop;
mod export_line;
mod interval;
mod list;
mod prepare;
mod target;
mod wait;

use clap::Subcommand;

use crate::exit::Failure;

/// Subcommands of `export`.
#[derive(Debug, Subcommand)]
#[command(
    after_help = "Example:\n  tidewater export create lake --table flights --to file:///srv/exports/flights --wait\n  tidewater \
                  export list\n  tidewater export drop lake\n\nAn export writes the rows of a table as of an epoch, then its \
                  changes, to Parquet objects below a prefix. Data nodes write them, in steps: each step brings the objects \
                  to a later epoch. Until the export is dropped, its table can be neither truncated nor dropped."
)]
pub(crate) enum Export {
    /// Export a table and its changes to a prefix
    Create(create::Options),
    /// List exports and their progress
    List(list::Options),
    /// End an export; its objects stay
    Drop(drop::Options),
    /// Hold a table for an export that is created later
    Prepare(prepare::Options),
    /// Release the hold of a token of `export prepare`
    Cancel(cancel::Options),
}

impl Export {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        match self {
            Self::Create(options) => create::run(options).await,
            Self::List(options) => list::run(options).await,
            Self::Drop(options) => drop::run(options).await,
            Self::Prepare(options) => prepare::run(options).await,
            Self::Cancel(options) => cancel::run(options).await,
        }
    }
}
