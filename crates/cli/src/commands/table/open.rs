//! `table open NAME`

use clap::Args;
use serde::Serialize;

use crate::commands::client::ClientArgs;
use crate::exit::Failure;
use crate::output::fact;

/// Options of `table open`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  tidewater table open flights\n\nA tool or a restore reserves a table and saves its routes. \
                  They must have all keys of the table."
)]
pub(crate) struct Options {
    /// Name of the reserved table
    name: String,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Serialize)]
struct Opened {
    table_id: u32,
    name: String,
    state: &'static str,
}

/// Opens a reserved table with its saved routes; returns when it accepts writes.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let store = options.client.connect().await?.catalog_store();
    let table = store.open(&options.name).await?;
    let state = super::state_text(table.state());
    let opened = Opened { table_id: table.table_id, name: table.name, state };
    fact(options.client.output, &opened, |table| format!("table {} opened", table.name))
}
