//! `table drop NAME`

use clap::Args;
use serde::Serialize;

use crate::commands::client::ClientArgs;
use crate::exit::Failure;
use crate::output::fact;

/// Options of `table drop`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tidewater table drop airlines")]
pub(crate) struct Options {
    /// Name of the table
    name: String,

    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Serialize)]
struct Dropped {
    table_id: u32,
    name: String,
}

/// Drops a table and all its rows.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let id = options.client.connect().await?.drop_table(&options.name).await?;
    let dropped = Dropped { table_id: id.get(), name: options.name };
    fact(options.client.output, &dropped, |dropped| format!("table {} dropped", dropped.name))
}
