//! `balance show`

use clap::Args;

use super::Shown;
use crate::commands::client::ClientArgs;
use crate::exit::Failure;
use crate::output::fact;

/// Options of `balance show`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tidewater balance show --output json")]
pub(crate) struct Options {
    #[command(flatten)]
    client: ClientArgs,
}

/// Shows the settings.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let settings = options.client.connect().await?.balance().await?;
    fact(options.client.output, &Shown::from(settings), Shown::text)
}
