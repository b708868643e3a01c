//! `meta-member promote NODE`

use clap::Args;
use tidewater_client::admin::MetaChange;
use tidewater_common::ids::NodeId;

use crate::commands::client::ClientArgs;
use crate::exit::Failure;

/// Options of `meta-member promote`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tidewater meta-member promote 4")]
pub(crate) struct Options {
    /// Id of the learner to promote
    node: u64,

    #[command(flatten)]
    client: ClientArgs,
}

/// Promotes a learner to a voter.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let change = MetaChange::Promote(NodeId(options.node));
    let members = options.client.connect().await?.change_meta_member(change).await?;
    super::show(options.client.output, &members)
}
