//! `event`
//!
//! - `line`: an event as it is printed. `query`: choice of events, and their scan. `newest`: the newest events of a
//!   scan. `window`: events that a follower has printed. `cluster_time`: time from which commands count back.

mod cluster_time;
mod line;
mod list;
mod newest;
mod query;
mod record;
mod tail;
mod types;
mod window;

use clap::Subcommand;

use crate::exit::Failure;

/// Subcommands of `event`.
#[derive(Debug, Subcommand)]
#[command(
    after_help = "Example:\n  tidewater event tail\n  tidewater event list --since 24h --type 'hook_*,node_down'"
)]
pub(crate) enum Event {
    /// List events
    List(list::Options),
    /// Print events as they happen
    Tail(tail::Options),
    /// List the types of events, with their columns
    Types(types::Options),
    /// Record events from standard input
    #[command(hide = true)]
    Record(record::Options),
}

impl Event {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        match self {
            Self::List(options) => list::run(options).await,
            Self::Tail(options) => tail::run(options).await,
            Self::Types(options) => types::run(&options),
            Self::Record(options) => record::run(options).await,
        }
    }
}
