//! Lexer of conditions: words with their positions.

use super::{PredicateError, PredicateProblem};

/// A word of a condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Word {
    /// A keyword, a column, a number, a date.
    Bare(String),
    /// Text in single or double quotes.
    Text(String),
    /// A column name in backquotes.
    Column(String),
    /// `=`, `<=` and the like, `(`, `)`, `,`.
    Sign(&'static str),
}

/// A word, and the position of its first character, from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) word: Word,
    pub(super) position: usize,
}

/// Operators and punctuation with their meaning. Longer signs first: `<=` is not `<` and `=`.
const SIGNS: &[(&str, &str)] = &[
    ("==", "="),
    ("!=", "!="),
    ("<>", "!="),
    ("<=", "<="),
    (">=", ">="),
    ("=", "="),
    ("<", "<"),
    (">", ">"),
    ("(", "("),
    (")", ")"),
    (",", ","),
];

pub(super) fn tokens(text: &str) -> Result<Vec<Token>, PredicateError> {
    let characters: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(&first) = characters.get(at) {
        if first.is_whitespace() {
            at += 1;
            continue;
        }
        let position = at + 1;
        let (word, next) = match first {
            '"' | '\'' | '`' => {
                let (text, next) = quoted(&characters, at)?;
                (if first == '`' { Word::Column(text) } else { Word::Text(text) }, next)
            }
            _ => match sign(&characters[at..]) {
                Some((sign, length)) => (Word::Sign(sign), at + length),
                None => bare(&characters, at)?,
            },
        };
        tokens.push(Token { word, position });
        at = next;
    }
    Ok(tokens)
}

fn sign(rest: &[char]) -> Option<(&'static str, usize)> {
    SIGNS.iter().find_map(|(written, meant)| {
        let length = written.len();
        let fits = rest.len() >= length && written.chars().eq(rest[..length].iter().copied());
        fits.then_some((*meant, length))
    })
}

fn bare(characters: &[char], start: usize) -> Result<(Word, usize), PredicateError> {
    let belongs = |c: &char| c.is_alphanumeric() || matches!(c, '_' | '.' | '+' | '-' | ':');
    let length = characters[start..].iter().take_while(|c| belongs(c)).count();
    if length == 0 {
        let problem = PredicateProblem::Character(characters[start]);
        return Err(PredicateError { position: start + 1, problem });
    }
    let end = start + length;
    Ok((Word::Bare(characters[start..end].iter().collect()), end))
}

fn quoted(characters: &[char], start: usize) -> Result<(String, usize), PredicateError> {
    let quote = characters[start];
    let mut text = String::new();
    let mut at = start + 1;
    while let Some(&character) = characters.get(at) {
        if character != quote {
            text.push(character);
            at += 1;
        } else if characters.get(at + 1) == Some(&quote) {
            text.push(quote);
            at += 2;
        } else {
            return Ok((text, at + 1));
        }
    }
    Err(PredicateError { position: start + 1, problem: PredicateProblem::OpenQuote })
}
