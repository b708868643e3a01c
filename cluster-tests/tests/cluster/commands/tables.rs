//! Commands on tables, routes and regions.

use tidewater_cluster_tests::Result;
use tidewater_cluster_tests::cluster::{Cluster, ClusterPlan};

use super::{check, check_equal, check_fields, file, json, list};

const REGION: [&str; 7] =
    ["region_id", "table", "group_id", "files", "bytes", "rows", "manifest_version"];
const FILE: [&str; 7] = ["file_id", "path", "level", "bytes", "rows", "min_key", "max_key"];
const ROUTE: [&str; 7] =
    ["route_id", "table", "start", "end", "group_id", "state", "parent_route_id"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn table_route_and_region_commands_return_stable_json() -> Result<()> {
    let cluster = ClusterPlan::default().start().await?;
    create(&cluster).await?;
    let lines: String = (0..900).map(|id| format!("{id},n{id}\n")).collect();
    let rows = file(&cluster, "t.csv", format!("id,name\n{lines}"))?;
    check_equal(
        "rows loaded",
        json(&cluster, &["load", "t", &rows]).await?["acknowledged"].as_u64(),
        Some(900),
    )?;
    routes(&cluster).await?;
    regions(&cluster).await?;
    drop_table(&cluster).await?;
    cluster.wait_until_healthy().await?;
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
    check_fields(&json(cluster, &full).await?, &["table_id", "name", "state"])?;
    let described = json(cluster, &["table", "describe", "full"]).await?;
    check_equal("key", described["primary_key"].clone(), ["id", "name"].as_slice().into())?;
    check_equal("append-only", described["append_only"].as_bool(), Some(true))?;
    check_equal("ttl", described["ttl_ms"].as_u64(), Some(90 * 86_400_000))?;
    let types: Vec<_> = described["columns"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|column| (column["type"].as_str(), column["nullable"].as_bool()))
        .collect();
    let expected = [
        (Some("int64"), Some(false)),
        (Some("utf8"), Some(false)),
        (Some("timestamp(ms, UTC)"), Some(true)),
        (Some("decimal128(10, 2)"), Some(false)),
    ];
    check_equal("columns", types, expected.to_vec())?;

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
    check_equal("distribution", described["distribute"].as_str(), Some("hash(id)"))?;
    check_equal("regions", described["regions"].as_u64(), Some(3))?;
    let tables = list(cluster, &["table", "list"], &["table_id", "name", "state"]).await?;
    let names: Vec<_> = tables.iter().map(|table| table["name"].as_str()).collect();
    check_equal("tables", names, vec![Some("full"), Some("t")])?;
    check("active", tables.iter().all(|table| table["state"] == "active"))
}

async fn routes(cluster: &Cluster) -> Result<()> {
    let routes = list(cluster, &["route", "list", "--table", "t"], &ROUTE).await?;
    check_equal("routes", routes.len(), 3)?;
    check("the last route is unbounded", routes[2]["end"].is_null())?;
    let tiled = routes.windows(2).all(|two| two[0]["end"] == two[1]["start"]);
    check("routes follow one another", tiled && routes[0]["start"].is_string())?;
    check("all routes", list(cluster, &["route", "list"], &ROUTE).await?.len() > 3)
}

async fn regions(cluster: &Cluster) -> Result<()> {
    let flush = ["region", "flush", "--table", "t"];
    let flushed = list(cluster, &flush, &["region_id", "files", "rows", "bytes"]).await?;
    let sum: u64 = flushed.iter().filter_map(|flush| flush["rows"].as_u64()).sum();
    check_equal("rows flushed", (flushed.len(), sum), (3, 900))?;

    let regions = list(cluster, &["region", "list", "--table", "t"], &REGION).await?;
    let sum: u64 = regions.iter().filter_map(|region| region["rows"].as_u64()).sum();
    check_equal("rows in files", (regions.len(), sum), (3, 900))?;
    for region in &regions {
        let id = region["region_id"].to_string();
        let files = list(cluster, &["region", "files", &id], &FILE).await?;
        for file in &files {
            let path = file["path"].as_str().unwrap_or_default();
            let found = cluster.objects().join(path).metadata();
            let bytes = found.ok().map(|found| found.len());
            check_equal("bytes of a file", bytes, file["bytes"].as_u64())?;
            check("keys are hexadecimal", hex(&file["min_key"]) && hex(&file["max_key"]))?;
        }
        let manifest = json(cluster, &["region", "manifest", &id]).await?;
        check("the manifest has deltas", manifest["deltas"].is_array())?;
        let described = json(cluster, &["region", "describe", &id, "--digest"]).await?;
        let replicas = described["replicas"].as_array().cloned().unwrap_or_default();
        let leaders = replicas.iter().filter(|replica| replica["leader"] == true).count();
        check_equal("replicas, leaders", (replicas.len(), leaders), (3, 1))?;
        // The text output.
        cluster.run(&["region", "describe", &id]).await?.ok()?;
        cluster.run(&["region", "manifest", &id]).await?.ok()?;
        // A second flush has no rows.
        let again = list(cluster, &["region", "flush", &id], &["region_id"]).await?;
        check_equal("flushed again", again[0]["rows"].as_u64(), Some(0))?;
    }
    Ok(())
}

fn hex(value: &serde_json::Value) -> bool {
    value
        .as_str()
        .is_some_and(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

async fn drop_table(cluster: &Cluster) -> Result<()> {
    let dropped = json(cluster, &["table", "drop", "t"]).await?;
    check_equal("dropped", dropped["name"].as_str(), Some("t"))?;
    cluster.run(&["scan", "t"]).await?.status(3)?;
    let regions = list(cluster, &["region", "list"], &REGION).await?;
    check("the regions are removed", regions.iter().all(|region| region["table"] != "t"))?;
    // The name can be used again.
    let again = ["table", "create", "t", "--columns", "id int64", "--primary-key", "id"];
    cluster.run(&again).await?.ok()?;
    check_equal("rows of the new table", cluster.count("t").await?, 0)
}
