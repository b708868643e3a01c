//! Commands that write and read rows: load, scan, get, delete, bench.

use tidewater_cluster_tests::Result;
use tidewater_cluster_tests::cluster::{Cluster, ClusterPlan};

use super::{check, check_equal, check_fields, file, json, path, read};

const TRIPS: [&str; 7] = [
    "table",
    "create",
    "trips",
    "--columns",
    "id int64, origin utf8, distance int32, at timestamp(ms, UTC)",
    "--primary-key",
    "id",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_commands_return_the_rows_that_were_loaded() -> Result<()> {
    let cluster = ClusterPlan::default().nodes(1, 3, 0).start().await?;
    cluster.run(&TRIPS).await?.ok()?;
    load(&cluster).await?;
    scan(&cluster).await?;
    reload_every_format(&cluster).await?;
    keys(&cluster).await?;
    load_duplicate_keys(&cluster).await?;
    bench(&cluster).await?;
    cluster.finish().await
}

/// Loads 1,000 trips: trip n starts at one of three origins and has the distance n * 10.
async fn load(cluster: &Cluster) -> Result<()> {
    let mut text = String::from("id,origin,distance,at\n");
    for id in 0..1_000 {
        let origin = ["JFK", "EWR", "LGA"][id % 3];
        text.push_str(&format!("{id},{origin},{},2013-01-01T05:00:00Z\n", id * 10));
    }
    let output = json(cluster, &["load", "trips", &file(cluster, "trips.csv", text)?]).await?;
    check_fields(
        &output,
        &["table", "acknowledged", "failed", "unknown", "skipped", "rows_per_second"],
    )?;
    let sums = ["acknowledged", "failed", "unknown", "skipped"].map(|field| output[field].as_u64());
    check_equal("load", sums, [Some(1_000), Some(0), Some(0), Some(0)])
}

async fn scan(cluster: &Cluster) -> Result<()> {
    check_equal(
        "count",
        json(cluster, &["scan", "trips", "--count"]).await?,
        serde_json::json!({"rows": 1_000}),
    )?;
    let far = cluster.count_where("trips", Some("distance > 5000 and origin = \"JFK\"")).await?;
    let expected = (0..1_000).filter(|id| id % 3 == 0 && id * 10 > 5_000).count() as u64;
    check_equal("count with a condition", far, expected)?;

    let some = ["scan", "trips", "--columns", "distance, id", "--where", "id >= 7", "--limit", "3"];
    let csv = cluster.run(&[&some[..], &["--format", "csv"]].concat()).await?.ok()?;
    check_equal("CSV", csv.stdout.as_str(), "distance,id\n70,7\n80,8\n90,9\n")?;
    let lines =
        cluster.run(&[&some[..], &["--format", "json"]].concat()).await?.ok()?.json_lines()?;
    check_equal("JSON", lines[2].clone(), serde_json::json!({"distance": 90, "id": 9}))?;
    let table = cluster.run(&some).await?.ok()?.stdout;
    check(
        "the table format has a footer",
        table.contains("(3 rows)") && table.starts_with("distance"),
    )?;
    let none =
        cluster.run(&["scan", "trips", "--where", "id < 0", "--format", "csv"]).await?.ok()?;
    check_equal("a header without rows", none.stdout.as_str(), "id,origin,distance,at\n")
}

async fn reload_every_format(cluster: &Cluster) -> Result<()> {
    let original = cluster.run(&["scan", "trips", "--format", "csv"]).await?.ok()?.stdout;
    for (format, suffix) in [("csv", "csv"), ("json", "ndjson"), ("parquet", "parquet")] {
        let out = path(cluster, &format!("out.{suffix}"));
        let output =
            cluster.run(&["scan", "trips", "--format", format, "--out", &out]).await?.ok()?;
        check("nothing on stdout", output.stdout.is_empty())?;
        let name = format!("copy_{format}");
        cluster.run(&[&["table", "create", &name], &TRIPS[3..]].concat()).await?.ok()?;
        cluster.run(&["load", &name, &out]).await?.ok()?;
        let copy = cluster.run(&["scan", &name, "--format", "csv"]).await?.ok()?.stdout;
        check_equal(&format!("rows reloaded from {format}"), copy, original.clone())?;
    }
    // A failed scan does not change an existing output file.
    let out = path(cluster, "out.csv");
    cluster.run(&["scan", "nowhere", "--format", "csv", "--out", &out]).await?.status(3)?;
    check_equal("the file", read(&out)?, original.into_bytes())
}

async fn keys(cluster: &Cluster) -> Result<()> {
    let output = cluster.run(&["get", "trips", "3", "999", "--output", "json"]).await?.ok()?;
    let ids: Vec<_> = output.json_lines()?.iter().map(|row| row["id"].as_i64()).collect();
    check_equal("rows by key", ids, vec![Some(3), Some(999)])?;
    let some = ["get", "trips", "3", "--columns", "origin,id", "--output", "json"];
    check_equal(
        "columns by key",
        cluster.run(&some).await?.ok()?.stdout.as_str(),
        "{\"origin\":\"JFK\",\"id\":3}\n",
    )?;
    cluster
        .run(&["get", "trips", "3", "--columns", "nope"])
        .await?
        .status(3)?
        .expect_stderr(&["nope", "origin"])?;
    cluster.run(&["get", "trips", "5000"]).await?.status(3)?.expect_stderr(&["5000"])?;

    let deleted = json(cluster, &["delete", "trips", "3", "4", "5000"]).await?;
    check_equal("deletes", deleted["acknowledged"].as_u64(), Some(3))?;
    cluster.run(&["get", "trips", "3"]).await?.status(3)?;
    check_equal("remaining rows", cluster.count("trips").await?, 998)
}

/// Verifies that the last row of a key wins when concurrent writes overwrite each other.
async fn load_duplicate_keys(cluster: &Cluster) -> Result<()> {
    let create =
        ["table", "create", "last", "--columns", "id int64, line int64", "--primary-key", "id"];
    cluster.run(&create).await?.ok()?;
    let lines: String = (0..20_000).map(|line| format!("{},{line}\n", line * 7 % 50)).collect();
    let rows = file(cluster, "last.csv", format!("id,line\n{lines}"))?;
    cluster.run(&["load", "last", &rows, "--batch-rows", "64", "--in-flight", "8"]).await?.ok()?;
    let last: std::collections::BTreeMap<i64, i64> =
        (0..20_000).map(|line| (line * 7 % 50, line)).collect();
    let expected: String = last.iter().map(|(id, line)| format!("{id},{line}\n")).collect();
    let found = cluster.run(&["scan", "last", "--format", "csv"]).await?.ok()?.stdout;
    check_equal("the last row of each key", found, format!("id,line\n{expected}"))
}

async fn bench(cluster: &Cluster) -> Result<()> {
    let fields = ["rows", "seconds", "rows_per_second"];
    let ingest = ["bench", "ingest", "--rows", "3000", "--clients", "2", "--batch-rows", "500"];
    let output = json(cluster, &ingest).await?;
    check_fields(&output, &fields)?;
    check_equal(
        "ingested",
        (output["rows"].as_u64(), cluster.count("bench").await?),
        (Some(3_000), 3_000),
    )?;
    let single = ["bench", "ingest", "--single-row", "--rows", "20", "--table", "single"];
    check_equal("row by row", json(cluster, &single).await?["rows"].as_u64(), Some(20))?;
    let output = json(cluster, &["bench", "scan"]).await?;
    check_fields(&output, &fields)?;
    check_equal("scanned", output["rows"].as_u64(), Some(3_000))?;
    let meta = ["bench", "meta", "--clients", "1,2", "--duration", "200ms", "--output", "json"];
    let lines = cluster.run(&meta).await?.ok()?.json_lines()?;
    check_equal("a line for each number of clients", lines.len(), 2)?;
    lines.iter().try_for_each(|line| check_fields(line, &fields))
}
