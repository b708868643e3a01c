//! `region`

mod compact;
mod describe;
mod files;
mod flush;
mod list;
mod manifest;

use clap::Subcommand;

use crate::exit::Failure;
use crate::output::terminal::note;

/// Subcommands of `region`.
#[derive(Debug, Subcommand)]
#[command(
    after_help = "Example:\n  tidewater region list --table flights\n  tidewater region flush 7"
)]
pub(crate) enum Region {
    /// List regions
    List(list::Options),
    /// Show the replicas of a region with their files and memory
    Describe(describe::Options),
    /// Flush the memtable of a region to the object store
    Flush(flush::Options),
    /// Compact the files of a region into one sorted run
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

/// Warns that a list lacks the regions of nodes that did not answer.
pub(super) fn warn_about_silent_nodes(silent: &[(tidewater_common::ids::NodeId, String)]) {
    for (node, why) in silent {
        note(&format!("warning: node {node} did not answer; the list lacks its regions: {why}"));
    }
}
