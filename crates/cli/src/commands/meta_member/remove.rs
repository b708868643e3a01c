//! `meta-member remove NODE`

use clap::Args;
use tidewater_client::admin::MetaChange;
use tidewater_common::ids::NodeId;

use crate::commands::client::ClientArgs;
use crate::exit::Failure;

/// Options of `meta-member remove`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tidewater meta-member remove 2")]
pub(crate) struct Options {
    /// Id of the member to remove
    node: u64,

    #[command(flatten)]
    client: ClientArgs,
}

/// Removes a member from the meta group.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let change = MetaChange::Remove(NodeId(options.node));
    let members = options.client.connect().await?.change_meta_member(change).await?;
    super::show(options.client.output, &members)
}
