//! Errors of PostgreSQL for the user of Tidewater.

use std::error::Error as _;
use std::fmt;
use std::io;

use tidewater_common::quote::cut_at;
use tokio_postgres::error::{DbError, ErrorPosition};

use super::config::PostgresConfig;
use super::transport::FrameError;
use crate::SourceError;
use crate::error::causes;

/// Characters that a message repeats of a text that the server sent.
const MAX_SERVER_CHARS: usize = 300;

/// The server of a source, as errors name it. It has no password.
#[derive(Debug, Clone)]
pub(super) struct ServerPlace {
    host: String,
    port: u16,
    database: String,
    user: String,
    has_password: bool,
}

impl fmt::Display for ServerPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, database, user, .. } = self;
        let (open, close) = if host.contains(':') { ("[", "]") } else { ("", "") };
        write!(f, "PostgreSQL at {open}{host}{close}:{port}, database {database:?}, user {user:?}")
    }
}

impl From<&PostgresConfig> for ServerPlace {
    fn from(config: &PostgresConfig) -> Self {
        Self {
            host: config.host.clone(),
            port: config.port,
            database: config.database.clone(),
            user: config.user.clone(),
            has_password: config.password_file.is_some(),
        }
    }
}

impl ServerPlace {
    /// The connection was not opened.
    pub(super) fn unreachable(&self, problem: impl fmt::Display) -> SourceError {
        SourceError::Unreadable(format!(
            "cannot connect to {self}: {problem}; check host, port and sslmode, and that the server \
             accepts connections from this node"
        ))
    }

    /// The node does not permit the connection or the login.
    pub(super) fn not_permitted(&self, problem: impl fmt::Display) -> SourceError {
        SourceError::NotPermitted(format!("{self}: {problem}"))
    }

    /// The server sent something that the protocol does not allow.
    pub(super) fn damaged(&self, problem: impl fmt::Display) -> SourceError {
        SourceError::Unreadable(format!("{self}: {problem}"))
    }

    /// The server is shutting down, rejects the login, or does not know it.
    pub(super) fn login_error(&self, error: &tokio_postgres::Error) -> SourceError {
        if let Some(error) = error.as_db_error() {
            return self.server_error(error, 0);
        }
        if frame_error(error) == Some(&FrameError::Cleartext) {
            return self.not_permitted(format!(
                "{}, and its certificate is not verified: let it authenticate the user with \
                 scram-sha-256, or set sslmode to verify-full",
                FrameError::Cleartext
            ));
        }
        if io_error(error).is_some() {
            return self.unreachable(chain(error));
        }
        SourceError::Unreadable(format!("{self}: {}; {}", chain(error), self.login_remedy()))
    }

    /// A statement failed. `prefix` is the number of characters that precede the query in the statement.
    pub(super) fn statement_error(
        &self,
        error: &tokio_postgres::Error,
        prefix: usize,
    ) -> SourceError {
        if let Some(error) = error.as_db_error() {
            return self.server_error(error, prefix);
        }
        let is_large = |frame: &&FrameError| matches!(frame, FrameError::TooLarge { .. });
        if let Some(large) = frame_error(error).filter(is_large) {
            return SourceError::Mismatch(format!(
                "{self}: {large}: the query returns a row that no table can store"
            ));
        }
        SourceError::Unreadable(format!("{self}: {}", chain(error)))
    }

    fn server_error(&self, error: &DbError, prefix: usize) -> SourceError {
        let code = error.code().code();
        let position = match error.position() {
            Some(ErrorPosition::Original(at)) => (*at as usize).checked_sub(prefix),
            _ => None,
        };
        let position =
            position.map_or_else(String::new, |at| format!(" (at character {at} of the query)"));
        let more = |label: &str, text: Option<&str>| {
            text.map_or_else(String::new, |text| format!("; {label}: {}", printable(text)))
        };
        let remedy = match remedy(code) {
            None if code.starts_with("28") => Some(self.login_remedy()),
            remedy => remedy,
        };
        let remedy = remedy.map_or_else(String::new, |remedy| format!("; {remedy}"));
        let text = format!(
            "{self}: {} {code}: {}{position}{}{}{remedy}",
            printable(error.severity()),
            printable(error.message()),
            more("detail", error.detail()),
            more("hint", error.hint()),
        );
        if is_error_of_query(code) {
            SourceError::BadConfig(text)
        } else {
            SourceError::Unreadable(text)
        }
    }

    fn login_remedy(&self) -> &'static str {
        if self.has_password {
            "check user and password_file"
        } else {
            "check the user, and name a password_file if the server asks for a password"
        }
    }
}

/// Returns whether only another query can succeed. A missing object or permission may be created later.
fn is_error_of_query(code: &str) -> bool {
    const MAY_APPEAR: [&str; 5] = ["42P01", "42501", "42703", "42704", "42883"];
    const READ_ONLY: &str = "25006";
    code == READ_ONLY || (code.starts_with("42") && !MAY_APPEAR.contains(&code))
}

fn remedy(code: &str) -> Option<&'static str> {
    match code {
        "3D000" => Some("check the database"),
        "42501" => Some("grant the user the right to read it"),
        "42P01" => Some("create it, or correct the query"),
        "25006" => Some("use a query that only reads"),
        "57014" => Some("raise statement_timeout_s, or simplify the query"),
        "53300" => Some("free connections of the server, or raise its max_connections"),
        _ => None,
    }
}

fn io_error(error: &tokio_postgres::Error) -> Option<&io::Error> {
    error.source().and_then(|source| source.downcast_ref())
}

/// Returns the message that the connection did not pass on.
fn frame_error(error: &tokio_postgres::Error) -> Option<&FrameError> {
    io_error(error).and_then(io::Error::get_ref).and_then(|inner| inner.downcast_ref())
}

/// Returns the text of an error and of its causes.
fn chain(error: &tokio_postgres::Error) -> String {
    let texts: Vec<String> = causes(error).map(ToString::to_string).collect();
    printable(&texts.join(": "))
}

/// Returns a text of the server, shortened and without control characters.
fn printable(text: &str) -> String {
    cut_at(text, MAX_SERVER_CHARS).replace(char::is_control, " ")
}
