//! Distribution of the rows of a table: `range`, or `hash(column, ...)`.

use std::str::FromStr;

use super::TextError;
use super::tokens::{PositionedToken, Token, tokens};

/// Distribution of rows by ranges of the row key, or by a hash of some of its columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Distribution {
    Range,
    Hash(Vec<String>),
}

impl FromStr for Distribution {
    type Err = TextError;

    fn from_str(text: &str) -> Result<Self, TextError> {
        let found = tokens(text)?;
        let words: Vec<(&Token, usize)> =
            found.iter().map(|PositionedToken { token, position }| (token, *position)).collect();
        match words.as_slice() {
            [(Token::Word(word), _)] if word.eq_ignore_ascii_case("range") => Ok(Self::Range),
            [
                (Token::Word(word), _),
                (Token::Sign("("), _),
                columns @ ..,
                (Token::Sign(")"), end),
            ] if word.eq_ignore_ascii_case("hash") => hash_columns(columns, *end).map(Self::Hash),
            _ => Err(TextError::new(
                words.first().map_or(1, |(_, position)| *position),
                "expected `range` or `hash(column, ...)`",
            )),
        }
    }
}

fn hash_columns(found: &[(&Token, usize)], end: usize) -> Result<Vec<String>, TextError> {
    let mut columns = Vec::new();
    for (number, (token, position)) in found.iter().enumerate() {
        match (number % 2, token) {
            (0, Token::Word(name) | Token::Quoted(name)) => columns.push(name.clone()),
            (1, Token::Sign(",")) => {}
            (0, _) => return Err(TextError::new(*position, "expected the name of a column")),
            _ => return Err(TextError::new(*position, "expected `,` or `)`")),
        }
    }
    if found.len().is_multiple_of(2) {
        return Err(TextError::new(end, "expected the name of a column"));
    }
    Ok(columns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn range_and_hash_distributions_parse() {
        assert_eq!("range".parse(), Ok(Distribution::Range));
        assert_eq!("hash(a)".parse(), Ok(Distribution::Hash(vec!["a".into()])));
        assert_eq!(
            "HASH( a , \"b c\" )".parse(),
            Ok(Distribution::Hash(vec!["a".into(), "b c".into()]))
        );
    }

    #[test]
    fn invalid_distributions_report_the_error_position() {
        for (text, position) in [
            ("", 1),
            ("list(a)", 1),
            ("hash()", 6),
            ("hash(a,)", 8),
            ("hash(a b)", 8),
            ("hash(,)", 6),
            ("hash(a", 1),
        ] {
            assert_eq!(text.parse::<Distribution>().unwrap_err().position, position, "{text}");
        }
    }
}
