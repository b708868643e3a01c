//! Delimiter of CSV cells: a character, `\t` or `tab`.

use std::fmt;
use std::str::FromStr;

use super::TextError;

/// Byte between two cells of a CSV record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Delimiter(pub(crate) u8);

impl Default for Delimiter {
    fn default() -> Self {
        Self(b',')
    }
}

impl FromStr for Delimiter {
    type Err = TextError;

    fn from_str(text: &str) -> Result<Self, TextError> {
        match text.as_bytes() {
            b"\\t" | b"tab" => Ok(Self(b'\t')),
            [b'"' | b'\'' | b'\r' | b'\n' | 0] => {
                Err(TextError::new(1, "a quote or a line end cannot be the delimiter"))
            }
            [byte] => Ok(Self(*byte)),
            _ => Err(TextError::new(1, "expected one ASCII character, or `tab`")),
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
