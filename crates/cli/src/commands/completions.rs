//! `completions SHELL`

use clap::{Args, Command};
use clap_complete::{Shell, generate};

use crate::exit::Failure;

/// Options of `completions`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tidewater completions bash > /etc/bash_completion.d/tidewater")]
pub(crate) struct Options {
    /// Shell to complete for
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the completion script of a shell for a command tree.
pub(crate) fn run(mut tree: Command, options: &Options) -> Result<(), Failure> {
    let mut script = Vec::new();
    generate(options.shell, &mut tree, "tidewater", &mut script);
    crate::output::line(String::from_utf8_lossy(&script).trim_end())
}
