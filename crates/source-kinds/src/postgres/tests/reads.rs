//! Rows that arrive.

use std::time::{Duration, Instant};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use arrow::util::display::array_value_to_string;
use tokio::sync::mpsc;

use super::server::{Columns, TestServer, split};

type TypeCase = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

/// PostgreSQL type, type of the table, and values: in SQL, and as Arrow shows them.
const TYPES: &[TypeCase] = &[
    ("bool", "bool", &[("true", "true"), ("false", "false")]),
    ("int2", "int8", &[("-128", "-128"), ("127", "127")]),
    ("int2", "int16", &[("'-32768'", "-32768"), ("32767", "32767")]),
    ("int4", "uint16", &[("0", "0"), ("65535", "65535")]),
    ("int4", "int32", &[("'-2147483648'", "-2147483648"), ("2147483647", "2147483647")]),
    ("int8", "int64", &[("'-9223372036854775808'", "-9223372036854775808"), ("1", "1")]),
    ("int8", "uint64", &[("9223372036854775807", "9223372036854775807"), ("0", "0")]),
    ("float4", "float32", &[("'-inf'", "-inf"), ("1.5", "1.5")]),
    ("float8", "float64", &[("'NaN'", "NaN"), ("'1e308'", "1e308")]),
    ("text", "utf8", &[("''", ""), ("'h\u{e9}llo \u{1f30a}'", "h\u{e9}llo \u{1f30a}")]),
    ("varchar(5)", "utf8", &[("'abc'", "abc"), ("'abcde'", "abcde")]),
    ("char(5)", "utf8", &[("'abc'", "abc  "), ("'abcde'", "abcde")]),
    ("name", "utf8", &[("'abc'", "abc"), ("''", "")]),
    ("mood", "utf8", &[("'good'", "good"), ("'bad'", "bad")]),
    ("small", "int32", &[("7", "7"), ("-7", "-7")]),
    ("json", "utf8", &[("'{\"a\": 1}'", "{\"a\": 1}"), ("'[]'", "[]")]),
    ("jsonb", "utf8", &[("'{\"b\":1, \"a\":2}'", "{\"a\": 2, \"b\": 1}"), ("'null'", "null")]),
    (
        "uuid",
        "utf8",
        &[
            ("'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
            ("'00000000000000000000000000000000'", "00000000-0000-0000-0000-000000000000"),
        ],
    ),
    (
        "uuid",
        "binary",
        &[
            ("'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'", "a0eebc999c0b4ef8bb6d6bb9bd380a11"),
            ("'ffffffff-ffff-ffff-ffff-ffffffffffff'", "ffffffffffffffffffffffffffffffff"),
        ],
    ),
    ("bytea", "binary", &[("'\\x'", ""), ("'\\x00ff'", "00ff")]),
    ("date", "date32", &[("'1969-12-31'", "1969-12-31"), ("'9999-12-31'", "9999-12-31")]),
    (
        "date",
        "timestamp(us)",
        &[("'2024-02-29'", "2024-02-29T00:00:00"), ("'0001-01-01'", "0001-01-01T00:00:00")],
    ),
    (
        "timestamp",
        "timestamp(us)",
        &[
            ("'1999-12-31 23:59:59.999999'", "1999-12-31T23:59:59.999999"),
            ("'0001-01-01'", "0001-01-01T00:00:00"),
        ],
    ),
    (
        "timestamp",
        "timestamp(s)",
        &[
            ("'2024-01-01 12:00:00'", "2024-01-01T12:00:00"),
            ("'1970-01-01'", "1970-01-01T00:00:00"),
        ],
    ),
    (
        "timestamptz",
        "timestamp(ms, +00:00)",
        &[
            ("'2024-01-01 01:00:00.123+01'", "2024-01-01T00:00:00.123Z"),
            ("'1969-12-31 23:59:59Z'", "1969-12-31T23:59:59Z"),
        ],
    ),
    (
        "timestamptz",
        "timestamp(ns, +00:00)",
        &[
            ("'2262-04-11 00:00:00Z'", "2262-04-11T00:00:00Z"),
            ("'1970-01-01Z'", "1970-01-01T00:00:00Z"),
        ],
    ),
    (
        "numeric",
        "decimal128(38, 10)",
        &[
            (
                "-9999999999999999999999999999.9999999999",
                "-9999999999999999999999999999.9999999999",
            ),
            ("0.0000000001", "0.0000000001"),
        ],
    ),
    ("numeric(12,2)", "decimal128(12, 2)", &[("12345.67", "12345.67"), ("0", "0.00")]),
    (
        "numeric",
        "float64",
        &[("0.1", "0.1"), ("-123456789012345678901234567890", "-1.2345678901234568e29")],
    ),
    (
        "numeric",
        "uint64",
        &[("18446744073709551615", "18446744073709551615"), ("100000000", "100000000")],
    ),
];

pub(super) async fn all_types_round_trip(server: &TestServer) {
    let names: Vec<String> = (0..TYPES.len()).map(|i| format!("c{i}")).collect();
    let join = |texts: Vec<String>| texts.join(", ");
    let definitions = names.iter().zip(TYPES).map(|(name, (pg, ..))| format!("{name} {pg}"));
    let values =
        |row: usize| join(TYPES.iter().map(|(.., values)| values[row].0.to_owned()).collect());
    server
        .execute(&format!(
            "CREATE TYPE mood AS ENUM ('good', 'bad'); CREATE DOMAIN small AS int4 CHECK (VALUE < 10); \
             CREATE TABLE types (id int4, {}); INSERT INTO types VALUES (0, {}), (1, {}); \
             INSERT INTO types (id) VALUES (2)",
            join(definitions.collect()),
            values(0),
            values(1),
        ))
        .await;
    let mut columns = vec![("id", "int32", false)];
    columns.extend(names.iter().zip(TYPES).map(|(name, (_, to, _))| (name.as_str(), *to, true)));
    let query = "SELECT * FROM types ORDER BY id -- all of them";
    server.list(query, &columns).await.unwrap();
    let batches = server.read(query, &columns).await.unwrap();
    assert_eq!(batches.len(), 1);
    assert_eq!(batches[0].num_rows(), 3);
    for (index, (pg, to, values)) in TYPES.iter().enumerate() {
        let array = batches[0].column(index + 1);
        let shown = |row| array_value_to_string(array, row).unwrap();
        assert_eq!([shown(0), shown(1)], [values[0].1, values[1].1], "{pg} to {to}");
        assert!(array.is_null(2), "{pg} to {to}");
    }
}

pub(super) async fn read_does_not_see_later_changes(server: &TestServer) {
    const ROWS: i64 = 60_000;
    server
        .execute(&format!(
            "CREATE TABLE changing AS SELECT g AS id, repeat('old', 200) AS text \
             FROM generate_series(1, {ROWS}) AS g"
        ))
        .await;
    let columns: Columns<'_> = &[("id", "int64", false), ("text", "utf8", false)];
    let source = server.open(server.config("TABLE changing"), columns).await;
    let (sender, mut receiver) = mpsc::channel(1);
    let reading = tokio::spawn(async move { source.read(&split(), sender).await });
    let first = receiver.recv().await.unwrap();
    server
        .execute(&format!(
            "DELETE FROM changing WHERE id > {ROWS} / 2; UPDATE changing SET text = 'new'; \
             INSERT INTO changing SELECT {ROWS} + g, 'new' FROM generate_series(1, 1000) AS g"
        ))
        .await;
    assert!(!reading.is_finished(), "all rows were sent before the change");
    let mut batches = vec![first];
    while let Some(batch) = receiver.recv().await {
        batches.push(batch);
    }
    reading.await.unwrap().unwrap();
    let mut ids: Vec<i64> = batches.iter().flat_map(ids).collect();
    ids.sort_unstable();
    assert!(ids.into_iter().eq(1..=ROWS), "rows were added, removed or repeated");
    let texts = batches.iter().flat_map(|batch| batch.column(1).as_string::<i32>().iter());
    assert!(texts.flatten().all(|text| text.starts_with("old")), "a row was changed");
}

fn ids(batch: &RecordBatch) -> Vec<i64> {
    batch.column(0).as_primitive::<Int64Type>().values().to_vec()
}

pub(super) async fn read_ends_when_its_receiver_is_closed(server: &TestServer) {
    let columns: Columns<'_> = &[("id", "int64", false)];
    for query in [
        // Without a row.
        "SELECT 1 AS id FROM pg_sleep(600)",
        "SELECT generate_series(1, 100000000) AS id",
    ] {
        let source = server.open(server.config(query), columns).await;
        let (sender, mut receiver) = mpsc::channel(1);
        let reading = tokio::spawn(async move { source.read(&split(), sender).await });
        if query.contains("pg_sleep") {
            wait_for_reads(server, 1).await;
        } else {
            receiver.recv().await.unwrap();
        }
        drop(receiver);
        let ended = tokio::time::timeout(Duration::from_secs(60), reading).await;
        ended.expect("the read continues").unwrap().unwrap();
    }
    // The server notices it too, also without a row to send.
    wait_for_reads(server, 0).await;
}

/// Waits until the server runs this number of reads.
async fn wait_for_reads(server: &TestServer, expected: i64) {
    let query = "SELECT count(*) AS id FROM pg_stat_activity WHERE query LIKE 'COPY%' \
                 AND state = 'active' AND pid <> pg_backend_pid()";
    let begun = Instant::now();
    loop {
        let batches = server.read(query, &[("id", "int64", false)]).await.unwrap();
        if ids(&batches[0]) == [expected] {
            return;
        }
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "the server does not run {expected} reads"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub(super) async fn query_without_rows_sends_nothing(server: &TestServer) {
    let columns: Columns<'_> = &[("id", "int64", false), ("more", "utf8", true)];
    assert!(server.read("SELECT 1 AS id WHERE false;", columns).await.unwrap().is_empty());
    for query in [
        "(SELECT 1 AS id) UNION (SELECT 2)",
        "((TABLE a_table))",
        "((WITH a AS (SELECT 1 AS id) TABLE a))",
    ] {
        server.execute("CREATE TABLE IF NOT EXISTS a_table (id int4)").await;
        server.list(query, columns).await.unwrap();
    }
    server.list("(VALUES (1))", &[("column1", "int64", false)]).await.unwrap();
    let batches = server.read("VALUES (1)", &[("column1", "int64", false)]).await.unwrap();
    assert_eq!(ids(&batches[0]), [1]);
    let batches = server.read("WITH a AS (SELECT 2 AS id) TABLE a", columns).await.unwrap();
    assert_eq!((ids(&batches[0]), batches[0].column(1).null_count()), (vec![2], 1));
}

pub(super) async fn listing_names_version_and_database(server: &TestServer) {
    let listing = server.list("SELECT 1 AS id", &[("id", "int64", false)]).await.unwrap();
    assert!(listing.snapshot.starts_with("PostgreSQL 1"), "{}", listing.snapshot);
    assert!(listing.snapshot.ends_with("database \"postgres\""), "{}", listing.snapshot);
    assert_eq!(listing.splits, [split()]);
}

/// Prints the rate: a measurement, not a limit.
pub(super) async fn million_rows_are_read(server: &TestServer) {
    const ROWS: usize = 1_000_000;
    server
        .execute(&format!(
            "CREATE UNLOGGED TABLE million AS SELECT g::int8 AS id, 'name of row ' || g AS name, \
             (g * 1.25)::numeric(12,2) AS price, now() + g * interval '1 s' AS at, \
             (g % 1000)::int4 AS quantity, g / 7.0::float8 AS weight \
             FROM generate_series(1, {ROWS}) AS g"
        ))
        .await;
    server.execute("VACUUM ANALYZE million").await;
    let columns: Columns<'_> = &[
        ("id", "int64", false),
        ("name", "utf8", false),
        ("price", "decimal128(12, 2)", true),
        ("at", "timestamp(us, +00:00)", true),
        ("quantity", "int32", true),
        ("weight", "float64", true),
    ];
    for (name, sslmode) in [("plain", "disable"), ("encrypted", "require")] {
        let mut config = server.config("TABLE million");
        config["sslmode"] = sslmode.into();
        let source = server.open(config, columns).await;
        let (sender, mut receiver) = mpsc::channel(4);
        let begun = Instant::now();
        let reading = tokio::spawn(async move { source.read(&split(), sender).await });
        let mut rows = 0;
        let mut bytes = 0;
        while let Some(batch) = receiver.recv().await {
            rows += batch.num_rows();
            bytes += batch.get_array_memory_size();
        }
        reading.await.unwrap().unwrap();
        assert_eq!(rows, ROWS);
        let seconds = begun.elapsed().as_secs_f64();
        let rate = rows as f64 / seconds;
        let mib = bytes >> 20;
        println!(
            "{name}: {rows} rows of 6 columns, {mib} MiB, in {seconds:.2} s: {rate:.0} rows/s"
        );
    }
}
