//! The tables `collection_statistics` and `collection_progress`, which the process of the meta leader writes.

use serde_json::Value;
use tidewater_cluster_tests::cluster::{Cluster, ClusterPlan};
use tidewater_cluster_tests::{HarnessError, Result, wait};

use crate::support::{SETTLED_WITHIN, keep_routes, wait_for_level};

const STATISTICS: &str = "collection_statistics";
const PROGRESS: &str = "collection_progress";

/// Returns the first row of a table for a filter, as JSON; null: there is none.
async fn row(cluster: &Cluster, table: &str, filter: &str) -> Result<Value> {
    let scan = ["scan", table, "--where", filter, "--format", "json"];
    let text = cluster.run(&scan).await?.ok()?.stdout;
    let line = text.lines().next().unwrap_or("null");
    serde_json::from_str(line).map_err(|error| HarnessError::violated(format!("{error}: {text}")))
}

/// Waits until the row of a table for a filter is as expected. The table may not exist yet.
async fn wait_for_row(
    cluster: &Cluster,
    table: &str,
    filter: &str,
    expected: impl Fn(&Value) -> bool,
) -> Result<Value> {
    let what = format!("{table} follows where {filter}");
    wait::until(&what, SETTLED_WITHIN, || async {
        let found = row(cluster, table, filter).await.map_err(|error| error.to_string())?;
        if expected(&found) { Ok(found) } else { Err(found.to_string()) }
    })
    .await
}

/// Waits until the statistics of a table are as expected; null: there are none.
async fn wait_for(
    cluster: &Cluster,
    table: &str,
    expected: impl Fn(&Value) -> bool,
) -> Result<Value> {
    wait_for_row(cluster, STATISTICS, &format!("table = '{table}'"), expected).await
}

/// Waits until the progress of an export or a refreshable table is as expected; null: there is none.
async fn wait_for_progress(
    cluster: &Cluster,
    kind: &str,
    name: &str,
    expected: impl Fn(&Value) -> bool,
) -> Result<Value> {
    let filter = format!("kind = '{kind}' and name = '{name}'");
    wait_for_row(cluster, PROGRESS, &filter, expected).await
}

async fn create(cluster: &Cluster, table: &str, rows: u64) -> Result<()> {
    let columns = ["--columns", "k int64", "--primary-key", "k"];
    cluster
        .run(&[&["table", "create", table, "--regions", "2"], &columns[..]].concat())
        .await?
        .ok()?;
    let file = cluster.directory().join(format!("{table}.csv"));
    let text: String = (0..rows).map(|key| format!("{key}\n")).collect();
    std::fs::write(&file, format!("k\n{text}")).map_err(HarnessError::io("a csv file"))?;
    cluster.run(&["load", table, &file.display().to_string()]).await?.ok()?;
    Ok(())
}

/// Exports the 7 rows of a table, and drops the export.
async fn expect_export_progress(cluster: &Cluster, table: &str) -> Result<()> {
    let url = format!("file://{}", cluster.export_directory().join("lake").display());
    let create = ["export", "create", "lake", "--table", table, "--to", &url, "--every", "1s"];
    cluster.run(&create).await?.ok()?;
    let is_exported = |of: &Value| of["rows"] == 7 && of["error"].is_null();
    let first = wait_for_progress(cluster, "export", "lake", is_exported).await?;
    let known = ["frontier", "lag_ms", "bytes"].map(|name| first[name].is_u64());
    if known != [true; 3] || first["table"] != table {
        return Err(HarnessError::violated(first.to_string()));
    }
    let is_later = |of: &Value| of["frontier"].as_u64() > first["frontier"].as_u64();
    wait_for_progress(cluster, "export", "lake", is_later).await?;
    cluster.run(&["export", "drop", "lake"]).await?.ok()?;
    wait_for_progress(cluster, "export", "lake", Value::is_null).await?;
    Ok(())
}

