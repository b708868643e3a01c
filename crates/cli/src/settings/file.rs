//! Settings file in TOML: sections with settings named like the options.

use std::collections::BTreeMap;
use std::path::Path;

use clap::Command;
use config::{Config, File, FileFormat, Value, ValueKind};
use tidewater_common::file::{FileError, read_text};

use super::ROLES;
use crate::exit::{Exit, Failure};

/// Maximum size of a settings file in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// Settings by section and name.
#[derive(Debug)]
pub(crate) struct SettingsFile {
    name: String,
    sections: BTreeMap<String, BTreeMap<String, Vec<String>>>,
}

impl SettingsFile {
    /// Reads a file and checks its structure.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let name = path.display().to_string();
        let text = read_text(path, MAX_BYTES).map_err(|error| {
            let exit = match &error {
                FileError::TooLarge { .. } | FileError::NotText { .. } => Exit::Usage,
                error if error.is_not_found() => Exit::NotFound,
                _ => Exit::Other,
            };
            let problem = match error {
                FileError::Io { source, .. } => source.to_string(),
                error => error.to_string(),
            };
            Failure::new(exit, format!("{name}: cannot read the settings: {problem}"))
        })?;
        Self::parse(&name, &text)
    }

    fn parse(name: &str, text: &str) -> Result<Self, Failure> {
        let bad = |problem: String| Failure::usage(format!("{name}: {problem}"));
        let parsed = Config::builder()
            .add_source(File::from_str(text, FileFormat::Toml))
            .build()
            .map_err(|error| bad(format!("not valid TOML: {error}")))?;
        let ValueKind::Table(table) = parsed.cache.kind else {
            return Err(bad("not a table of sections".to_owned()));
        };
        let mut sections = BTreeMap::new();
        for (section, value) in table {
            if !ROLES.contains(&section.as_str()) && section != "client" {
                return Err(bad(format!(
                    "unknown section [{section}]: sections are {} and client",
                    ROLES.join(", ")
                )));
            }
            let ValueKind::Table(entries) = value.kind else {
                return Err(bad(format!("`{section}` must be a section: [{section}]")));
            };
            let mut settings = BTreeMap::new();
            for (key, value) in entries {
                let texts = texts(value).ok_or_else(|| {
                    bad(format!(
                        "[{section}] {key}: must be a text, a number, true, false or a list of them"
                    ))
                })?;
                settings.insert(key, texts);
            }
            sections.insert(section, settings);
        }
        Ok(Self { name: name.to_owned(), sections })
    }

    /// Returns true if the file sets this option of a section.
    pub(crate) fn sets(&self, section: &str, option: &str) -> bool {
        self.sections
            .get(section)
            .is_some_and(|settings| settings.keys().any(|key| same_name(key, option)))
    }

    /// Sets the settings of the file as defaults of the options.
    pub(crate) fn set_defaults(&self, mut command: Command) -> Result<Command, Failure> {
        for (section, settings) in &self.sections {
            for (key, values) in settings {
                let mut known = false;
                if section == "client" {
                    let names: Vec<String> = command
                        .get_subcommands()
                        .map(|command| command.get_name().to_owned())
                        .filter(|name| !ROLES.contains(&name.as_str()))
                        .collect();
                    for name in names {
                        command = command.mut_subcommand(name, |command| {
                            set_recursively(command, key, values, &mut known)
                        });
                    }
                } else {
                    command = command
                        .mut_subcommand(section, |command| set(command, key, values, &mut known));
                }
                if !known {
                    return Err(Failure::usage(format!(
                        "{}: unknown setting `{key}` in [{section}]: settings are named like the \
                         options of the command, see `tidewater {} --help`",
                        self.name,
                        if section == "client" { "table list" } else { section }
                    )));
                }
            }
        }
        Ok(command)
    }
}

fn texts(value: Value) -> Option<Vec<String>> {
    match value.kind {
        ValueKind::Array(values) => {
            let lists: Option<Vec<Vec<String>>> = values.into_iter().map(texts).collect();
            Some(lists?.into_iter().flatten().collect())
        }
        ValueKind::Table(_) | ValueKind::Nil => None,
        other => Some(vec![other.to_string()]),
    }
}

/// Compares names. Settings may use hyphens, as in options, or underscores, as usual in TOML.
fn same_name(key: &str, option: &str) -> bool {
    key.replace('_', "-") == option.replace('_', "-")
}

fn set_recursively(
    mut command: Command,
    key: &str,
    values: &[String],
    known: &mut bool,
) -> Command {
    let names: Vec<String> =
        command.get_subcommands().map(|command| command.get_name().to_owned()).collect();
    for name in names {
        command =
            command.mut_subcommand(name, |command| set_recursively(command, key, values, known));
    }
    set(command, key, values, known)
}

fn set(command: Command, key: &str, values: &[String], known: &mut bool) -> Command {
    let id = command
        .get_arguments()
        .find(|argument| argument.get_long().is_some_and(|long| same_name(key, long)))
        .map(|argument| argument.get_id().clone());
    let Some(id) = id else { return command };
    *known = true;
    // The command tree lives as long as the process, so leaking its defaults is fine.
    let values: Vec<&'static str> =
        values.iter().map(|value| &*Box::leak(value.clone().into_boxed_str())).collect();
    command.mut_arg(id, |argument| argument.required(false).default_values(values))
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
