//! Tokenizer: words, quoted texts and signs with their positions.

use super::TextError;

/// A token of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Token {
    /// A name, a keyword or a number, unchanged.
    Word(String),
    /// Text between quotes, with doubled quotes replaced by single ones.
    Quoted(String),
    /// `,`, `(`, `)`, `=`, `!=`, `<`, `<=`, `>`, `>=`.
    Sign(&'static str),
}

/// A token and its position in characters, from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PositionedToken {
    pub(crate) token: Token,
    pub(crate) position: usize,
}

const SIGNS: [&str; 10] = ["!=", "<>", "<=", ">=", "=", "<", ">", "(", ")", ","];

/// Splits `text` into tokens.
pub(crate) fn tokens(text: &str) -> Result<Vec<PositionedToken>, TextError> {
    let mut found = Vec::new();
    let mut rest = text;
    let mut position = 1;
    while let Some(first) = rest.chars().next() {
        let length = if first.is_whitespace() {
            first.len_utf8()
        } else if first == '"' || first == '\'' {
            let (value, length) = quoted(rest, first).ok_or_else(|| {
                TextError::new(position, format!("the quote {first} is not closed"))
            })?;
            found.push(PositionedToken { token: Token::Quoted(value), position });
            length
        } else if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            let token = Token::Sign(if *sign == "<>" { "!=" } else { sign });
            found.push(PositionedToken { token, position });
            sign.len()
        } else {
            let length = rest.find(ends_word).unwrap_or(rest.len());
            let word = rest[..length].to_owned();
            if word.is_empty() {
                return Err(TextError::new(position, format!("unexpected `{first}`")));
            }
            found.push(PositionedToken { token: Token::Word(word), position });
            length
        };
        position += rest[..length].chars().count();
        rest = &rest[length..];
    }
    Ok(found)
}

fn ends_word(c: char) -> bool {
    c.is_whitespace() || matches!(c, '"' | '\'' | ',' | '(' | ')' | '=' | '<' | '>' | '!')
}

/// Returns the value of the quoted text at the start of `rest`, and its length in bytes.
fn quoted(rest: &str, quote: char) -> Option<(String, usize)> {
    let mut value = String::new();
    let mut chars = rest.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if c != quote {
            value.push(c);
        } else if chars.peek().is_some_and(|(_, next)| *next == quote) {
            value.push(quote);
            chars.next();
        } else {
            return Some((value, at + quote.len_utf8()));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_report_their_positions() {
        let found = tokens("é >= 'it''s' , \"a b\"").unwrap();
        let expected = [
            (Token::Word("é".into()), 1),
            (Token::Sign(">="), 3),
            (Token::Quoted("it's".into()), 6),
            (Token::Sign(","), 14),
            (Token::Quoted("a b".into()), 16),
        ];
        assert_eq!(found.len(), expected.len());
        for (found, (token, position)) in found.into_iter().zip(expected) {
            assert_eq!(found, PositionedToken { token, position });
        }
    }

    #[test]
    fn unclosed_quote_and_stray_sign_are_rejected() {
        assert_eq!(tokens("a = 'x").unwrap_err().position, 5);
        assert_eq!(tokens("a ! b").unwrap_err().position, 3);
        assert_eq!(tokens("").unwrap(), Vec::new());
    }
}
