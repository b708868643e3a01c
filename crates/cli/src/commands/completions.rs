//! `completions SHELL`

use clap::{Args, CommandFactory};
use clap_complete::{Shell, generate};

use crate::app::App;
use crate::exit::Failure;

/// Options of `completions`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tidewater completions bash > /etc/bash_completion.d/tidewater")]
pub(crate) struct Options {
    /// Shell to complete for
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the completion script of a shell.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let mut script = Vec::new();
    generate(options.shell, &mut App::command(), "tidewater", &mut script);
    crate::output::line(String::from_utf8_lossy(&script).trim_end())
}
