//! Input in messages: shortened, and without control characters. An error that repeats a name of
//! 10,000 bytes does not fit into the trailers of a response, so that its caller never receives it.

use std::borrow::Cow;
use std::fmt;

/// Characters of an input that a message repeats.
pub const MAX_QUOTED_CHARS: usize = 100;

/// Returns the first [`MAX_QUOTED_CHARS`] characters of a text, followed by `...` if there are more.
pub fn cut(text: &str) -> Cow<'_, str> {
    cut_at(text, MAX_QUOTED_CHARS)
}

/// Returns the first `most` characters of a text, followed by `...` if there are more.
pub fn cut_at(text: &str, most: usize) -> Cow<'_, str> {
    match text.char_indices().nth(most) {
        Some((end, _)) => Cow::Owned(format!("{}...", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

/// Returns a text as a message quotes it: in double quotes, control characters escaped, at most
/// [`MAX_QUOTED_CHARS`] characters of it.
pub fn quoted(text: &str) -> Quoted<'_> {
    Quoted(text)
}

/// See [`quoted`].
#[derive(Debug, Clone, Copy)]
pub struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", cut(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_input_is_cut_at_a_hundred_characters() {
        for (text, expected) in [
            (String::new(), "\"\"".to_owned()),
            ("t".to_owned(), "\"t\"".to_owned()),
            ("a\"\u{1b}[2J".to_owned(), "\"a\\\"\\u{1b}[2J\"".to_owned()),
            ("é".repeat(100), format!("\"{}\"", "é".repeat(100))),
            ("é".repeat(10_000), format!("\"{}...\"", "é".repeat(100))),
        ] {
            assert_eq!(quoted(&text).to_string(), expected);
        }
        assert_eq!(cut_at("abc", 2), "ab...");
    }
}
