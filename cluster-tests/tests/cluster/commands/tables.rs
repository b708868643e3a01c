//! Tables, and what they lie in: routes and regions.

use tidewater_cluster_tests::Result;
use tidewater_cluster_tests::cluster::{Cluster, Plan};

use super::{file, has, holds, json, list, same};

const REGION: [&str; 7] =
    ["region_id", "table", "group_id", "files", "bytes", "rows", "manifest_version"];
const FILE: [&str; 7] = ["file_id", "path", "level", "bytes", "rows", "min_key", "max_key"];
const ROUTE: [&str; 7] =
    ["route_id", "table", "start", "end", "group_id", "state", "parent_route_id"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_tables_routes_and_regions_say_what_scripts_rely_on() -> Result<()> {
    let cluster = Plan::default().start().await?;
    create(&cluster).await?;
    let lines: String = (0..900).map(|id| format!("{id},n{id}\n")).collect();
    let rows = file(&cluster, "t.csv", format!("id,name\n{lines}"))?;
    same(
        "rows loaded",
        json(&cluster, &["load", "t", &rows]).await?["acknowledged"].as_u64(),
        Some(900),
    )?;
    routes(&cluster).await?;
    regions(&cluster).await?;
    drop_it(&cluster).await?;
    cluster.healthy().await?;
    cluster.finish().await
}

async fn create(cluster: &Cluster) -> Result<()> {
    let columns = "id int64, name utf8, at timestamp(ms, UTC), price decimal128(10, 2) not null";
    let full = [
        "table",
        "create",
        "full",
        "--columns",
        columns,
        "--primary-key",
        "id,name",
        "--time-column",
        "at",
        "--ttl",
        "90d",
        "--append-only",
    ];
    has(&json(cluster, &full).await?, &["table_id", "name", "state"])?;
    let described = json(cluster, &["table", "describe", "full"]).await?;
    same("key", described["primary_key"].clone(), ["id", "name"].as_slice().into())?;
    same("append-only", described["append_only"].as_bool(), Some(true))?;
    same("ttl", described["ttl_ms"].as_u64(), Some(90 * 86_400_000))?;
    let types: Vec<_> = described["columns"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|column| (column["type"].as_str(), column["nullable"].as_bool()))
        .collect();
    let should = [
        (Some("int64"), Some(false)),
        (Some("utf8"), Some(false)),
        (Some("timestamp(ms, UTC)"), Some(true)),
        (Some("decimal128(10, 2)"), Some(false)),
    ];
    same("columns", types, should.to_vec())?;

    let hashed = [
        "table",
        "create",
        "t",
        "--columns",
        "id int64, name utf8",
        "--primary-key",
        "id",
        "--distribute",
        "hash(id)",
        "--regions",
        "3",
    ];
    cluster.run(&hashed).await?.ok()?;
    let described = json(cluster, &["table", "describe", "t"]).await?;
    same("distribution", described["distribute"].as_str(), Some("hash(id)"))?;
    same("regions", described["regions"].as_u64(), Some(3))?;
    let tables = list(cluster, &["table", "list"], &["table_id", "name", "state"]).await?;
    let names: Vec<_> = tables.iter().map(|table| table["name"].as_str()).collect();
    same("tables", names, vec![Some("full"), Some("t")])?;
    holds("active", tables.iter().all(|table| table["state"] == "active"))
}

async fn routes(cluster: &Cluster) -> Result<()> {
    let routes = list(cluster, &["route", "list", "--table", "t"], &ROUTE).await?;
    same("routes", routes.len(), 3)?;
    holds("the last route is unbounded", routes[2]["end"].is_null())?;
    let tiled = routes.windows(2).all(|two| two[0]["end"] == two[1]["start"]);
    holds("routes follow one another", tiled && routes[0]["start"].is_string())?;
    holds("all routes", list(cluster, &["route", "list"], &ROUTE).await?.len() > 3)
}

async fn regions(cluster: &Cluster) -> Result<()> {
    let flush = ["region", "flush", "--table", "t"];
    let flushed = list(cluster, &flush, &["region_id", "files", "rows", "bytes"]).await?;
    let sum: u64 = flushed.iter().filter_map(|flush| flush["rows"].as_u64()).sum();
    same("rows flushed", (flushed.len(), sum), (3, 900))?;

    let regions = list(cluster, &["region", "list", "--table", "t"], &REGION).await?;
    let sum: u64 = regions.iter().filter_map(|region| region["rows"].as_u64()).sum();
    same("rows in files", (regions.len(), sum), (3, 900))?;
    for region in &regions {
        let id = region["region_id"].to_string();
        let files = list(cluster, &["region", "files", &id], &FILE).await?;
        for file in &files {
            let path = file["path"].as_str().unwrap_or_default();
            let found = cluster.objects().join(path).metadata();
            let bytes = found.ok().map(|found| found.len());
            same("bytes of a file", bytes, file["bytes"].as_u64())?;
            holds("keys are hexadecimal", hex(&file["min_key"]) && hex(&file["max_key"]))?;
        }
        let manifest = json(cluster, &["region", "manifest", &id]).await?;
        holds("the manifest has deltas", manifest["deltas"].is_array())?;
        let described = json(cluster, &["region", "describe", &id, "--digest"]).await?;
        let replicas = described["replicas"].as_array().cloned().unwrap_or_default();
        let leaders = replicas.iter().filter(|replica| replica["leader"] == true).count();
        same("replicas, leaders", (replicas.len(), leaders), (3, 1))?;
        // What people see.
        cluster.run(&["region", "describe", &id]).await?.ok()?;
        cluster.run(&["region", "manifest", &id]).await?.ok()?;
        // Nothing is left to flush.
        let again = list(cluster, &["region", "flush", &id], &["region_id"]).await?;
        same("flushed again", again[0]["rows"].as_u64(), Some(0))?;
    }
    Ok(())
}

fn hex(value: &serde_json::Value) -> bool {
    value
        .as_str()
        .is_some_and(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

async fn drop_it(cluster: &Cluster) -> Result<()> {
    let dropped = json(cluster, &["table", "drop", "t"]).await?;
    same("dropped", dropped["name"].as_str(), Some("t"))?;
    cluster.run(&["scan", "t"]).await?.status(3)?;
    let regions = list(cluster, &["region", "list"], &REGION).await?;
    holds("its regions are gone", regions.iter().all(|region| region["table"] != "t"))?;
    // The name is free.
    let again = ["table", "create", "t", "--columns", "id int64", "--primary-key", "id"];
    cluster.run(&again).await?.ok()?;
    same("rows of the new one", cluster.count("t").await?, 0)
}
