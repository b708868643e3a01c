//! `node`

mod drain;
mod list;
mod log_level;
mod remove;
mod replace;

use clap::Subcommand;

pub(crate) use self::list::NodeLine;
use crate::exit::Failure;

/// Subcommands of `node`.
#[derive(Debug, Subcommand)]
#[command(
    after_help = "Example:\n  tidewater node list\n  tidewater node drain 102\n  tidewater node log-level 4 debug"
)]
pub(crate) enum Node {
    /// List nodes
    List(list::Options),
    /// Move all replicas of a data node to other nodes
    Drain(drain::Options),
    /// Remove a drained data node for good
    Remove(remove::Options),
    /// Move all replicas of a data node to another one, and remove it
    Replace(replace::Options),
    /// Change the log filter of a running node
    LogLevel(log_level::Options),
}

impl Node {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        match self {
            Self::List(options) => list::run(options).await,
            Self::Drain(options) => drain::run(options).await,
            Self::Remove(options) => remove::run(options).await,
            Self::Replace(options) => replace::run(options).await,
            Self::LogLevel(options) => log_level::run(options).await,
        }
    }
}
