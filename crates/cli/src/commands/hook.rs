//! `hook`

mod add;
mod list;
mod pause;
mod remove;
mod resume;

use clap::Subcommand;
use serde::Serialize;

use crate::exit::Failure;

/// Subcommands of `hook`.
#[derive(Debug, Subcommand)]
#[command(after_help = "Example:\n  tidewater hook add audit --kind jsonl --config '{\"path\": \
                  \"/var/log/tidewater/audit.jsonl\"}'\n  tidewater hook list")]
pub(crate) enum Hook {
    /// Add a hook, which data nodes and compactors call
    Add(add::Options),
    /// List hooks and their status
    List(list::Options),
    /// Stop calling a hook until it is resumed
    Pause(pause::Options),
    /// Resume a paused hook
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

/// A hook and its new state. The JSON field names are stable.
#[derive(Debug, Serialize)]
struct HookChange {
    name: String,
    state: &'static str,
}
