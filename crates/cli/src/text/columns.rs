//! Column definitions: `origin utf8, flight int64 not null, price decimal128(10, 2) default 1.50`.

use std::collections::HashSet;
use std::str::FromStr;

use tidewater_client::admin::NewColumn;
use tidewater_common::schema::ColumnType;

use super::TextError;
use super::tokens::{PositionedToken, Token, tokens};

/// One or more columns, in order, with unique names and canonical type names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ColumnSpecs(pub(crate) Vec<NewColumn>);

impl FromStr for ColumnSpecs {
    type Err = TextError;

    fn from_str(text: &str) -> Result<Self, TextError> {
        let found = tokens(text)?;
        let mut columns: Vec<NewColumn> = Vec::new();
        let mut names = HashSet::new();
        let end = text.chars().count() + 1;
        for part in split_at_commas(&found) {
            let column = one_column(part, end)?;
            if !names.insert(column.name.clone()) {
                let position = part.first().map_or(end, |placed| placed.position);
                let message = format!("column `{}` occurs twice", column.name);
                return Err(TextError::new(position, message));
            }
            columns.push(column);
        }
        Ok(Self(columns))
    }
}

/// Splits at commas outside parentheses.
fn split_at_commas(found: &[PositionedToken]) -> Vec<&[PositionedToken]> {
    let mut depth = 0_usize;
    found
        .split(|placed| {
            match placed.token {
                Token::Sign("(") => depth += 1,
                Token::Sign(")") => depth = depth.saturating_sub(1),
                _ => {}
            }
            depth == 0 && placed.token == Token::Sign(",")
        })
        .collect()
}

fn one_column(part: &[PositionedToken], end: usize) -> Result<NewColumn, TextError> {
    let [first, rest @ ..] = part else {
        return Err(TextError::new(end, "expected a column: a name and a type"));
    };
    let (Token::Word(name) | Token::Quoted(name)) = &first.token else {
        return Err(TextError::new(first.position, "expected the name of a column"));
    };
    let type_length = type_length(rest);
    let (type_tokens, options) = rest.split_at(type_length);
    let Some(type_start) = type_tokens.first() else {
        let position = rest.first().map_or(end, |placed| placed.position);
        return Err(TextError::new(position, format!("expected the type of column `{name}`")));
    };
    let type_text = joined(type_tokens);
    let data_type = type_text.parse::<ColumnType>().map_err(|_| {
        let message = format!("`{type_text}` is not a type; types are {}", ColumnType::ALL);
        TextError::new(type_start.position, message)
    })?;
    let (options, default) = default(options, &data_type)?;
    let nullable = nullable(options)?;
    Ok(NewColumn { name: name.clone(), data_type: data_type.to_string(), nullable, default })
}

/// Number of tokens of the type: a word and its arguments in parentheses.
fn type_length(rest: &[PositionedToken]) -> usize {
    match rest {
        [
            PositionedToken { token: Token::Word(_), .. },
            PositionedToken { token: Token::Sign("("), .. },
            ..,
        ] => rest
            .iter()
            .position(|placed| placed.token == Token::Sign(")"))
            .map_or(rest.len(), |at| at + 1),
        [PositionedToken { token: Token::Word(_), .. }, ..] => 1,
        _ => 0,
    }
}

fn joined(found: &[PositionedToken]) -> String {
    let mut text = String::new();
    for placed in found {
        match &placed.token {
            Token::Word(word) | Token::Quoted(word) => text.push_str(word),
            Token::Sign(",") => text.push_str(", "),
            Token::Sign(sign) => text.push_str(sign),
        }
    }
    text
}

