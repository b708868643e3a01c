//! `route`

mod list;

use clap::Subcommand;

use crate::exit::Failure;

/// Subcommands of `route`.
#[derive(Debug, Subcommand)]
#[command(after_help = "Example:\n  tidewater route list --table flights")]
pub(crate) enum Route {
    /// List routes: the group that serves each key range
    List(list::Options),
}

impl Route {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        match self {
            Self::List(options) => list::run(options).await,
        }
    }
}
