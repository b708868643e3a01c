//! `meta-member`

mod add;
mod list;
mod promote;
mod remove;
mod replace;

use clap::Subcommand;
use tidewater_proto::v1;

use self::list::MemberLine;
use crate::exit::Failure;
use crate::output::{self, Output};

/// Subcommands of `meta-member`.
#[derive(Debug, Subcommand)]
#[command(
    after_help = "Example:\n  tidewater meta-member list\n  tidewater meta-member replace 2 \
                        --with 4 --address 127.0.0.1:7404"
)]
pub(crate) enum MetaMember {
    /// List the members of the meta group
    List(list::Options),
    /// Add a node to the meta group as a learner, without a vote
    Add(add::Options),
    /// Promote a learner to a voter
    Promote(promote::Options),
    /// Remove a member from the meta group
    Remove(remove::Options),
    /// Replace a member: add a node, promote it, and remove the old member
    Replace(replace::Options),
}

impl MetaMember {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        match self {
            Self::List(options) => list::run(options).await,
            Self::Add(options) => add::run(options).await,
            Self::Promote(options) => promote::run(options).await,
            Self::Remove(options) => remove::run(options).await,
            Self::Replace(options) => replace::run(options).await,
        }
    }
}

/// Prints the current members.
fn show(output: Output, members: &[v1::MetaMember]) -> Result<(), Failure> {
    let lines: Vec<MemberLine> = members.iter().map(MemberLine::from).collect();
    output::list(output, &lines)
}
