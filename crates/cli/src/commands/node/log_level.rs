//! `node log-level N FILTER`

use clap::Args;
use serde::Serialize;
use tidewater_common::ids::NodeId;

use crate::commands::client::ClientArgs;
use crate::exit::Failure;
use crate::output::fact;

/// Options of `node log-level`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  tidewater node log-level 4 info,tidewater_data_node=debug\n\nThe change ends after an hour. A node accepts it from its own machine only, unless it runs with \
                  --remote-log-filter."
)]
pub(crate) struct Options {
    /// Id of the node
    node: u64,

    /// Level, or levels by module: info,tidewater_data_node=debug
    filter: String,

    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Serialize)]
struct FilterChange {
    node_id: u64,
    filter: String,
    previous: String,
}

/// Changes the log filter of a node.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let client = options.client.connect().await?;
    let previous = client.set_log_filter(NodeId(options.node), &options.filter).await?;
    let change = FilterChange { node_id: options.node, filter: options.filter, previous };
    fact(options.client.output, &change, |change| {
        format!("node {} logs {} (previously {})", change.node_id, change.filter, change.previous)
    })
}
