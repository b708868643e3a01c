//! `region manifest R`

use clap::Args;
use tidewater_common::ids::RegionId;

use crate::commands::client::ClientArgs;
use crate::exit::Failure;
use crate::output::{Output, line};

/// Options of `region manifest`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tidewater region manifest 7")]
pub(crate) struct Options {
    /// Id of the region
    region: u64,

    #[command(flatten)]
    client: ClientArgs,
}

/// Prints the manifest of a region as JSON: indented for a terminal, on one line with
/// `--output json`.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let client = options.client.connect().await?;
    let text = client.region_manifest(RegionId(options.region)).await?;
    let parsed: Result<serde_json::Value, _> = serde_json::from_str(&text);
    match (options.client.output, parsed) {
        (Output::Table, Ok(value)) => {
            let pretty = serde_json::to_string_pretty(&value).unwrap_or(text);
            line(&pretty)
        }
        (Output::Json, _) | (Output::Table, Err(_)) => line(&text),
    }
}
