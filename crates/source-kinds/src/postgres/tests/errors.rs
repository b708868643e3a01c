//! Errors of queries and rows.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::server::{Columns, TestServer, read_all, split};
use crate::SourceError;

const ID: Columns<'static> = &[("id", "int64", false)];

/// Name of the variant.
fn kind(error: &SourceError) -> &'static str {
    match error {
        SourceError::Unreadable(_) => "unreadable",
        SourceError::NotPermitted(_) => "not permitted",
        SourceError::Mismatch(_) => "mismatch",
        SourceError::Changed(_) => "changed",
        SourceError::BadConfig(_) => "bad config",
    }
}

fn assert_error(error: &SourceError, expected_kind: &str, expected: &[&str]) {
    assert_eq!(kind(error), expected_kind, "{error}");
    for part in expected {
        assert!(error.to_string().contains(part), "{part} is not in: {error}");
    }
    assert!(!error.to_string().contains("s3cr3t"), "{error}");
}

pub(super) async fn query_errors_have_code_and_position(server: &TestServer) {
    server
        .execute(
            "CREATE TABLE private (id int8); CREATE ROLE reader LOGIN PASSWORD 's3cr3t pass'; \
             CREATE TABLE precious (id int8); INSERT INTO precious VALUES (1)",
        )
        .await;
    let place = "PostgreSQL at 127.0.0.1:";
    for (query, expected_kind, expected) in [
        (
            "SELECT 1 AS id FROM nowhere",
            "unreadable",
            &["42P01", "\"nowhere\"", "character 21"][..],
        ),
        ("SELECT id FROM private, nowhere", "unreadable", &["42P01", "character 25"]),
        ("SELECT 1 1 AS id", "bad config", &["42601", "character 10", place]),
        ("SELECT missing AS id FROM private", "unreadable", &["42703", "character 8"]),
        ("SELECT nothing(1) AS id", "unreadable", &["42883", "hint: No function matches"]),
        ("SELECT 1 AS id WHERE 1", "bad config", &["42804", "character 22"]),
        ("SELECT $1::int8 AS id", "bad config", &["parameters such as $1"]),
        // Neither a second statement nor a program runs.
        ("SELECT 1) TO PROGRAM 'touch /tmp/x' --", "bad config", &["42601"]),
    ] {
        let source = server.open(server.config(query), ID).await;
        let error = match source.list().await {
            Ok(_) => panic!("{query} is listed"),
            Err(error) => error,
        };
        assert_error(&error, expected_kind, expected);
        let error = read_all(source).await.unwrap_err();
        assert_error(&error, expected_kind, &expected[..1]);
    }

    let mut config = server.config("SELECT id FROM private");
    config["user"] = "reader".into();
    let error = server.open(config, ID).await.list().await.unwrap_err();
    assert_error(&error, "unreadable", &["42501", "permission denied", "grant", "user \"reader\""]);

    // These fail while they run.
    let divided = "SELECT 1 / (3 - g) AS id FROM generate_series(1, 9) AS g";
    let error = server.read(divided, ID).await.unwrap_err();
    assert_error(&error, "unreadable", &["22012", "division by zero"]);
    for writing in [
        "SELECT id FROM precious FOR UPDATE",
        "WITH gone AS (DELETE FROM precious RETURNING id) SELECT id FROM gone",
        "WITH a AS (SELECT 1) DELETE FROM precious RETURNING id",
    ] {
        let error = server.read(writing, ID).await.unwrap_err();
        assert_error(&error, "bad config", &["25006", "only reads"]);
    }
    assert_eq!(server.read("TABLE precious", ID).await.unwrap()[0].num_rows(), 1);
}

pub(super) async fn rows_that_do_not_fit_name_the_column(server: &TestServer) {
    for (query, to, expected) in [
        ("SELECT 1 AS id, NULL::text AS x", "utf8", "column \"x\" is null in row 1"),
        (
            "SELECT g AS id, g + 2147483645 AS x FROM generate_series(1, 9::int8) AS g",
            "int32",
            "column \"x\" has the value 2147483648 in row 3",
        ),
        ("SELECT 1 AS id, 'infinity'::date AS x", "date32", "value infinity in row 1"),
        (
            "SELECT 1 AS id, '-infinity'::timestamp AS x",
            "timestamp(us)",
            "value -infinity in row 1",
        ),
        ("SELECT 1 AS id, 'NaN'::numeric AS x", "decimal128(9, 2)", "value NaN in row 1"),
        ("SELECT 1 AS id, 'NaN'::numeric AS x", "float64", "value NaN in row 1"),
        ("SELECT 1 AS id, 1.234 AS x", "decimal128(9, 2)", "value 1.234 in row 1"),
        ("SELECT 1 AS id, 12345678.9 AS x", "decimal128(9, 2)", "value 12345678.9 in row 1"),
    ] {
        let error = server.read(query, &[("id", "int64", false), ("x", to, false)]).await;
        assert_error(&error.unwrap_err(), "mismatch", &[expected, "in the query"]);
    }
}

pub(super) async fn columns_that_do_not_fit_fail_the_listing(server: &TestServer) {
    for (query, expected) in [
        ("SELECT 1 AS id, 2 AS surplus", "\"surplus\""),
        ("SELECT 1 AS key", "\"id\", which is not null"),
        ("SELECT now() AS id", "PostgreSQL type timestamptz"),
        ("SELECT 1 AS id, 2 AS id", "twice"),
        ("SELECT ARRAY[1] AS id", "PostgreSQL type _int4"),
    ] {
        let error = server.list(query, ID).await.unwrap_err();
        assert_error(&error, "mismatch", &[expected, "PostgreSQL at 127.0.0.1:"]);
        let error = server.read(query, ID).await.unwrap_err();
        assert_error(&error, "mismatch", &[expected]);
    }
}

pub(super) async fn long_queries_end_at_the_timeout(server: &TestServer) {
    let mut config = server.config("SELECT 1 AS id FROM pg_sleep(600)");
    config["statement_timeout_s"] = 1.into();
    let begun = Instant::now();
    let error = read_all(server.open(config, ID).await).await.unwrap_err();
    assert_error(&error, "unreadable", &["57014", "raise statement_timeout_s"]);
    assert!(begun.elapsed() < Duration::from_secs(300));
}

pub(super) async fn ended_connection_is_unreadable(server: &TestServer) {
    let query = "SELECT generate_series(1, 100000000) AS id";
    let source = server.open(server.config(query), ID).await;
    let (sender, mut receiver) = mpsc::channel(1);
    let reading = tokio::spawn(async move { source.read(&split(), sender).await });
    receiver.recv().await.unwrap();
    server
        .execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE application_name = 'tidewater' AND query LIKE 'COPY%'",
        )
        .await;
    while receiver.recv().await.is_some() {}
    let error = reading.await.unwrap().unwrap_err();
    assert_error(&error, "unreadable", &["PostgreSQL at 127.0.0.1:"]);
}

pub(super) async fn rows_beyond_the_limit_are_a_mismatch(server: &TestServer) {
    let columns: Columns<'_> = &[("id", "int64", false), ("x", "utf8", false)];
    let query = "SELECT 1 AS id, repeat('x', 40000000) AS x";
    let error = server.read(query, columns).await.unwrap_err();
    assert_error(&error, "mismatch", &["a row that no table can store"]);
    // Within the limit, larger than a batch.
    let query = "SELECT g AS id, repeat('x', 10000000) AS x FROM generate_series(1, 3) AS g";
    assert_eq!(server.read(query, columns).await.unwrap().len(), 3);
}
