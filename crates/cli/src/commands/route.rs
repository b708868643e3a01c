//! `route`

mod advise;
mod list;
mod merge;
mod move_route;
mod split;
mod watch;

use clap::Subcommand;

use crate::exit::Failure;

/// Subcommands of `route`.
#[derive(Debug, Subcommand)]
#[command(
    after_help = "Example:\n  tidewater route list --table flights\n  tidewater route split 7 --at 8000000000000400"
)]
pub(crate) enum Route {
    /// List routes: the group that serves each key range
    List(list::Options),
    /// Split a route: two new routes replace it, while reads and writes continue
    Split(split::Options),
    /// Merge two neighbouring routes: a new route replaces them, and writes to them wait for a short time
    Merge(merge::Options),
    /// Move a route to another group: its files stay where they are, and writes to it wait for a short time
    Move(move_route::Options),
    /// Show the operations on routes that their load suggests, and why
    Advise(advise::Options),
    /// Print changes of routes as they happen
    Watch(watch::Options),
}

impl Route {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        match self {
            Self::List(options) => list::run(options).await,
            Self::Split(options) => split::run(options).await,
            Self::Merge(options) => merge::run(options).await,
            Self::Move(options) => move_route::run(options).await,
            Self::Advise(options) => advise::run(options).await,
            Self::Watch(options) => watch::run(options).await,
        }
    }
}
