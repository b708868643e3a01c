//! `delete NAME KEY...`

use clap::Args;
use serde::Serialize;

use super::client::ClientArgs;
use super::get::keys;
use crate::exit::Failure;
use crate::output::fact;

/// Options of `delete`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  tidewater delete airlines UA DL\n\nA key is a list of values separated \
                        by commas, in the order of the primary key. Deleting a key that has no row is \
                        not an error."
)]
pub(crate) struct Options {
    /// Name of the table
    name: String,

    /// Keys of the rows to delete
    #[arg(required = true, allow_negative_numbers = true, value_name = "KEY")]
    keys: Vec<String>,

    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Serialize)]
struct Deleted {
    acknowledged: u64,
}

/// Deletes rows by their keys.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let client = options.client.connect().await?;
    let table = client.table(&options.name).await?;
    let keys = keys(&table.schema, &options.keys)?;
    let report = client.delete(&options.name, keys).await?;
    let deleted = Deleted { acknowledged: report.acknowledged };
    fact(options.client.output, &deleted, |deleted| {
        format!("{} deletes acknowledged", deleted.acknowledged)
    })
}
