//! `hook`

mod add;
mod list;
mod pause;
mod remove;
mod resume;

use clap::Subcommand;
use serde::Serialize;

use crate::exit::Failure;

/// The verbs of `hook`.
#[derive(Debug, Subcommand)]
#[command(after_help = "Example:\n  tidewater hook add audit --kind jsonl --config '{\"path\": \
                  \"/var/log/tidewater/audit.jsonl\"}'\n  tidewater hook list")]
pub(crate) enum Hook {
    /// Have every data node, and every compactor, call a hook
    Add(add::Options),
    /// List the hooks and how they do
    List(list::Options),
    /// Leave a hook out until it is resumed
    Pause(pause::Options),
    /// Call a paused hook again
    Resume(resume::Options),
    /// Remove a hook
    Remove(remove::Options),
}

impl Hook {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        match self {
            Self::Add(options) => add::run(options).await,
            Self::List(options) => list::run(options).await,
            Self::Pause(options) => pause::run(options).await,
            Self::Resume(options) => resume::run(options).await,
            Self::Remove(options) => remove::run(options).await,
        }
    }
}

/// A hook and what became of it.
#[derive(Debug, Serialize)]
struct Changed {
    name: String,
    state: &'static str,
}
