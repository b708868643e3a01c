//! Rows in and out: load, scan, get, delete, bench.

use tidewater_cluster_tests::Result;
use tidewater_cluster_tests::cluster::{Cluster, Plan};

use super::{file, has, holds, json, path, read, same};

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
async fn of_rows_give_back_what_was_put_in() -> Result<()> {
    let cluster = Plan::default().nodes(1, 3, 0).start().await?;
    cluster.run(&TRIPS).await?.ok()?;
    load(&cluster).await?;
    scan(&cluster).await?;
    every_format_can_be_loaded_again(&cluster).await?;
    keys(&cluster).await?;
    the_last_row_of_a_key_wins(&cluster).await?;
    bench(&cluster).await?;
    cluster.finish().await
}

/// 1,000 trips: number n goes from one of three origins, n * 10 far.
async fn load(cluster: &Cluster) -> Result<()> {
    let mut text = String::from("id,origin,distance,at\n");
    for id in 0..1_000 {
        let origin = ["JFK", "EWR", "LGA"][id % 3];
        text.push_str(&format!("{id},{origin},{},2013-01-01T05:00:00Z\n", id * 10));
    }
    let said = json(cluster, &["load", "trips", &file(cluster, "trips.csv", text)?]).await?;
    has(&said, &["table", "acknowledged", "failed", "unknown", "skipped", "rows_per_second"])?;
    let sums = ["acknowledged", "failed", "unknown", "skipped"].map(|field| said[field].as_u64());
    same("load", sums, [Some(1_000), Some(0), Some(0), Some(0)])
}

async fn scan(cluster: &Cluster) -> Result<()> {
    same(
        "count",
        json(cluster, &["scan", "trips", "--count"]).await?,
        serde_json::json!({"rows": 1_000}),
    )?;
    let far = cluster.count_where("trips", Some("distance > 5000 and origin = \"JFK\"")).await?;
    let should = (0..1_000).filter(|id| id % 3 == 0 && id * 10 > 5_000).count() as u64;
    same("count of some", far, should)?;

    let some = ["scan", "trips", "--columns", "distance, id", "--where", "id >= 7", "--limit", "3"];
    let csv = cluster.run(&[&some[..], &["--format", "csv"]].concat()).await?.ok()?;
    same("CSV", csv.stdout.as_str(), "distance,id\n70,7\n80,8\n90,9\n")?;
    let lines =
        cluster.run(&[&some[..], &["--format", "json"]].concat()).await?.ok()?.json_lines()?;
    same("JSON", lines[2].clone(), serde_json::json!({"distance": 90, "id": 9}))?;
    let table = cluster.run(&some).await?.ok()?.stdout;
    holds("a table for people", table.contains("(3 rows)") && table.starts_with("distance"))?;
    let none =
        cluster.run(&["scan", "trips", "--where", "id < 0", "--format", "csv"]).await?.ok()?;
    same("no rows, but a header", none.stdout.as_str(), "id,origin,distance,at\n")
}

async fn every_format_can_be_loaded_again(cluster: &Cluster) -> Result<()> {
    let original = cluster.run(&["scan", "trips", "--format", "csv"]).await?.ok()?.stdout;
    for (format, suffix) in [("csv", "csv"), ("json", "ndjson"), ("parquet", "parquet")] {
        let out = path(cluster, &format!("out.{suffix}"));
        let said =
            cluster.run(&["scan", "trips", "--format", format, "--out", &out]).await?.ok()?;
        holds("nothing on stdout", said.stdout.is_empty())?;
        let name = format!("copy_{format}");
        cluster.run(&[&["table", "create", &name], &TRIPS[3..]].concat()).await?.ok()?;
        cluster.run(&["load", &name, &out]).await?.ok()?;
        let copy = cluster.run(&["scan", &name, "--format", "csv"]).await?.ok()?.stdout;
        same(&format!("rows that came by {format}"), copy, original.clone())?;
    }
    // A scan that cannot begin leaves the file of the last one alone.
    let out = path(cluster, "out.csv");
    cluster.run(&["scan", "nowhere", "--format", "csv", "--out", &out]).await?.status(3)?;
    same("the file", read(&out)?, original.into_bytes())
}

async fn keys(cluster: &Cluster) -> Result<()> {
    let said = cluster.run(&["get", "trips", "3", "999", "--output", "json"]).await?.ok()?;
    let ids: Vec<_> = said.json_lines()?.iter().map(|row| row["id"].as_i64()).collect();
    same("rows by key", ids, vec![Some(3), Some(999)])?;
    let some = ["get", "trips", "3", "--columns", "origin,id", "--output", "json"];
    same(
        "columns by key",
        cluster.run(&some).await?.ok()?.stdout.as_str(),
        "{\"origin\":\"JFK\",\"id\":3}\n",
    )?;
    cluster
        .run(&["get", "trips", "3", "--columns", "nope"])
        .await?
        .status(3)?
        .complains(&["nope", "origin"])?;
    cluster.run(&["get", "trips", "5000"]).await?.status(3)?.complains(&["5000"])?;

    let deleted = json(cluster, &["delete", "trips", "3", "4", "5000"]).await?;
    same("deletes", deleted["acknowledged"].as_u64(), Some(3))?;
    cluster.run(&["get", "trips", "3"]).await?.status(3)?;
    same("rows that are left", cluster.count("trips").await?, 998)
}

/// Several writes are in flight, of rows that overwrite each other.
async fn the_last_row_of_a_key_wins(cluster: &Cluster) -> Result<()> {
    let create =
        ["table", "create", "last", "--columns", "id int64, line int64", "--primary-key", "id"];
    cluster.run(&create).await?.ok()?;
    let lines: String = (0..20_000).map(|line| format!("{},{line}\n", line * 7 % 50)).collect();
    let rows = file(cluster, "last.csv", format!("id,line\n{lines}"))?;
    cluster.run(&["load", "last", &rows, "--batch-rows", "64", "--in-flight", "8"]).await?.ok()?;
    let last: std::collections::BTreeMap<i64, i64> =
        (0..20_000).map(|line| (line * 7 % 50, line)).collect();
    let should: String = last.iter().map(|(id, line)| format!("{id},{line}\n")).collect();
    let is = cluster.run(&["scan", "last", "--format", "csv"]).await?.ok()?.stdout;
    same("the last row of each key", is, format!("id,line\n{should}"))
}

async fn bench(cluster: &Cluster) -> Result<()> {
    let fields = ["rows", "seconds", "rows_per_second"];
    let ingest = ["bench", "ingest", "--rows", "3000", "--clients", "2", "--batch-rows", "500"];
    let said = json(cluster, &ingest).await?;
    has(&said, &fields)?;
    same("ingested", (said["rows"].as_u64(), cluster.count("bench").await?), (Some(3_000), 3_000))?;
    let single = ["bench", "ingest", "--single-row", "--rows", "20", "--table", "single"];
    same("row by row", json(cluster, &single).await?["rows"].as_u64(), Some(20))?;
    let said = json(cluster, &["bench", "scan"]).await?;
    has(&said, &fields)?;
    same("scanned", said["rows"].as_u64(), Some(3_000))?;
    let meta = ["bench", "meta", "--clients", "1,2", "--duration", "200ms", "--output", "json"];
    let lines = cluster.run(&meta).await?.ok()?.json_lines()?;
    same("a line for each number of clients", lines.len(), 2)?;
    lines.iter().try_for_each(|line| has(line, &fields))
}
