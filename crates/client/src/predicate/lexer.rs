//! Lexer of conditions: splits the text into tokens with their positions.

use super::{PredicateError, PredicateProblem};

/// A lexical element of a condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Word {
    /// An unquoted keyword, column, number or date.
    Bare(String),
    /// Text in single or double quotes: a value or a column.
    Text(String),
    /// A column in backquotes.
    Column(String),
    /// A comparison operator, a parenthesis or a comma, in canonical spelling.
    Sign(&'static str),
}

/// A word with the position of its first character, from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) word: Word,
    pub(super) position: usize,
}

/// Signs as written, with their canonical spelling. Longer signs come first, so that `<=` is not read as
/// `<` and `=`.
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
    SIGNS.iter().find_map(|(written, canonical)| {
        let length = written.len();
        let fits = rest.len() >= length && written.chars().eq(rest[..length].iter().copied());
        fits.then_some((*canonical, length))
    })
}

fn bare(characters: &[char], start: usize) -> Result<(Word, usize), PredicateError> {
    let is_word = |character: &char| {
        character.is_alphanumeric() || matches!(character, '_' | '.' | '+' | '-' | ':')
    };
    let length = characters[start..].iter().take_while(|character| is_word(character)).count();
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
