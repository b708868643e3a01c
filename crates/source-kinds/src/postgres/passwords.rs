//! Passwords of a file, each with the servers that it is for (pure).
//!
//! The form is that of PostgreSQL's own password file: lines `host:port:database:user:password`, of which the first that
//! matches gives the password. `*` matches each value, and a backslash precedes a `:` or `\` that is part of a value. Lines
//! that begin with `#` are comments.
//!
//! A caller chooses the server of a source and the file with its password. A password therefore names the servers that
//! receive it: otherwise, a caller could have each file of the secret directory sent to a server of its own.

use std::iter;

use super::config::PostgresConfig;

/// Reason why a file has no password for a server. No error contains a part of the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum PasswordError {
    #[error(
        "line {0} is not host:port:database:user:password: a password names the server that receives \
         it, and \\ precedes each : and \\ in a value"
    )]
    Malformed(usize),
    #[error("no line is for this server: add {0}")]
    NoMatch(String),
}

/// Returns the password for the server of a configuration.
pub(super) fn find_password(text: &str, config: &PostgresConfig) -> Result<String, PasswordError> {
    let mut found = None;
    for (number, line) in text.lines().enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let entry = Entry::parse(line).ok_or(PasswordError::Malformed(number + 1))?;
        if found.is_none() && entry.is_for(config) {
            found = Some(entry.password);
        }
    }
    found.ok_or_else(|| PasswordError::NoMatch(example(config)))
}

/// Returns the line of a configuration, without its password.
fn example(config: &PostgresConfig) -> String {
    let PostgresConfig { host, port, database, user, .. } = config;
    let [host, database, user] = [host, database, user].map(|value| {
        let escaped = value.replace('\\', "\\\\").replace(':', "\\:");
        if escaped == "*" { "\\*".to_owned() } else { escaped }
    });
    format!("{host}:{port}:{database}:{user}:PASSWORD")
}

/// Condition of a value.
enum Pattern {
    Any,
    Value(String),
}

impl Pattern {
    fn matches(&self, is_equal: impl FnOnce(&str) -> bool) -> bool {
        match self {
            Self::Any => true,
            Self::Value(value) => is_equal(value.as_str()),
        }
    }
}

/// A line.
struct Entry {
    host: Pattern,
    port: Pattern,
    database: Pattern,
    user: Pattern,
    password: String,
}

impl Entry {
    /// Parses a line; `None` if it has not five values.
    fn parse(line: &str) -> Option<Self> {
        let mut values = values(line);
        let mut pattern = || {
            let (value, is_escaped) = values.next()?;
            Some(if value == "*" && !is_escaped { Pattern::Any } else { Pattern::Value(value) })
        };
        let host = pattern()?;
        let port = pattern()?;
        let database = pattern()?;
        let user = pattern()?;
        let (password, _) = values.next()?;
        values.next().is_none().then_some(Self { host, port, database, user, password })
    }

    fn is_for(&self, config: &PostgresConfig) -> bool {
        self.host.matches(|host| host.eq_ignore_ascii_case(&config.host))
            && self.port.matches(|port| port.parse::<u16>() == Ok(config.port))
            && self.database.matches(|database| database == config.database)
            && self.user.matches(|user| user == config.user)
    }
}

/// Returns the values between colons, and whether each has a backslash.
fn values(line: &str) -> impl Iterator<Item = (String, bool)> {
    let mut rest = Some(line.chars());
    iter::from_fn(move || {
        let mut value = String::new();
        let mut is_escaped = false;
        let characters = rest.as_mut()?;
        loop {
            match characters.next() {
                Some(':') => return Some((value, is_escaped)),
                Some('\\') => {
                    is_escaped = true;
                    value.extend(characters.next());
                }
                Some(other) => value.push(other),
                None => break,
            }
        }
        rest = None;
        Some((value, is_escaped))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config(host: &str, port: u16, database: &str, user: &str) -> PostgresConfig {
        let config = json!({
            "host": host, "port": port, "database": database, "user": user, "query": "TABLE t",
        });
        PostgresConfig::read(&config).unwrap()
    }

    fn find(text: &str) -> Option<String> {
        find_password(text, &config("db.example.org", 5_432, "shop", "reader")).ok()
    }

    #[test]
    fn first_line_for_the_server_gives_the_password() {
        for (text, expected) in [
            ("db.example.org:5432:shop:reader:s3cr3t pass", Some("s3cr3t pass")),
            ("DB.example.org:5432:shop:reader:a\r\n", Some("a")),
            ("# mine\n\ndb.example.org:*:*:*:a\ndb.example.org:5432:shop:reader:b", Some("a")),
            ("db.example.org:5432:shop:writer:a\ndb.example.org:5432:shop:*:b", Some("b")),
            ("*:*:*:*:a", Some("a")),
            ("*:*:*:*:", Some("")),
            ("*:*:*:*:a\\:b\\\\c#", Some("a:b\\c#")),
            ("*:*:*:*:*", Some("*")),
            ("other:5432:shop:reader:a", None),
            ("db.example.org:5433:shop:reader:a", None),
            ("db.example.org:5432:Shop:reader:a", None),
            ("db.example.org:5432:shop:readers:a", None),
            ("\\*:*:*:*:a", None),
            ("*.example.org:*:*:*:a", None),
            ("", None),
            ("# db.example.org:*:*:*:a", None),
        ] {
            assert_eq!(find(text).as_deref(), expected, "{text:?}");
        }
        let config = config("::1", 5_432, "a:b", "c\\d");
        let text = "\\:\\:1:5432:a\\:b:c\\\\d:s3cr3t";
        assert_eq!(find_password(text, &config).as_deref(), Ok("s3cr3t"));
    }

    #[test]
    fn password_errors_have_line_and_remedy_without_the_text() {
        let config = config("::1", 5_432, "a:b", "c\\d");
        for (text, expected) in [
            ("s3cr3t", "line 1 is not host:port:database:user:password"),
            ("*:*:*:*:a\n\n*:*:*:s3cr3t", "line 3 is not host:port"),
            ("*:*:*:*:a:s3cr3t", "line 1 is not host:port"),
            ("*:*:*:*\\:s3cr3t", "line 1 is not host:port"),
            ("other:*:*:*:s3cr3t", "add \\:\\:1:5432:a\\:b:c\\\\d:PASSWORD"),
            ("", "no line is for this server"),
        ] {
            let error = find_password(text, &config).unwrap_err().to_string();
            assert!(error.contains(expected), "{text:?}: {error}");
            assert!(!error.contains("s3cr3t"), "{error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn suggested_line_is_for_its_server(database in "[a-c:\\\\*# ]{1,8}", user in "[a-c:\\\\*]{1,8}") {
            let config = config("h", 1, &database, &user);
            let line = example(&config);
            proptest::prop_assert_eq!(find_password(&line, &config), Ok("PASSWORD".to_owned()));
        }
    }
}
