//! Output of the commands.
//!
//! # Layout
//!
//! - [`rows`]: rows of a table as table, CSV, JSON or Parquet; [`mod@file`]: atomically written files.
//! - [`grid`]: rows in columns of text, as a stream.
//! - [`amount`]: sizes, durations and counts for people.
//! - [`terminal`]: control characters on a terminal.
//! - [`progress`]: progress of long operations, as a bar on a terminal, otherwise as plain lines.

pub(crate) mod amount;
pub(crate) mod file;
pub(crate) mod grid;
pub(crate) mod progress;
pub(crate) mod rows;
pub(crate) mod terminal;

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use self::terminal::printable;
use crate::exit::Failure;

/// Output format of lists and single values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Table,
    /// For scripts: the fields are stable.
    Json,
}

/// One line of a list. The JSON fields are those of its serialization.
pub(crate) trait Listed: Serialize {
    /// Headings of the columns.
    const HEADINGS: &'static [&'static str];
    /// Cells under the headings, in their order.
    fn cells(&self) -> Vec<String>;
}

/// Prints a line on stdout.
pub(crate) fn line(text: &str) -> Result<(), Failure> {
    let is_terminal = io::stdout().is_terminal();
    drawn(&if is_terminal { printable(text) } else { Cow::Borrowed(text) })
}

/// Prints a line on stdout with the control sequences that it contains: all other text in it must be
/// [`printable`].
pub(crate) fn drawn(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")
        .and_then(|()| out.flush())
        .map_err(|error| Failure::writing("the output", &error))
}

/// Serializes a value as JSON.
pub(crate) fn json<T: Serialize + ?Sized>(value: &T) -> Result<String, Failure> {
    serde_json::to_string(value)
        .map_err(|error| Failure::other(format!("cannot serialize the output as JSON: {error}")))
}

/// Prints a list.
pub(crate) fn list<T: Listed>(output: Output, items: &[T]) -> Result<(), Failure> {
    match output {
        Output::Json => line(&json(items)?),
        Output::Table => line(&table(T::HEADINGS, items.iter().map(Listed::cells))),
    }
}

/// Prints a single value as JSON or as text.
pub(crate) fn fact<T: Serialize>(
    output: Output,
    value: &T,
    text: impl FnOnce(&T) -> String,
) -> Result<(), Failure> {
    match output {
        Output::Json => line(&json(value)?),
        Output::Table => line(&text(value)),
    }
}

/// Formats rows of cells as columns of text under headings.
pub(crate) fn table(headings: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(headings.to_vec());
    for row in rows {
        table.add_row(row);
    }
    let text = table.to_string();
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

/// Parses bytes in hexadecimal.
///
/// # Errors
/// A text that is not pairs of hexadecimal digits.
pub(crate) fn unhex(text: &str) -> Result<bytes::Bytes, String> {
    let problem = || format!("{text:?} is no key: use pairs of hexadecimal digits, e.g. 8000ff");
    if text.is_empty()
        || !text.len().is_multiple_of(2)
        || !text.bytes().all(|byte| byte.is_ascii_hexdigit())
    {
        return Err(problem());
    }
    let pairs = (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16));
    pairs.collect::<Result<Vec<u8>, _>>().map(Into::into).map_err(|_| problem())
}

/// Formats bytes in hexadecimal, as for keys.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_formats_two_digits_per_byte() {
        assert_eq!(hex(&[0, 255, 16]), "00ff10");
    }

    #[test]
    fn table_prints_rows_under_their_headings() {
        let text = table(&["ID", "NAME"], [vec!["1".to_owned(), "flights".to_owned()]]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(lines[0].contains("ID") && lines[1].contains("flights"), "{text}");
    }
}
