//! `completions SHELL`, and the calls of the printed scripts: the shell passes the words of the command
//! line, and the command returns the candidates for the current word.

mod bash;
mod candidates;
mod values;

use std::ffi::OsString;

use clap::{Args, Command};
use clap_complete::Shell;
use clap_complete::env::{CompleteEnv, Elvish, EnvCompleter, Fish, Powershell, Shells, Zsh};

use self::bash::JoinedBash;
use crate::exit::Failure;

/// Environment variable with which the scripts ask for candidates.
pub(crate) const VARIABLE: &str = "TIDEWATER_COMPLETE";

/// Name of the command in the scripts, which find it on the `PATH`.
const BINARY: &str = "tidewater";

const SHELLS: Shells<'static> = Shells(&[&JoinedBash, &Elvish, &Fish, &Powershell, &Zsh]);

/// Options of `completions`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  tidewater completions bash > /etc/bash_completion.d/tidewater\n  \
                        tidewater completions fish > ~/.config/fish/completions/tidewater.fish\n  source \
                        <(tidewater completions zsh)\n\nThe scripts call `tidewater` for each \
                        completion, also for the names of tables, hooks and holds and the ids of regions. These \
                        come from the cluster of --meta, TIDEWATER_META or the settings file; without an \
                        answer within 1 s there are none. Print the script again after an upgrade."
)]
pub(crate) struct Options {
    /// Shell to complete for
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the completion script of a shell.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let shell: &dyn EnvCompleter = match options.shell {
        Shell::Elvish => &Elvish,
        Shell::Fish => &Fish,
        Shell::PowerShell => &Powershell,
        Shell::Zsh => &Zsh,
        _ => &JoinedBash,
    };
    let mut script = Vec::new();
    shell
        .write_registration(VARIABLE, BINARY, BINARY, BINARY, &mut script)
        .map_err(|error| Failure::writing("the script", &error))?;
    crate::output::line(String::from_utf8_lossy(&script).trim())
}

/// Prints the candidates if a completion script runs the command; returns false otherwise. `tree`
/// returns the command tree for the words of the command line.
pub(crate) fn complete(
    arguments: &[OsString],
    tree: impl Fn(&[OsString]) -> Command,
) -> Result<bool, Failure> {
    let words = words(arguments);
    CompleteEnv::with_factory(|| values::with_candidates(tree(&words), &words))
        .var(VARIABLE)
        .shells(SHELLS)
        .try_complete(arguments.to_vec(), std::env::current_dir().ok().as_deref())
        .map_err(|error| Failure::other(format!("cannot complete the command line: {error}")))
}

/// Returns the words of the command line to complete: they follow the first `--`.
fn words(arguments: &[OsString]) -> Vec<OsString> {
    let words: Vec<OsString> =
        arguments.iter().skip_while(|argument| *argument != "--").skip(1).cloned().collect();
    bash::join(&words, words.len()).0
}
