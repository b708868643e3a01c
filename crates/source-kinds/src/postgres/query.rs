//! The statement of a PostgreSQL source (pure).
//!
//! The server checks a statement in full. This check finds errors while the source is created, and rejects a second
//! statement.

/// Maximum length of a statement, in bytes: it is part of a record of the cluster.
pub(super) const MAX_QUERY_BYTES: usize = 64 << 10;

/// First words of statements that return rows.
const KEYWORDS: [&str; 4] = ["select", "table", "values", "with"];

/// Reason why a text is not one statement that returns rows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum QueryError {
    #[error("query is empty: use SELECT, TABLE, VALUES or WITH")]
    Empty,
    #[error("query has {0} bytes: use at most {MAX_QUERY_BYTES}, or create a view")]
    TooLong(usize),
    #[error("query holds a NUL character: remove it")]
    NulCharacter,
    #[error("query begins with {0:?}: use SELECT, TABLE, VALUES or WITH")]
    OtherStatement(String),
    #[error("query holds several statements: use one")]
    SeveralStatements,
    #[error("query ends within {0}: close it")]
    Unterminated(&'static str),
}

/// Returns the statement without a semicolon at its end.
pub(super) fn check_query(query: &str) -> Result<&str, QueryError> {
    if query.len() > MAX_QUERY_BYTES {
        return Err(QueryError::TooLong(query.len()));
    }
    if query.contains('\0') {
        return Err(QueryError::NulCharacter);
    }
    let mut tokens = Tokens { text: query, at: 0 };
    let mut first = None;
    let mut end = None;
    while let Some(token) = tokens.next()? {
        if end.is_some() {
            return Err(QueryError::SeveralStatements);
        }
        match token {
            Token::Semicolon(at) => end = Some(at),
            Token::Open => {}
            Token::Other(text) => {
                first.get_or_insert(text);
            }
        }
    }
    let first = first.ok_or(QueryError::Empty)?;
    if !KEYWORDS.iter().any(|keyword| first.eq_ignore_ascii_case(keyword)) {
        return Err(QueryError::OtherStatement(
            tidewater_common::quote::cut_at(first, 20).into_owned(),
        ));
    }
    Ok(&query[..end.unwrap_or(query.len())])
}

enum Token<'a> {
    /// A semicolon, and its position.
    Semicolon(usize),
    /// An opening parenthesis: `(SELECT 1) UNION ...` is a statement too.
    Open,
    /// A word, a quoted text or another character.
    Other(&'a str),
}

struct Tokens<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Tokens<'a> {
    fn next(&mut self) -> Result<Option<Token<'a>>, QueryError> {
        loop {
            let rest = &self.text[self.at..];
            let Some(first) = rest.chars().next() else { return Ok(None) };
            let begin = self.at;
            if first.is_whitespace() {
                self.at += first.len_utf8();
            } else if rest.starts_with("--") {
                self.at += rest.find(['\n', '\r']).unwrap_or(rest.len());
            } else if rest.starts_with("/*") {
                self.skip_comment()?;
            } else if first == ';' {
                self.at += 1;
                return Ok(Some(Token::Semicolon(begin)));
            } else if first == '(' {
                self.at += 1;
                return Ok(Some(Token::Open));
            } else {
                self.skip_other(first)?;
                return Ok(Some(Token::Other(&self.text[begin..self.at])));
            }
        }
    }

    fn skip_other(&mut self, first: char) -> Result<(), QueryError> {
        let rest = &self.text[self.at..];
        if first == '\'' {
            return self.skip_quoted('\'', false, "a text in single quotes");
        }
        if first == '"' {
            return self.skip_quoted('"', false, "a name in double quotes");
        }
        if rest.len() > 1 && rest[first.len_utf8()..].starts_with('\'') && "eE".contains(first) {
            self.at += 1;
            return self.skip_quoted('\'', true, "a text in single quotes");
        }
        if let Some(tag) = dollar_tag(rest) {
            let Some(length) = rest[tag.len()..].find(tag) else {
                return Err(QueryError::Unterminated("a text in dollar quotes"));
            };
            self.at += tag.len() + length + tag.len();
            return Ok(());
        }
        let is_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '$') || !c.is_ascii();
        let length = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        self.at += length.max(first.len_utf8());
        Ok(())
    }

    fn skip_quoted(
        &mut self,
        quote: char,
        has_escapes: bool,
        name: &'static str,
    ) -> Result<(), QueryError> {
        self.at += 1;
        loop {
            let rest = &self.text[self.at..];
            let next = rest.find(|c| c == quote || (has_escapes && c == '\\'));
            let next = next.ok_or(QueryError::Unterminated(name))?;
            let is_escape = rest[next..].starts_with('\\');
            self.at += next + 1;
            // A doubled quote is a part of the text: it begins another quoted part.
            if !is_escape {
                return Ok(());
            }
            self.at += self.text[self.at..].chars().next().map_or(0, char::len_utf8);
        }
    }

    fn skip_comment(&mut self) -> Result<(), QueryError> {
        let mut depth = 0_usize;
        loop {
            let rest = &self.text[self.at..];
            if rest.starts_with("/*") {
                depth += 1;
                self.at += 2;
            } else if rest.starts_with("*/") {
                depth -= 1;
                self.at += 2;
            } else {
                let Some(next) = rest.chars().next() else {
                    return Err(QueryError::Unterminated("a comment"));
                };
                self.at += next.len_utf8();
            }
            if depth == 0 {
                return Ok(());
            }
        }
    }
}

