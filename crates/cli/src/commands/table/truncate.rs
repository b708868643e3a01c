//! `table truncate NAME`

use clap::Args;
use serde::Serialize;

use crate::commands::client::ClientArgs;
use crate::exit::Failure;
use crate::output::fact;

/// Options of `table truncate`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tidewater table truncate airlines")]
pub(crate) struct Options {
    /// Name of the table
    name: String,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Serialize)]
struct Truncated {
    table_id: u32,
    name: String,
}

/// Truncates a table: removes all rows written before the call.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let id = options.client.connect().await?.truncate_table(&options.name).await?;
    let truncated = Truncated { table_id: id.get(), name: options.name };
    fact(options.client.output, &truncated, |table| format!("table {} truncated", table.name))
}
