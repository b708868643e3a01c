//! `config show ROLE [OPTIONS]`

use std::ffi::OsString;
use std::path::Path;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command};
use serde::Serialize;

use crate::exit::Failure;
use crate::output::{Listed, Output, list};
use crate::settings::{self, ROLES, SettingsFile};

/// Options of `config show`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tidewater config show data --config-file tidewater.toml\n  \
                        tidewater config show data -- --memory-limit 1GiB")]
pub(crate) struct Options {
    /// Role whose settings to show, or client
    #[arg(value_parser = ["standalone", "meta", "data", "compactor", "client"])]
    role: String,

    /// Output format
    #[arg(long, env = "TIDEWATER_OUTPUT", value_enum, default_value = "table")]
    output: Output,

    /// Options to apply, as on the command line of the role
    #[arg(last = true, value_name = "OPTIONS")]
    options: Vec<OsString>,
}

/// One setting. The JSON field names are stable.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Setting {
    name: String,
    value: Option<String>,
    source: &'static str,
}

impl Listed for Setting {
    const HEADINGS: &'static [&'static str] = &["SETTING", "VALUE", "FROM"];

    fn cells(&self) -> Vec<String> {
        let value = self.value.clone().unwrap_or_else(|| "-".to_owned());
        vec![self.name.clone(), value, self.source.to_owned()]
    }
}

/// Prints the settings that a command of `tree` would run with.
pub(crate) fn run(tree: Command, options: Options, file: Option<&Path>) -> Result<(), Failure> {
    let settings = settings(tree, &options.role, options.options, file)?;
    list(options.output, &settings)
}

fn settings(
    tree: Command,
    role: &str,
    options: Vec<OsString>,
    file: Option<&Path>,
) -> Result<Vec<Setting>, Failure> {
    let tree = settings::with_defaults(tree, file)?;
    let file = file.map(SettingsFile::read).transpose()?;
    // All client commands share the same settings: any of them will do.
    let path: &[&str] = if ROLES.contains(&role) { &[role] } else { &["table", "list"] };
    let mut command = &tree;
    for name in path {
        command = command
            .find_subcommand(name)
            .ok_or_else(|| Failure::other(format!("there is no command `{name}`")))?;
    }
    let command = optional(command.clone());
    let arguments = [OsString::from(role)].into_iter().chain(options);
    let matches = command
        .clone()
        .try_get_matches_from(arguments)
        .map_err(|error| Failure::usage(error.to_string()))?;
    Ok(command
        .get_arguments()
        .filter_map(|argument| Some((argument.get_id().as_str(), argument.get_long()?)))
        .filter(|(id, _)| !matches!(*id, "help" | "version" | "config"))
        .map(|(id, long)| Setting {
            name: long.to_owned(),
            value: value(&matches, id),
            source: match matches.value_source(id) {
                Some(ValueSource::CommandLine) => "option",
                Some(ValueSource::EnvVariable) => "environment",
                _ if file.as_ref().is_some_and(|file| file.sets(role, long)) => "file",
                Some(_) => "default",
                None => "-",
            },
        })
        .collect())
}

/// Makes all arguments optional: the command does not run.
fn optional(command: Command) -> Command {
    let ids: Vec<_> = command.get_arguments().map(|argument| argument.get_id().clone()).collect();
    ids.into_iter()
        .fold(command, |command, id| command.mut_arg(id, |argument| argument.required(false)))
}

fn value(matches: &ArgMatches, id: &str) -> Option<String> {
    let raw = matches.try_get_raw(id).ok().flatten()?;
    let values: Vec<String> = raw.map(|value| value.to_string_lossy().into_owned()).collect();
    Some(values.join(","))
}

#[cfg(test)]
#[path = "show_tests.rs"]
mod tests;
