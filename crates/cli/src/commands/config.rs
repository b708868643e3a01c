//! `config`

mod show;

use std::path::Path;

use clap::Subcommand;

use crate::exit::Failure;

/// The verbs of `config`.
#[derive(Debug, Subcommand)]
#[command(after_help = "Example:\n  tidewater config show data")]
pub(crate) enum Config {
    /// Print the settings of a command, and where each comes from
    Show(show::Options),
}

impl Config {
    pub(crate) fn run(self, file: Option<&Path>) -> Result<(), Failure> {
        match self {
            Self::Show(options) => show::run(options, file),
        }
    }
}
