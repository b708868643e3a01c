//! Delimiter of CSV cells: a character, `\t` or `tab`.

use std::fmt;
use std::str::FromStr;

/// Byte between two cells of a CSV record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delimiter(
    /// The byte.
    pub u8,
);

/// Reason why a text is not a delimiter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DelimiterError {
    /// The character has another meaning in CSV.
    #[error("a quote or a line end cannot be the delimiter (at character 1)")]
    Reserved,
    /// The text is not one ASCII character.
    #[error("expected one ASCII character, or `tab` (at character 1)")]
    Form,
}

impl Default for Delimiter {
    fn default() -> Self {
        Self(b',')
    }
}

impl FromStr for Delimiter {
    type Err = DelimiterError;

    fn from_str(text: &str) -> Result<Self, DelimiterError> {
        match text.as_bytes() {
            b"\\t" | b"tab" => Ok(Self(b'\t')),
            [b'"' | b'\'' | b'\r' | b'\n' | 0] => Err(DelimiterError::Reserved),
            [byte] => Ok(Self(*byte)),
            _ => Err(DelimiterError::Form),
        }
    }
}

impl fmt::Display for Delimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            b'\t' => f.write_str("tab"),
            byte => write!(f, "{}", char::from(byte)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delimiters_parse_as_character_or_name() {
        for (text, byte, shown) in
            [(",", b',', ","), (";", b';', ";"), ("\\t", b'\t', "tab"), ("tab", b'\t', "tab")]
        {
            let delimiter: Delimiter = text.parse().unwrap();
            assert_eq!((delimiter.0, delimiter.to_string().as_str()), (byte, shown), "{text}");
        }
        assert_eq!("\t".parse(), Ok(Delimiter(b'\t')));
        for text in ["", "ab", "\"", "'", "\n", "é", ", "] {
            assert!(text.parse::<Delimiter>().is_err(), "{text:?}");
        }
    }
}
