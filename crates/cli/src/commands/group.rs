//! `group`

mod list;
mod transfer_leader;

use clap::Subcommand;

pub(crate) use self::list::GroupLine;
use crate::exit::Failure;

/// Subcommands of `group`.
#[derive(Debug, Subcommand)]
#[command(
    after_help = "Example:\n  tidewater group list\n  tidewater group transfer-leader 1 --to 5"
)]
pub(crate) enum Group {
    /// List Raft groups; group 0 is the meta group
    List(list::Options),
    /// Transfer the leadership of a group to one of its voters
    TransferLeader(transfer_leader::Options),
}

impl Group {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        match self {
            Self::List(options) => list::run(options).await,
            Self::TransferLeader(options) => transfer_leader::run(options).await,
        }
    }
}
