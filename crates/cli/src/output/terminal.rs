//! Text for a terminal: control characters of rows, names and servers are shown, not executed. A row
//! could otherwise clear the screen, change the title of the window, or hide other rows.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};

/// Prints a line on stderr.
pub(crate) fn note(text: &str) {
    if io::stderr().is_terminal() {
        eprintln!("{}", printable(text));
    } else {
        eprintln!("{text}");
    }
}

/// Returns a text whose control characters, except line breaks and tabs, and whose characters that
/// reverse the direction of text are escaped.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if is_hidden(character) {
            // Writing to a string does not fail.
            let _ = write!(shown, "{}", character.escape_default());
        } else {
            shown.push(character);
        }
    }
    Cow::Owned(shown)
}

fn is_hidden(character: char) -> bool {
    match character {
        '\n' | '\t' => false,
        '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => true,
        character => character.is_control(),
    }
}

/// Writer to a terminal that writes [`printable`] text. A character may be split between two writes.
pub(crate) struct PrintableWriter<W> {
    out: W,
    /// Start of a character whose end has not been written yet; at most three bytes.
    partial: Vec<u8>,
}

impl<W: Write> PrintableWriter<W> {
    pub(crate) fn new(out: W) -> Self {
        Self { out, partial: Vec::new() }
    }
}

impl<W: Write> Write for PrintableWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.partial.extend_from_slice(bytes);
        let pending = std::mem::take(&mut self.partial);
        for chunk in pending.utf8_chunks() {
            self.out.write_all(printable(chunk.valid()).as_bytes())?;
            let invalid = chunk.invalid();
            let at_end = pending.ends_with(invalid);
            if at_end && is_start_of_character(invalid) {
                self.partial = invalid.to_vec();
            } else if !invalid.is_empty() {
                self.out.write_all("\u{fffd}".as_bytes())?;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Returns whether further bytes may complete a character.
fn is_start_of_character(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        for (text, expected) in [
            ("plain, Flüge, 日本\n\tx", "plain, Flüge, 日本\n\tx"),
            ("\u{1b}[2J", "\\u{1b}[2J"),
            ("\u{1b}]0;title\u{7}", "\\u{1b}]0;title\\u{7}"),
            ("a\rb\u{9b}1m\u{7f}", "a\\rb\\u{9b}1m\\u{7f}"),
            ("\u{202e}cba", "\\u{202e}cba"),
        ] {
            assert_eq!(printable(text), expected);
        }
    }

    #[test]
    fn characters_split_between_writes_stay_whole() {
        let text = "é\u{1b}[1m日本\u{9b}x";
        let expected = printable(text).into_owned();
        for size in 1..text.len() {
            let mut writer = PrintableWriter::new(Vec::new());
            for part in text.as_bytes().chunks(size) {
                writer.write_all(part).unwrap();
            }
            assert_eq!(String::from_utf8(writer.out).unwrap(), expected, "{size}");
        }
        let mut writer = PrintableWriter::new(Vec::new());
        writer.write_all(b"a\xffb\xc3").unwrap();
        writer.write_all(b"c").unwrap();
        assert_eq!(String::from_utf8(writer.out).unwrap(), "a\u{fffd}b\u{fffd}c");
    }
}
