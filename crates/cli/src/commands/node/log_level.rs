//! `node log-level N FILTER`

use clap::Args;
use serde::Serialize;
use tidewater_common::ids::NodeId;

use crate::commands::client::ClientArgs;
use crate::exit::Failure;
use crate::output::fact;

/// Options of `node log-level`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tidewater node log-level 4 info,tidewater_data_node=debug")]
pub(crate) struct Options {
    /// Id of the node
    node: u64,

    /// A level, or levels by module: info,tidewater_data_node=debug
    filter: String,

    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Serialize)]
struct Changed {
    node_id: u64,
    filter: String,
    previous: String,
}

/// Changes what a node logs.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let client = options.client.connect().await?;
    let previous = client.set_log_filter(NodeId(options.node), &options.filter).await?;
    let changed = Changed { node_id: options.node, filter: options.filter, previous };
    fact(options.client.output, &changed, |changed| {
        format!("node {} logs {} (before: {})", changed.node_id, changed.filter, changed.previous)
    })
}
