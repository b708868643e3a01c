//! `cluster`

mod health;
mod problem;
#[cfg(test)]
mod problem_docs_tests;
mod restart;
mod status;

use clap::Subcommand;

use crate::exit::Failure;

/// Subcommands of `cluster`.
#[derive(Debug, Subcommand)]
#[command(after_help = "Example:\n  tidewater cluster status")]
pub(crate) enum Cluster {
    /// Show nodes, groups and problems: exit with 0 when there is no problem, with 5 otherwise
    Status(status::Options),
    /// Check cluster health: exit with 0 when healthy, with 5 otherwise
    Health(health::Options),
    /// Restart all nodes, one after the other, waiting for health between two nodes
    Restart(restart::Options),
}

impl Cluster {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        match self {
            Self::Status(options) => status::run(options).await,
            Self::Health(options) => health::run(options).await,
            Self::Restart(options) => restart::run(options).await,
        }
    }
}
