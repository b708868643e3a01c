//! Operations that write all kinds of commands, rows and log entries that an operator can cause, and a check
//! of their result.

use serde_json::Value;
use tidewater_cluster_tests::cluster::Cluster;
use tidewater_cluster_tests::{HarnessError, Result, wait};

use crate::commands::{check_equal, file};
use crate::support::SETTLED_WITHIN;

/// Rows of the table that stays.
const ROWS: u64 = 600;
/// Rows of its clone, after an atomic load and a bulk load.
const CLONED: u64 = 700;

/// Columns of the files that are loaded before and after the alter, and their values after the key.
const BEFORE: (&str, &str) = ("k,v", "load");
const AFTER: (&str, &str) = ("k,v,seats", "load,7");

/// Runs the operations on tables with names that begin with `prefix`.
pub(super) async fn run(cluster: &Cluster, prefix: &str) -> Result<()> {
    let [table, clone, gone] = names(prefix);
    let hook = format!("{prefix}_hook");
    let run = async |args: &[&str]| cluster.run(args).await?.ok();
    for name in [&table, &gone] {
        let columns = ["--columns", "k int64, v utf8", "--primary-key", "k"];
        let regions = ["--distribute", "hash(k)", "--regions", "2"];
        run(&[&["table", "create", name][..], &columns, &regions].concat()).await?;
    }
    add_hook(cluster, &hook).await?;
    load(cluster, &table, BEFORE, 0..500, &[]).await?;
    run(&["region", "flush", "--table", &table]).await?;
    run(&["table", "alter", &table, "--add-column", "seats int32 not null default 7"]).await?;
    // Stay in the log.
    load(cluster, &table, AFTER, 400..ROWS, &[]).await?;
    run(&["table", "clone", &table, &clone]).await?;
    load(cluster, &clone, AFTER, 600..650, &["--atomic"]).await?;
    load(cluster, &clone, AFTER, 650..CLONED, &["--bulk"]).await?;
    load(cluster, &gone, BEFORE, 0..100, &[]).await?;
    run(&["table", "truncate", &gone]).await?;
    run(&["table", "drop", &gone]).await?;
    wait_for_calls(cluster, &hook).await?;
    run(&["hook", "pause", &hook]).await?;
    run(&["hook", "resume", &hook]).await?;
    run(&["hook", "remove", &hook]).await?;
    verify(cluster, prefix).await
}

/// Compares the rows and the schema of the tables that stay.
pub(super) async fn verify(cluster: &Cluster, prefix: &str) -> Result<()> {
    let [table, clone, gone] = names(prefix);
    check_equal(&table, cluster.count(&table).await?, ROWS)?;
    check_equal(&clone, cluster.count(&clone).await?, CLONED)?;
    for name in [&table, &clone] {
        // Written before and after the alter.
        let altered = cluster.count_where(name, Some("seats = 7 and v = 'load'")).await?;
        check_equal(name, altered, cluster.count(name).await?)?;
    }
    let tables = json(cluster, &["table", "list"]).await?;
    let listed = |name: &str| tables.to_string().contains(&format!("\"{name}\""));
    check_equal("tables", (listed(&table), listed(&clone), listed(&gone)), (true, true, false))
}

fn names(prefix: &str) -> [String; 3] {
    ["kept", "cloned", "gone"].map(|name| format!("{prefix}_{name}"))
}

async fn json(cluster: &Cluster, args: &[&str]) -> Result<Value> {
    cluster.run(&[args, &["--output", "json"]].concat()).await?.ok()?.json()
}

async fn load(
    cluster: &Cluster,
    table: &str,
    (header, values): (&str, &str),
    keys: std::ops::Range<u64>,
    how: &[&str],
) -> Result<()> {
    let lines: String = keys.map(|key| format!("{key},{values}\n")).collect();
    let rows = file(cluster, "rows.csv", format!("{header}\n{lines}"))?;
    cluster.run(&[&["load", table, &rows][..], how].concat()).await?.ok()?;
    Ok(())
}

/// Adds a durable hook, so that cursors are stored.
async fn add_hook(cluster: &Cluster, name: &str) -> Result<()> {
    let config = format!(r#"{{"path":"{}"}}"#, calls(cluster, name).display());
    let args = ["hook", "add", name, "--kind", "jsonl", "--config", &config, "--durable"];
    cluster.run(&args).await?.ok()?;
    Ok(())
}

fn calls(cluster: &Cluster, hook: &str) -> std::path::PathBuf {
    cluster.hook_directory().join(format!("{hook}.jsonl"))
}

/// Waits until the hook has been called and its cursor has moved.
async fn wait_for_calls(cluster: &Cluster, hook: &str) -> Result<()> {
    let path = calls(cluster, hook);
    wait::until("the hook is called", SETTLED_WITHIN, || async {
        let text = std::fs::read_to_string(&path).map_err(|error| error.to_string())?;
        if text.lines().count() > 3 { Ok(()) } else { Err(text) }
    })
    .await?;
    wait::until("a cursor moves", SETTLED_WITHIN, || async {
        let failed = |error: HarnessError| error.to_string();
        let hooks = json(cluster, &["hook", "list"]).await.map_err(failed)?;
        let lag = hooks.as_array().into_iter().flatten().find(|found| found["name"] == hook);
        match lag {
            Some(found) if found["lag"] == 0 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}
