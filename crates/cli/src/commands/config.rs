//! `config`

mod show;

use std::path::Path;

use clap::Subcommand;

use crate::exit::Failure;

/// Subcommands of `config`.
#[derive(Debug, Subcommand)]
#[command(after_help = "Example:\n  tidewater config show data")]
pub(crate) enum Config {
    /// Show the settings of a command and their sources
    Show(show::Options),
}

impl Config {
    pub(crate) fn run(self, file: Option<&Path>) -> Result<(), Failure> {
        match self {
            Self::Show(options) => show::run(options, file),
        }
    }
}
