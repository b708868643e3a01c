//! `config`

mod show;

use std::path::Path;

use clap::{Command, Subcommand};

use crate::exit::Failure;

/// Subcommands of `config`.
#[derive(Debug, Subcommand)]
#[command(after_help = "Example:\n  tidewater config show data")]
pub(crate) enum Config {
    /// Show the settings of a command and their sources
    Show(show::Options),
}

impl Config {
    /// Runs a subcommand on the command tree and the settings file.
    pub(crate) fn run(self, tree: Command, file: Option<&Path>) -> Result<(), Failure> {
        match self {
            Self::Show(options) => show::run(tree, options, file),
        }
    }
}
