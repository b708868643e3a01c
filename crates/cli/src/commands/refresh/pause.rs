//! `refresh pause NAME`, `refresh resume NAME`

use clap::Args;

use crate::commands::client::ClientArgs;
use crate::exit::Failure;
use crate::output::line;

/// Options of `refresh pause` and `refresh resume`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  tidewater refresh pause airlines\n  tidewater refresh resume airlines"
)]
pub(crate) struct Options {
    /// Name of the table
    table: String,

    #[command(flatten)]
    client: ClientArgs,
}

/// Pauses or resumes the refreshes of a table.
pub(crate) async fn run(options: Options, paused: bool) -> Result<(), Failure> {
    let client = options.client.connect().await?;
    client.alter_refresh(&options.table, Some(paused), None).await?;
    let done = if paused { "paused" } else { "resumed" };
    line(&format!("refreshes of table {} {done}", options.table))
}
