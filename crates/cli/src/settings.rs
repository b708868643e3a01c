//! Settings from flags, environment variables and a TOML file, in this order of precedence; defaults
//! are last.
//!
//! A setting in the file becomes the default of the option of the same name. The command tree is
//! therefore the only definition of the options, their types and their help.
//!
//! ```toml
//! [data]
//! listen = "127.0.0.1:7411"
//! memory-limit = "2GiB"
//!
//! [client]
//! meta = ["127.0.0.1:7400"]
//! ```

mod file;

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use clap::{Command, Parser};

pub(crate) use self::file::SettingsFile;
use crate::exit::Failure;

/// Sections of commands that run a server; all other commands read `[client]`.
pub(crate) const ROLES: [&str; 4] = ["standalone", "meta", "data", "compactor"];

/// A parsed command line; `P` is the command tree.
pub(crate) enum Parsed<P> {
    Command(Box<P>),
    /// Help, the version, or a usage error to print.
    Message(clap::Error),
}

/// Parses the command line, with the environment and the settings file as defaults.
pub(crate) fn parse<P: Parser>(
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<Parsed<P>, Failure> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let file = config_path(&arguments, std::env::var_os("TIDEWATER_CONFIG_FILE"));
    let parsed = with_defaults(P::command(), file.as_deref())?
        .try_get_matches_from(arguments)
        .and_then(|matches| P::from_arg_matches(&matches));
    Ok(match parsed {
        Ok(parsed) => Parsed::Command(Box::new(parsed)),
        Err(message) => Parsed::Message(message),
    })
}

/// Returns a command tree with the settings of the file as defaults.
pub(crate) fn with_defaults(tree: Command, file: Option<&Path>) -> Result<Command, Failure> {
    match file {
        Some(path) => SettingsFile::read(path)?.set_defaults(tree),
        None => Ok(tree),
    }
}

/// Finds the path of the settings file, which must be known before the command line is parsed.
fn config_path(arguments: &[OsString], environment: Option<OsString>) -> Option<PathBuf> {
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        if argument == OsStr::new("--") {
            break;
        }
        if argument == OsStr::new("--config-file") {
            return arguments.next().map(PathBuf::from);
        }
        if let Some(path) = argument.to_str().and_then(|text| text.strip_prefix("--config-file=")) {
            return Some(PathBuf::from(path));
        }
    }
    environment.filter(|path| !path.is_empty()).map(PathBuf::from)
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
