//! `refresh cancel NAME`

use clap::Args;

use crate::commands::client::ClientArgs;
use crate::exit::Failure;
use crate::output::line;

/// Options of `refresh cancel`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  tidewater refresh cancel airlines\n\nReaders keep the contents of the last \
                  published refresh. A refresh that is published cannot be cancelled (exit status 4)."
)]
pub(crate) struct Options {
    /// Name of the table
    table: String,

    #[command(flatten)]
    client: ClientArgs,
}

/// Cancels the refresh in progress.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let cancelled = options.client.connect().await?.cancel_refresh(&options.table).await?;
    let table = &options.table;
    match cancelled {
        Some(generation) => line(&format!("refresh {generation} of table {table} is cancelled")),
        None => line(&format!("no refresh of table {table} is in progress")),
    }
}
