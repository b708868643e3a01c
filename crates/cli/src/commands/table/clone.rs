//! `table clone NAME NEW`

use clap::Args;
use serde::Serialize;

use crate::commands::client::ClientArgs;
use crate::exit::Failure;
use crate::output::fact;

/// Options of `table clone`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tidewater table clone flights flights_2013\n\nThe new table \
                        refers to the files of the source table: no bytes are copied. Each of its \
                        regions has the rows that the region of the source table had at one time \
                        during the call. Afterwards, the two tables are independent.")]
pub(crate) struct Options {
    /// Name of the table to clone
    name: String,
    /// Name of the new table
    new_name: String,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Serialize)]
struct Cloned {
    table_id: u32,
    name: String,
    clone_of: String,
}

/// Clones a table with its rows.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let client = options.client.connect().await?;
    let table = client.clone_table(&options.name, &options.new_name).await?;
    let cloned =
        Cloned { table_id: table.table_id, name: options.new_name, clone_of: options.name };
    fact(options.client.output, &cloned, |table| {
        format!("table {} created as a clone of {}", table.name, table.clone_of)
    })
}
