//! Configuration of PostgreSQL sources.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::query::check_query;
use crate::hosts::normal_name;

/// Timeout of connecting in seconds: default and maximum.
const CONNECT_TIMEOUT_S: (u64, u64) = (10, 300);
/// Maximum of the timeout of a statement in seconds: one week.
const MAX_STATEMENT_TIMEOUT_S: u64 = 604_800;
/// Maximum length of names in bytes.
const MAX_NAME_BYTES: usize = 255;

/// Encryption of the connection. The meanings are those of PostgreSQL's own clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum SslMode {
    /// Never encrypt.
    Disable,
    /// Encrypt if the server offers it. The certificate is not verified.
    #[default]
    Prefer,
    /// Encrypt, or fail. The certificate is not verified: this protects against listeners only.
    Require,
    /// Encrypt, and verify the server's certificate and name with the certificate authorities that the node trusts.
    VerifyFull,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    host: String,
    #[serde(default = "default_port")]
    port: u16,
    database: String,
    user: String,
    password_file: Option<PathBuf>,
    query: String,
    #[serde(default = "default_connect_timeout_s")]
    connect_timeout_s: u64,
    #[serde(default)]
    statement_timeout_s: u64,
    #[serde(default)]
    sslmode: SslMode,
}

fn default_port() -> u16 {
    5_432
}

fn default_connect_timeout_s() -> u64 {
    CONNECT_TIMEOUT_S.0
}

/// A checked configuration.
#[derive(Debug, Clone)]
pub(super) struct PostgresConfig {
    /// Name or address of the server.
    pub(super) host: String,
    /// Port of the server.
    pub(super) port: u16,
    /// Name of the database.
    pub(super) database: String,
    /// Role of the connection.
    pub(super) user: String,
    /// Absolute path of the file with the password, on each node that reads the source.
    pub(super) password_file: Option<PathBuf>,
    /// One statement that returns rows, without a semicolon at its end.
    pub(super) query: String,
    /// Timeout of connecting, with authentication.
    pub(super) connect_timeout: Duration,
    /// Timeout of each statement on the server; zero: none.
    pub(super) statement_timeout: Duration,
    /// Encryption of the connection.
    pub(super) sslmode: SslMode,
}

impl PostgresConfig {
    /// Checks a configuration; an error describes the problem for the user.
    pub(super) fn read(config: &Value) -> Result<Self, String> {
        let object = config.as_object().ok_or("it must be a JSON object")?;
        if object.contains_key("password") {
            return Err("the configuration must not hold a password: write it to a file on each \
                        node, and name the file in password_file"
                .to_owned());
        }
        let fields = Fields::deserialize(config).map_err(|error| error.to_string())?;
        check_host(&fields.host)?;
        check_name("database", &fields.database)?;
        check_name("user", &fields.user)?;
        if fields.port == 0 {
            return Err("port must be from 1 to 65535".to_owned());
        }
        if fields.password_file.as_ref().is_some_and(|file| !file.is_absolute()) {
            return Err("password_file must be absolute: nodes run in different directories".into());
        }
        if !(1..=CONNECT_TIMEOUT_S.1).contains(&fields.connect_timeout_s) {
            return Err(format!("connect_timeout_s must be from 1 to {}", CONNECT_TIMEOUT_S.1));
        }
        if fields.statement_timeout_s > MAX_STATEMENT_TIMEOUT_S {
            return Err(format!(
                "statement_timeout_s must be from 0 (none) to {MAX_STATEMENT_TIMEOUT_S}"
            ));
        }
        let query = check_query(&fields.query).map_err(|error| error.to_string())?.to_owned();
        Ok(Self {
            host: fields.host,
            port: fields.port,
            database: fields.database,
            user: fields.user,
            password_file: fields.password_file,
            query,
            connect_timeout: Duration::from_secs(fields.connect_timeout_s),
            statement_timeout: Duration::from_secs(fields.statement_timeout_s),
            sslmode: fields.sslmode,
        })
    }

    /// Returns host and port of the server as text; equal for equal servers.
    pub(super) fn server(&self) -> String {
        let host = normal_name(&self.host);
        if host.contains(':') {
            format!("[{host}]:{}", self.port)
        } else {
            format!("{host}:{}", self.port)
        }
    }
}