/// Returns the tag `$name$` at the begin of a text.
fn dollar_tag(text: &str) -> Option<&str> {
    let inner = text.strip_prefix('$')?;
    let length = inner.find('$')?;
    let name = &inner[..length];
    let is_name = name.chars().all(|c| c.is_alphanumeric() || c == '_' || !c.is_ascii())
        && !name.starts_with(|c: char| c.is_ascii_digit());
    is_name.then(|| &text[..length + 2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_that_return_rows_are_accepted() {
        for (query, expected) in [
            ("SELECT 1", "SELECT 1"),
            ("table t", "table t"),
            ("VALUES (1), (2);", "VALUES (1), (2)"),
            (
                "WITH a AS (SELECT 1) SELECT * FROM a ; -- end",
                "WITH a AS (SELECT 1) SELECT * FROM a ",
            ),
            ("-- a; b\n/* ; /* nested; */ */ (SELECT 1) UNION (SELECT 2)", ""),
            ("SELECT ';', \"a;b\", 'it''s;', E'\\';', $$;$$, $x$ $$;$x$ FROM t", ""),
            ("SELECT a$b$c, price FROM t WHERE e = 'x'", ""),
            ("select '\u{e9};' as \u{e9}", ""),
        ] {
            let found = check_query(query).unwrap_or_else(|error| panic!("{query}: {error}"));
            assert_eq!(found, if expected.is_empty() { query } else { expected });
        }
    }

    #[test]
    fn query_errors_name_the_problem() {
        let unterminated = QueryError::Unterminated;
        for (query, expected) in [
            ("", QueryError::Empty),
            (" ; ", QueryError::Empty),
            ("-- SELECT 1", QueryError::Empty),
            ("DELETE FROM t", QueryError::OtherStatement("DELETE".to_owned())),
            ("selection", QueryError::OtherStatement("selection".to_owned())),
            ("'SELECT'", QueryError::OtherStatement("'SELECT'".to_owned())),
            ("SELECT 1; DROP TABLE t", QueryError::SeveralStatements),
            ("SELECT 1;;", QueryError::SeveralStatements),
            ("SELECT '\\'; DROP TABLE t", QueryError::SeveralStatements),
            ("SELECT E'\\\\'; DROP TABLE t", QueryError::SeveralStatements),
            ("SELECT E'\\'; DROP TABLE t", unterminated("a text in single quotes")),
            ("SELECT 'a", unterminated("a text in single quotes")),
            ("SELECT \"a", unterminated("a name in double quotes")),
            ("SELECT $a$ $b$", unterminated("a text in dollar quotes")),
            ("SELECT 1 /* /* */", unterminated("a comment")),
            ("SELECT '\0'", QueryError::NulCharacter),
        ] {
            assert_eq!(check_query(query), Err(expected), "{query}");
        }
        let long = format!("SELECT {}", "1".repeat(MAX_QUERY_BYTES));
        assert_eq!(check_query(&long), Err(QueryError::TooLong(MAX_QUERY_BYTES + 7)));
    }

    proptest::proptest! {
        #[test]
        fn query_check_accepts_any_text_without_panic(query in "(select|[eE$'\"/*;\\\\ a-z\u{e9}-]){0,30}") {
            let _ = check_query(&query);
        }
    }
}
