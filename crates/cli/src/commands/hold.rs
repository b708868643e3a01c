//! `hold`
//!
//! - `held_line`: a hold, for output, and its lease.
//! - `named`: holds that a command names, and its failure if they do not exist.

mod acquire;
mod downgrade;
mod held_line;
pub(crate) mod list;
mod named;
mod release;
mod renew;

use clap::Subcommand;

pub(crate) use self::held_line::has_lease;
use crate::exit::Failure;

/// Subcommands of `hold`.
#[derive(Debug, Subcommand)]
#[command(
    after_help = "Example:\n  tidewater hold acquire nightly flights airlines --lease 6h\n  tidewater hold list\n  tidewater hold \
                  release nightly\n\nA hold keeps its tables readable as of its epoch and all later ones, until it is released \
                  or its lease expires. Until then, no versions of rows from that epoch on are dropped, and its tables can be \
                  neither truncated nor dropped."
)]
pub(crate) enum Hold {
    /// Acquire a hold of tables
    Acquire(acquire::Options),
    /// List holds
    List(list::Options),
    /// Extend the leases of holds
    Renew(renew::Options),
    /// Move a hold to a later epoch
    Downgrade(downgrade::Options),
    /// Release holds
    Release(release::Options),
}

impl Hold {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        match self {
            Self::Acquire(options) => acquire::run(options).await,
            Self::List(options) => list::run(options).await,
            Self::Renew(options) => renew::run(options).await,
            Self::Downgrade(options) => downgrade::run(options).await,
            Self::Release(options) => release::run(options).await,
        }
    }
}