/// Checks a name or an address. A URL is rejected without a repetition: it may hold a password.
fn check_host(host: &str) -> Result<(), String> {
    let is_name = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
    let is_address = host.parse::<std::net::IpAddr>().is_ok();
    if is_address || (!host.is_empty() && host.len() <= MAX_NAME_BYTES && host.chars().all(is_name))
    {
        return Ok(());
    }
    Err("host must be the name or address of a server, not a URL: port, user and database are \
         fields of their own, and a password is in the password_file"
        .to_owned())
}

fn check_name(field: &str, name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > MAX_NAME_BYTES || name.chars().any(char::is_control) {
        return Err(format!(
            "{field} must have 1 to {MAX_NAME_BYTES} bytes without control characters"
        ));
    }
    // Programs that accept a connection string in place of a database name set a precedent.
    if name.contains("://") {
        return Err(format!("{field} must be a name, not a URL"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A minimal configuration, with other fields.
    fn with(fields: Value) -> Value {
        let mut config = json!({
            "host": "db.example.org", "database": "shop", "user": "reader", "query": "TABLE t",
        });
        let all = config.as_object_mut().unwrap();
        for (name, value) in fields.as_object().unwrap() {
            all.insert(name.clone(), value.clone());
        }
        all.retain(|_, value| !value.is_null());
        config
    }

    #[test]
    fn valid_postgres_configurations_are_accepted() {
        for fields in [
            json!({}),
            json!({ "host": "10.0.0.1", "port": 6432 }),
            json!({ "host": "::1", "password_file": "/etc/tidewater/secrets/shop" }),
            json!({ "query": "SELECT 1;", "connect_timeout_s": 300, "statement_timeout_s": 604_800 }),
            json!({ "sslmode": "disable" }),
            json!({ "sslmode": "verify-full" }),
        ] {
            let config = with(fields);
            PostgresConfig::read(&config).unwrap_or_else(|error| panic!("{config}: {error}"));
        }
        let config = PostgresConfig::read(&with(json!({}))).unwrap();
        assert_eq!((config.port, config.sslmode), (5_432, SslMode::Prefer));
        assert_eq!(config.connect_timeout, Duration::from_secs(10));
        assert_eq!(config.statement_timeout, Duration::ZERO);
    }

    #[test]
    fn postgres_configuration_errors_name_the_problem() {
        let long = "x".repeat(256);
        for (fields, expected) in [
            (json!({ "host": null }), "missing field `host`"),
            (json!({ "query": null }), "missing field `query`"),
            (json!({ "password": "s3cr3t" }), "name the file in password_file"),
            (json!({ "url": "postgres://u:s3cr3t@h/d" }), "unknown field `url`"),
            (json!({ "host": "postgres://u:s3cr3t@h/d" }), "host must be the name or address"),
            (json!({ "host": "u:s3cr3t@h" }), "host must be the name or address"),
            (json!({ "host": "/run/postgresql" }), "host must be the name or address"),
            (json!({ "host": "" }), "host must be the name or address"),
            (json!({ "database": "postgres://u:s3cr3t@h/d" }), "database must be a name"),
            (json!({ "database": "" }), "database must have 1 to 255 bytes"),
            (json!({ "user": long }), "user must have 1 to 255 bytes"),
            (json!({ "user": "a\0b" }), "user must have 1 to 255 bytes"),
            (json!({ "port": 0 }), "port must be from 1"),
            (json!({ "port": 65_536 }), "invalid value: integer `65536`"),
            (json!({ "password_file": "secret" }), "password_file must be absolute"),
            (json!({ "connect_timeout_s": 0 }), "connect_timeout_s must be from 1 to 300"),
            (json!({ "connect_timeout_s": 301 }), "connect_timeout_s must be from 1 to 300"),
            (json!({ "statement_timeout_s": 604_801 }), "statement_timeout_s must be from 0"),
            (json!({ "sslmode": "allow" }), "unknown variant `allow`"),
            (json!({ "query": "DELETE FROM t" }), "query begins with \"DELETE\""),
            (json!({ "query": "SELECT 1; SELECT 2" }), "query holds several statements"),
        ] {
            let config = with(fields);
            let error = PostgresConfig::read(&config).expect_err(&config.to_string());
            assert!(error.contains(expected), "{config}: {error}");
            assert!(!error.contains("s3cr3t"), "{error}");
        }
        assert_eq!(PostgresConfig::read(&json!([])).unwrap_err(), "it must be a JSON object");
    }
}
