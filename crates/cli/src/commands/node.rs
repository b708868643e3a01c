//! `node`

mod list;
mod log_level;

use clap::Subcommand;

pub(crate) use self::list::NodeLine;
use crate::exit::Failure;

/// Subcommands of `node`.
#[derive(Debug, Subcommand)]
#[command(after_help = "Example:\n  tidewater node list\n  tidewater node log-level 4 debug")]
pub(crate) enum Node {
    /// List nodes
    List(list::Options),
    /// Change the log filter of a running node
    LogLevel(log_level::Options),
}

impl Node {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        match self {
            Self::List(options) => list::run(options).await,
            Self::LogLevel(options) => log_level::run(options).await,
        }
    }
}
