//! `group transfer-leader G --to NODE`

use clap::Args;
use serde::Serialize;
use tidewater_common::ids::{GroupId, NodeId};

use crate::commands::client::ClientArgs;
use crate::exit::Failure;
use crate::output::fact;

/// Options of `group transfer-leader`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tidewater group transfer-leader 1 --to 5")]
pub(crate) struct Options {
    /// Id of the group; 0 is the meta group
    group: u64,

    /// Voter that becomes the leader
    #[arg(long, value_name = "NODE")]
    to: u64,

    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Serialize)]
struct Transferred {
    group_id: u64,
    leader: u64,
}

/// Transfers the leadership of a group.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let client = options.client.connect().await?;
    client.transfer_leader(GroupId(options.group), NodeId(options.to)).await?;
    let done = Transferred { group_id: options.group, leader: options.to };
    fact(options.client.output, &done, |done| {
        format!("leadership of group {} transferred to node {}", done.group_id, done.leader)
    })
}