/// Refreshes a table from an object with 3 rows, and from one that is not valid, and drops the table.
async fn expect_refresh_progress(cluster: &Cluster) -> Result<()> {
    let source = cluster.source_directory().join("mirror");
    std::fs::create_dir_all(&source).map_err(HarnessError::io("create a directory"))?;
    let write = |text: &str| {
        std::fs::write(source.join("0.csv"), text).map_err(HarnessError::io("write a source"))
    };
    write("k\n1\n2\n3\n")?;
    let config = format!(r#"{{"url": "file://{}"}}"#, source.display());
    let columns = ["--columns", "k int64", "--primary-key", "k"];
    let from = ["--source", "csv", "--config", &config];
    cluster.run(&[&["refresh", "create", "mirror"], &columns[..], &from].concat()).await?.ok()?;
    cluster.run(&["refresh", "start", "mirror"]).await?.ok()?;
    let is_published = |of: &Value| of["state"] == "idle" && of["frontier"].is_u64();
    let published = wait_for_progress(cluster, "refresh", "mirror", is_published).await?;
    if published["generation"] != 1 || !published["error"].is_null() {
        return Err(HarnessError::violated(published.to_string()));
    }
    write("other\n1\n2\n3\n")?;
    cluster.run(&["refresh", "start", "mirror"]).await?.status(2)?;
    let failed =
        wait_for_progress(cluster, "refresh", "mirror", |of| of["error"].is_string()).await?;
    if failed["frontier"] != published["frontier"] {
        return Err(HarnessError::violated(format!("{published}, then {failed}")));
    }
    cluster.run(&["table", "drop", "mirror"]).await?.ok()?;
    wait_for_progress(cluster, "refresh", "mirror", Value::is_null).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statistics_follow_the_collections() -> Result<()> {
    let mut cluster =
        ClusterPlan::default().env("TIDEWATER_STATISTICS_EVERY", "1s").start().await?;
    wait_for_level(&cluster).await?;
    keep_routes(&cluster).await?;
    create(&cluster, "t", 0).await?;
    wait_for(&cluster, "t", |of| of["rows"] == 0 && of["regions"] == 2 && of["holds"] == 0).await?;
    create(&cluster, "u", 300).await?;
    wait_for(&cluster, "u", |of| of["rows"] == 300).await?;
    cluster.run(&["hold", "acquire", "backup", "u"]).await?.ok()?;
    let held = wait_for(&cluster, "u", |of| of["holds"] == 1).await?;
    if held["oldest_hold"] != "backup" || held["dropped"] != false {
        return Err(HarnessError::violated(held.to_string()));
    }
    // The next leader continues.
    let (leader, _) = cluster.meta_leader().await?;
    cluster.meta[leader].kill().await?;
    cluster.run(&["table", "drop", "u"]).await?.ok()?;
    wait_for(&cluster, "u", |of| of["dropped"] == true && of["oldest_hold"] == "backup").await?;
    cluster.meta[leader].start().await?;
    cluster.run(&["hold", "release", "backup"]).await?.ok()?;
    cluster.run(&["table", "drop", "t"]).await?.ok()?;
    for dropped in ["t", "u"] {
        wait_for(&cluster, dropped, Value::is_null).await?;
    }
    // Dropped system tables are created again.
    wait_for_progress(&cluster, "export", "lake", Value::is_null).await?;
    for table in [STATISTICS, PROGRESS] {
        cluster.run(&["table", "drop", table]).await?.ok()?;
    }
    create(&cluster, "v", 7).await?;
    wait_for(&cluster, "v", |of| of["rows"] == 7).await?;
    expect_export_progress(&cluster, "v").await?;
    expect_refresh_progress(&cluster).await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_table_with_the_name_is_left_alone() -> Result<()> {
    let mut cluster = ClusterPlan::default().nodes(1, 1, 0).start().await?;
    create(&cluster, STATISTICS, 5).await?;
    cluster.meta[0].terminate().await?;
    let every = ("TIDEWATER_STATISTICS_EVERY".to_owned(), "1s".to_owned());
    cluster.meta[0].spec.env.push(every);
    cluster.meta[0].start().await?;
    wait::until("the problem is logged", SETTLED_WITHIN, || async {
        let text = cluster.meta[0].log().text().map_err(|error| error.to_string())?;
        let words = "is not the one that the cluster writes: its columns are k int64 not null";
        let remedy = "`tidewater table clone` before, so that it is created again";
        if text.contains(words) && text.contains(remedy) {
            Ok(())
        } else {
            Err("not yet".to_owned())
        }
    })
    .await?;
    // It does not keep back the other system table.
    wait_for_progress(&cluster, "export", "lake", Value::is_null).await?;
    let rows = cluster.count(STATISTICS).await?;
    if rows != 5 {
        return Err(HarnessError::violated(format!("{rows} rows")));
    }
    cluster.finish().await
}
