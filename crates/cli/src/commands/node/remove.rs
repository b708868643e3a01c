//! `node remove N`

use clap::Args;
use serde::Serialize;
use tidewater_common::ids::NodeId;

use crate::commands::client::ClientArgs;
use crate::exit::Failure;
use crate::output::fact;

/// Options of `node remove`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  tidewater node remove 102\n\nThe node must be drained. Stop its process: its data directory is \
                  refused from then on."
)]
pub(crate) struct Options {
    /// Id of the data node
    node: u64,

    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Serialize)]
struct Removed {
    node_id: u64,
}

/// Removes a data node from the cluster for good.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    options.client.connect().await?.remove_node(NodeId(options.node)).await?;
    let removed = Removed { node_id: options.node };
    fact(options.client.output, &removed, |removed| format!("node {} removed", removed.node_id))
}
