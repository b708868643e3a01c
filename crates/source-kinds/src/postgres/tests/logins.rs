//! Errors of logins, and encryption.

use std::net::TcpListener;
use std::time::Duration;

use arrow::array::AsArray;
use serde_json::{Value, json};

use super::server::{Columns, TestServer, read_all};
use crate::{Listing, SourceError, SourceHosts};

const ID: Columns<'static> = &[("id", "int64", false)];

async fn list_error(server: &TestServer, changes: &[(&str, Value)]) -> String {
    let mut config = server.config("SELECT 1 AS id");
    for (name, value) in changes {
        config[*name] = value.clone();
    }
    match server.open(config, ID).await.list().await {
        Err(SourceError::Unreadable(text)) => text,
        other => panic!("{changes:?}: {other:?}"),
    }
}

pub(super) async fn login_errors_have_server_and_remedy(server: &TestServer) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = listener.local_addr().unwrap().port();
    // Bound, so that no other process uses it, and closed before the connection.
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for (changes, expected) in [
        (vec![("password_file", json!(server.secret("wrong")))], &["28P01", "password_file"][..]),
        (vec![("password_file", Value::Null)], &["password missing", "name a password_file"]),
        (vec![("password_file", json!(server.secret("none")))], &["none"]),
        (vec![("database", json!("nowhere"))], &["3D000", "\"nowhere\"", "check the database"]),
        (vec![("user", json!("nobody"))], &["28P01", "user \"nobody\""]),
        (vec![("port", json!(closed))], &["cannot connect", "refused", "check host, port"]),
        (
            vec![("port", json!(silent)), ("connect_timeout_s", json!(1))],
            &["cannot connect", "no connection within 1 s"],
        ),
        (vec![("host", json!("nowhere.invalid"))], &["cannot connect", "nowhere.invalid:"]),
    ] {
        let error = list_error(server, &changes).await;
        for part in expected {
            assert!(error.contains(part), "{part} is not in: {error}");
        }
        assert!(!error.contains("s3cr3t"), "{error}");
    }
}

/// Returns the text of the error if the node does not permit the login, otherwise the result.
async fn not_permitted(
    server: &TestServer,
    hosts: &[&str],
    changes: &[(&str, Value)],
) -> Result<String, Result<Listing, SourceError>> {
    let mut config = server.config("SELECT 1 AS id");
    for (name, value) in changes {
        config[*name] = value.clone();
    }
    let hosts = SourceHosts::new(hosts.iter().map(|host| host.parse().unwrap()).collect());
    match server.open_on(hosts, config, ID).await.list().await {
        Err(SourceError::NotPermitted(text)) => Ok(text),
        other => Err(other),
    }
}

pub(super) async fn passwords_are_sent_to_their_servers_only(server: &TestServer) {
    for (file, expected) in [
        (server.secret("plain"), "line 1 is not host:port:database:user:password"),
        (server.secret("other"), "no line is for this server: add 127.0.0.1:"),
        ("/etc/passwd".into(), "is outside of"),
    ] {
        let changes = [("password_file", json!(file))];
        let error = not_permitted(server, &["127.0.0.1"], &changes).await.unwrap();
        assert!(error.contains(expected), "{error}");
        assert!(!error.contains("s3cr3t"), "{error}");
    }
}

pub(super) async fn sources_call_permitted_hosts_only(server: &TestServer) {
    for (hosts, host, expected) in [
        (&[][..], "127.0.0.1", "127.0.0.1 is a loopback address"),
        (&["localhost"], "127.0.0.1", "127.0.0.1 is a loopback address"),
        (&["127.0.0.1:1"], "127.0.0.1", "not in --source-hosts"),
    ] {
        let error = not_permitted(server, hosts, &[("host", json!(host))]).await.unwrap();
        assert!(error.contains(expected), "{error}");
        assert!(error.starts_with("PostgreSQL at 127.0.0.1:"), "{error}");
    }
}

pub(super) async fn cleartext_logins_need_a_verified_server(server: &TestServer) {
    server.execute("CREATE ROLE plain LOGIN PASSWORD 's3cr3t pass'").await;
    server.request_cleartext("plain").await;
    for sslmode in ["prefer", "disable", "require"] {
        let changes = [("user", json!("plain")), ("sslmode", json!(sslmode))];
        let mut found = not_permitted(server, &["127.0.0.1"], &changes).await;
        for _ in 0..200 {
            if found.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            found = not_permitted(server, &["127.0.0.1"], &changes).await;
        }
        let error = found.unwrap();
        assert!(error.contains("requests the password in cleartext"), "{error}");
        assert!(error.contains("set sslmode to verify-full"), "{error}");
    }
}

async fn is_encrypted(server: &TestServer, sslmode: &str) -> bool {
    let query = "SELECT 1 AS id, ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let mut config = server.config(query);
    config["sslmode"] = sslmode.into();
    let columns: Columns<'_> = &[("id", "int64", false), ("ssl", "bool", false)];
    let batches = read_all(server.open(config, columns).await).await.unwrap();
    batches[0].column(1).as_boolean().value(0)
}

pub(super) async fn connections_are_encrypted_as_configured(server: &TestServer) {
    assert!(!is_encrypted(server, "disable").await);
    assert!(is_encrypted(server, "prefer").await);
    assert!(is_encrypted(server, "require").await);
    let error = list_error(server, &[("sslmode", json!("verify-full"))]).await;
    assert!(error.contains("cannot connect"), "{error}");
    assert!(error.contains("certificate"), "{error}");

    server.execute("ALTER SYSTEM SET ssl = off").await;
    server.execute("SELECT pg_reload_conf()").await;
    // The server reads its settings a little later.
    for _ in 0..200 {
        if !is_encrypted(server, "prefer").await {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(!is_encrypted(server, "prefer").await);
    for sslmode in ["require", "verify-full"] {
        let error = list_error(server, &[("sslmode", json!(sslmode))]).await;
        assert!(error.contains("does not offer TLS"), "{error}");
    }
}
