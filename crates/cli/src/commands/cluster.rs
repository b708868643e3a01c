//! `cluster`

mod health;
mod status;

use clap::Subcommand;

use crate::exit::Failure;

/// The verbs of `cluster`.
#[derive(Debug, Subcommand)]
#[command(after_help = "Example:\n  tidewater cluster status")]
pub(crate) enum Cluster {
    /// Show the nodes, the groups, and what is wrong
    Status(status::Options),
    /// Exit with 0 when all is well, with 5 otherwise
    Health(health::Options),
}

impl Cluster {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        match self {
            Self::Status(options) => status::run(options).await,
            Self::Health(options) => health::run(options).await,
        }
    }
}