/// Splits `default VALUE` off the end.
fn default<'a>(
    options: &'a [PositionedToken],
    data_type: &ColumnType,
) -> Result<(&'a [PositionedToken], Option<String>), TextError> {
    let is_default = |placed: &PositionedToken| match &placed.token {
        Token::Word(word) => word.eq_ignore_ascii_case("default"),
        Token::Quoted(_) | Token::Sign(_) => false,
    };
    let Some(at) = options.iter().position(is_default) else { return Ok((options, None)) };
    let [value] = &options[at + 1..] else {
        return Err(TextError::new(options[at].position, "expected one value after `default`"));
    };
    let (Token::Word(text) | Token::Quoted(text)) = &value.token else {
        return Err(TextError::new(value.position, "expected a value after `default`"));
    };
    match data_type.constant(text) {
        Ok(_) => Ok((&options[..at], Some(text.clone()))),
        Err(error) => Err(TextError::new(value.position, error.to_string())),
    }
}

fn nullable(options: &[PositionedToken]) -> Result<bool, TextError> {
    let words: Vec<String> = options
        .iter()
        .map(|placed| match &placed.token {
            Token::Word(word) => word.to_ascii_lowercase(),
            Token::Quoted(_) | Token::Sign(_) => String::new(),
        })
        .collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] | ["null"] => Ok(true),
        ["not", "null"] => Ok(false),
        _ => Err(TextError::new(
            options.first().map_or(1, |placed| placed.position),
            "expected `not null`, `null`, `default VALUE`, or a comma and the next column",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str, data_type: &str, nullable: bool) -> NewColumn {
        NewColumn::new(name, data_type, nullable)
    }

    #[test]
    fn column_defaults_must_match_the_column_type() {
        let parsed: ColumnSpecs =
            "a int8 not null default -7, b utf8 default 'it''s', c bool null default true"
                .parse()
                .unwrap();
        let defaults: Vec<Option<&str>> =
            parsed.0.iter().map(|column| column.default.as_deref()).collect();
        assert_eq!(defaults, [Some("-7"), Some("it's"), Some("true")]);
        assert_eq!(parsed.0.iter().map(|c| c.nullable).collect::<Vec<_>>(), [false, true, true]);
        for (text, position) in [
            ("a int8 default", 8),
            ("a int8 default 128", 16),
            ("a int8 default 1 not null", 8),
            ("a int8 default (", 16),
        ] {
            let error = text.parse::<ColumnSpecs>().unwrap_err();
            assert_eq!(error.position, position, "{error}");
        }
    }

    #[test]
    fn column_names_types_and_nullability_parse() {
        let parsed: ColumnSpecs =
            "origin utf8, flight int64 not null, price decimal128(10, 2),\n \"a b\" binary null"
                .parse()
                .unwrap();
        assert_eq!(
            parsed.0,
            [
                spec("origin", "utf8", true),
                spec("flight", "int64", false),
                spec("price", "decimal128(10, 2)", true),
                spec("a b", "binary", true),
            ]
        );
    }

    #[test]
    fn column_types_accept_arguments() {
        for text in ["int64", "timestamp(s)", "timestamp(ms, UTC)", "decimal128(38, 10)"] {
            let parsed: ColumnSpecs = format!("c {text}").parse().unwrap();
            assert_eq!(parsed.0, [spec("c", text, true)], "{text}");
        }
    }

    #[test]
    fn column_errors_report_their_position() {
        for (text, position, part) in [
            ("", 1, "expected a column"),
            ("a utf8,", 8, "expected a column"),
            ("a", 2, "type of column `a`"),
            ("a utf8, b, c utf8", 18, "type of column `b`"),
            ("a text", 3, "`text` is not a type"),
            ("a utf8, b varchar(20)", 11, "`varchar(20)` is not a type"),
            ("a utf8, a int64", 9, "twice"),
            ("a utf8 primary key", 8, "expected `not null`"),
            ("a utf8 not nul", 8, "expected `not null`"),
            ("= utf8", 1, "name of a column"),
        ] {
            let error = text.parse::<ColumnSpecs>().unwrap_err();
            assert!(error.message.contains(part), "{text}: {error}");
            assert_eq!(error.position, position, "{text}: {error}");
        }
    }
}
