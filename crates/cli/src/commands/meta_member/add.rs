//! `meta-member add NODE --address ADDR`

use clap::Args;
use tidewater_client::admin::MetaChange;
use tidewater_common::ids::NodeId;

use crate::commands::client::ClientArgs;
use crate::exit::Failure;

/// Options of `meta-member add`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  tidewater meta-member add 4 --address 127.0.0.1:7404\n\nThe node \
                        must be running. It has no vote until `meta-member promote`."
)]
pub(crate) struct Options {
    /// Id of the node to add
    node: u64,

    /// Address of the node, HOST:PORT
    #[arg(long, value_name = "ADDR")]
    address: String,

    #[command(flatten)]
    client: ClientArgs,
}

/// Adds a node as a learner; returns when it has caught up.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let change = MetaChange::AddLearner { node_id: NodeId(options.node), address: options.address };
    let members = options.client.connect().await?.change_meta_member(change).await?;
    super::show(options.client.output, &members)
}
