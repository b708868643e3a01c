//! `route`

mod list;

use clap::Subcommand;

use crate::exit::Failure;

/// The verbs of `route`.
#[derive(Debug, Subcommand)]
#[command(after_help = "Example:\n  tidewater route list --table flights")]
pub(crate) enum Route {
    /// List the routes: which group serves which keys
    List(list::Options),
}

impl Route {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        match self {
            Self::List(options) => list::run(options).await,
        }
    }
}
