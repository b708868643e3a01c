//! `region`

mod compact;
mod describe;
mod files;
mod flush;
mod list;
mod manifest;

use clap::Subcommand;

use crate::exit::Failure;

/// The verbs of `region`.
#[derive(Debug, Subcommand)]
#[command(
    after_help = "Example:\n  tidewater region list --table flights\n  tidewater region flush 7"
)]
pub(crate) enum Region {
    /// List the regions
    List(list::Options),
    /// Show a region: its files, its memory, its replicas
    Describe(describe::Options),
    /// Write a region's rows in memory to the object store
    Flush(flush::Options),
    /// Merge the files of a region into one run
    Compact(compact::Options),
    /// List the files of a region
    Files(files::Options),
    /// Print the manifest of a region
    Manifest(manifest::Options),
}

impl Region {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        match self {
            Self::List(options) => list::run(options).await,
            Self::Describe(options) => describe::run(options).await,
            Self::Flush(options) => flush::run(options).await,
            Self::Compact(options) => compact::run(options).await,
            Self::Files(options) => files::run(options).await,
            Self::Manifest(options) => manifest::run(options).await,
        }
    }
}

/// Lists may lack what a node that did not answer would have said.
fn warn_of_silent(silent: &[(tidewater_common::ids::NodeId, String)]) {
    for (node, why) in silent {
        eprintln!("warning: node {node} did not answer, its regions are missing here: {why}");
    }
}
