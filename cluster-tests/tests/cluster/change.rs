//! Alter and truncate while nodes are killed.

use std::path::PathBuf;

use tidewater_cluster_tests::cluster::{Cluster, LOG_TABLE};
use tidewater_cluster_tests::workload::{LoadOptions, Workload};
use tidewater_cluster_tests::{HarnessError, Result};

use crate::support::conclude;

const TABLE: &str = "things";

/// Creates a table of three regions with `rows` rows of (id, name). Returns the loaded file.
async fn create_filled(cluster: &Cluster, rows: u32) -> Result<PathBuf> {
    let columns = ["--columns", "id int64, name utf8", "--primary-key", "id"];
    let regions = ["--regions", "3", "--distribute", "hash(id)"];
    cluster.run(&[&["table", "create", TABLE][..], &columns, &regions].concat()).await?.ok()?;
    let file = cluster.directory().join("things.csv");
    let lines: String = (0..rows).map(|id| format!("{id},name {id}\n")).collect();
    std::fs::write(&file, format!("id,name\n{lines}")).map_err(HarnessError::io("a csv file"))?;
    load(cluster, &file).await?;
    Ok(file)
}

async fn load(cluster: &Cluster, file: &std::path::Path) -> Result<()> {
    cluster.run(&["load", TABLE, &file.display().to_string()]).await?.ok()?;
    Ok(())
}

async fn expect(cluster: &Cluster, condition: Option<&str>, rows: u64) -> Result<()> {
    let found = cluster.count_where(TABLE, condition).await?;
    if found == rows {
        return Ok(());
    }
    let condition = condition.unwrap_or("all rows");
    Err(HarnessError::violated(format!("{condition}: {found} rows, expected {rows}")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_continue_during_alters() -> Result<()> {
    let cluster = Cluster::start().await?;
    cluster.create_log_table().await?;
    let load = Workload::start(&cluster, LoadOptions::default()).await?;
    for change in [["--add-column", "seats int32 not null default 7"], ["--drop-column", "seats"]] {
        cluster.run(&[&["table", "alter", LOG_TABLE][..], &change].concat()).await?.ok()?;
        load.progress(40).await?;
    }
    let add = ["--add-column", "note2 utf8 default 'x', rank int64"];
    cluster.run(&[&["table", "alter", LOG_TABLE][..], &add].concat()).await?.ok()?;
    load.progress(40).await?;
    let verdict = conclude(cluster, load).await?;
    if verdict.failed > 0 {
        return Err(HarnessError::violated(format!("writes failed during an alter: {verdict}")));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn altered_columns_apply_to_all_rows_across_failover() -> Result<()> {
    let mut cluster = Cluster::start().await?;
    create_filled(&cluster, 1_000).await?;
    cluster.flush(TABLE).await?.ok()?;
    let add = ["--add-column", "seats int32 not null default 7, note utf8"];
    cluster.run(&[&["table", "alter", TABLE][..], &add].concat()).await?.ok()?;
    expect(&cluster, Some("seats = 7"), 1_000).await?;
    expect(&cluster, Some("note is null"), 1_000).await?;

    let file = cluster.directory().join("more.csv");
    let lines: String = (500..1_500).map(|id| format!("{id},new,{},n\n", 8)).collect();
    std::fs::write(&file, format!("id,name,seats,note\n{lines}"))
        .map_err(HarnessError::io("a csv file"))?;
    load(&cluster, &file).await?;
    expect(&cluster, Some("seats = 7"), 500).await?;
    expect(&cluster, Some("seats = 8"), 1_000).await?;

    let owner = cluster.owner(TABLE).await?;
    cluster.data[owner].kill().await?;
    expect(&cluster, Some("seats = 7"), 500).await?;
    cluster.data[owner].start().await?;
    // A column that is dropped and added again is a new column.
    let again = ["--drop-column", "seats", "--add-column", "seats int32 default 9"];
    cluster.run(&[&["table", "alter", TABLE][..], &again].concat()).await?.ok()?;
    expect(&cluster, Some("seats = 9"), 1_500).await?;
    cluster.flush(TABLE).await?.ok()?;
    for node in cluster.meta.iter_mut().chain(cluster.data.iter_mut()) {
        node.kill().await?;
    }
    cluster.start_all().await?;
    expect(&cluster, Some("seats = 9"), 1_500).await?;
    expect(&cluster, Some("note = 'n'"), 1_000).await?;
    cluster.wait_until_healthy().await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn truncate_removes_flushed_and_unflushed_rows_permanently() -> Result<()> {
    let mut cluster = Cluster::start().await?;
    let file = create_filled(&cluster, 2_000).await?;
    cluster.flush(TABLE).await?.ok()?;
    load(&cluster, &file).await?;
    cluster.run(&["table", "truncate", TABLE]).await?.ok()?;
    expect(&cluster, None, 0).await?;
    let owner = cluster.owner(TABLE).await?;
    cluster.data[owner].kill().await?;
    expect(&cluster, None, 0).await?;
    load(&cluster, &file).await?;
    cluster.data[owner].start().await?;
    for node in cluster.meta.iter_mut().chain(cluster.data.iter_mut()) {
        node.kill().await?;
    }
    cluster.start_all().await?;
    expect(&cluster, None, 2_000).await?;
    cluster.flush(TABLE).await?.ok()?;
    expect(&cluster, None, 2_000).await?;
    cluster.wait_until_healthy().await?;
    cluster.finish().await
}

/// Description of the table, apart from its epochs, which advance by themselves.
async fn description(cluster: &Cluster) -> Result<serde_json::Value> {
    let output = cluster.run(&["table", "describe", TABLE, "--output", "json"]).await?.ok()?;
    let mut description = output.json()?;
    if let Some(fields) = description.as_object_mut() {
        fields.remove("collection");
    }
    Ok(description)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_table_changes_are_rejected_without_effect() -> Result<()> {
    let cluster = Cluster::start().await?;
    create_filled(&cluster, 10).await?;
    let before = description(&cluster).await?;
    for (change, status, words) in [
        (["--drop-column", "id"], 2, "primary key"),
        (["--drop-column", "nowhere"], 2, "does not exist"),
        (["--add-column", "name utf8"], 2, "already"),
        (["--add-column", "seats int32 not null"], 2, "default"),
        (["--add-column", "seats int8 default 300"], 2, "300"),
        (["--ttl", "90d"], 2, "time column"),
    ] {
        let output = cluster.run(&[&["table", "alter", TABLE][..], &change].concat()).await?;
        output.status(status)?.expect_stderr(&[words])?;
    }
    cluster.run(&["table", "alter", "nowhere", "--drop-column", "x"]).await?.status(3)?;
    cluster.run(&["table", "truncate", "nowhere"]).await?.status(3)?;
    let after = description(&cluster).await?;
    if before != after {
        return Err(HarnessError::violated(format!("{before} changed to {after}")));
    }
    expect(&cluster, None, 10).await?;
    cluster.finish().await
}
