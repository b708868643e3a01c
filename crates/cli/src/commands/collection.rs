//! `collection`
//!
//! - `policy_text`: text of a read policy.

pub(crate) mod capabilities;
pub(crate) mod list;
mod policy;
pub(crate) mod policy_text;

use clap::Subcommand;

use crate::exit::Failure;

/// Subcommands of `collection`.
#[derive(Debug, Subcommand)]
#[command(
    after_help = "Example:\n  tidewater collection list\n  tidewater collection policy flights --lag 24h\n\nA table can be read as \
                  of its epochs from `since` on and before `upper`. Its read policy, its holds and its capabilities keep `since` back."
)]
pub(crate) enum Collection {
    /// List which epochs of tables can be read, and what keeps them
    List(list::Options),
    /// Set which epochs of a table remain readable
    Policy(policy::Options),
    /// Add and take away capabilities, by which programs keep epochs of a table readable
    Capabilities(capabilities::Options),
}

impl Collection {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        match self {
            Self::List(options) => list::run(options).await,
            Self::Policy(options) => policy::run(options).await,
            Self::Capabilities(options) => capabilities::run(options).await,
        }
    }
}
