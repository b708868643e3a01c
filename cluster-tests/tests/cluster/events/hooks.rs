//! Hooks of kind `events`, and an events table that is dropped.

use serde_json::{Value, json};
use tidewater_cluster_tests::cluster::{Cluster, ClusterPlan, LOG_TABLE};
use tidewater_cluster_tests::{HarnessError, Result, wait};

use super::numbers::expect_unique_ids;
use super::table::{EVENTS, EventTable, now_ns, time_of};
use crate::hooks::load;
use crate::support::{SETTLED_WITHIN, keep_routes, wait_for_level};

const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

/// Adds a hook of kind `events`.
async fn add(cluster: &Cluster, name: &str, more: &[&str]) -> Result<()> {
    let add = ["hook", "add", name, "--kind", "events", "--config", "{}"];
    cluster.run(&[&add, more].concat()).await?.ok().map(drop)
}

/// Returns the manifest version of a region.
async fn manifest_version(cluster: &Cluster, region: u64) -> Result<u64> {
    let show = ["region", "manifest", &region.to_string(), "--output", "json"];
    let manifest = cluster.run(&show).await?.ok()?.json()?;
    Ok(manifest["state"]["version"].as_u64().unwrap_or(0))
}

/// Waits until the table has each version of a region's manifest once, as calls of a durable hook.
async fn wait_for_versions(
    cluster: &Cluster,
    table: &EventTable,
    hook: &str,
    region: u64,
) -> Result<()> {
    wait::until("the table has each version of the manifest once", SETTLED_WITHIN, || async {
        let rows = table.rows().await?;
        let is_call = |row: &&Value| {
            row["type"] == "hook_event"
                && row["hook"] == hook
                && row["region_id"] == region
                && row["trigger"] == "manifest_updated"
        };
        let calls = rows.iter().filter(is_call);
        let mut versions: Vec<_> =
            calls.filter_map(|row| row["manifest_version"].as_u64()).collect();
        versions.sort_unstable();
        let last = manifest_version(cluster, region).await.map_err(|error| error.to_string())?;
        let are_complete = versions.iter().copied().eq(1..=last);
        if are_complete { Ok(()) } else { Err(format!("{versions:?} of {last}")) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_hook_on_events_table_is_refused() -> Result<()> {
    let mut cluster = ClusterPlan::default().events().start().await?;
    wait_for_level(&cluster).await?;
    let table = EventTable::connect(&cluster).await?;
    table.wait_for("a first event", |_| true).await?;
    let refused = ["hook", "add", "own", "--kind", "events", "--config", "{}", "--table", EVENTS];
    let refused = cluster.run(&refused).await?;
    refused.status(2)?.expect_stderr(&["holds events"])?;
    let hooks = cluster.run(&["hook", "list", "--output", "json"]).await?.ok()?.json()?;
    assert_eq!(hooks, Value::Array(Vec::new()));

    // Hooks of all tables, one that is called once for each version and one that may miss some.
    cluster.create_log_table().await?;
    // The manifest of a region starts with its first flush.
    for table in [LOG_TABLE, EVENTS] {
        cluster.flush(table).await?.ok()?;
    }
    add(&cluster, "all", &["--durable", "--from", "1"]).await?;
    add(&cluster, "seen", &[]).await?;
    let region = cluster.region(LOG_TABLE).await?.region_id;
    let own_region = cluster.region(EVENTS).await?.region_id;
    for writer in 0..2 {
        load(&cluster, writer).await?;
        cluster.flush(EVENTS).await?.ok()?;
    }
    let is_seen = |row: &Value| {
        row["type"] == "hook_event" && row["hook"] == "seen" && row["region_id"] == region
    };
    let call = table.wait_for("a call of the other hook", is_seen).await?;
    assert!(call["node_id"].as_u64() > Some(0) && call["payload"].is_object(), "{call}");
    let owner = cluster.owner(LOG_TABLE).await?;
    // The versions of the last flush may be on their way.
    cluster.data[owner].kill().await?;
    cluster.data[owner].start().await?;
    cluster.wait_until_healthy().await?;
    load(&cluster, 2).await?;
    wait_for_versions(&cluster, &table, "all", region).await?;
    let rows = table.rows().await.map_err(HarnessError::violated)?;
    let own = |row: &&Value| row["type"] == "hook_event" && row["region_id"] == own_region;
    let own: Vec<_> = rows.iter().filter(own).collect();
    assert!(own.is_empty(), "the events table has events about itself: {own:?}");
    expect_unique_ids(&rows)?;
    cluster.finish().await
}

/// Verifies the options of the events table; returns its id.
async fn expect_event_table(cluster: &Cluster) -> Result<Value> {
    let describe = ["table", "describe", EVENTS, "--output", "json"];
    let table = cluster.run(&describe).await?.ok()?.json()?;
    assert_eq!(table["primary_key"], json!(["type", "timestamp", "id"]));
    assert_eq!((&table["time_column"], &table["append_only"]), (&json!("timestamp"), &json!(true)));
    assert_eq!(table["ttl_ms"], json!(90 * DAY_MS));
    assert_eq!(table["compaction_window_ms"], json!(DAY_MS), "{table}");
    Ok(table["table_id"].clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_events_table_is_created_again() -> Result<()> {
    let cluster = ClusterPlan::default().events().start().await?;
    wait_for_level(&cluster).await?;
    let table = EventTable::connect(&cluster).await?;
    table.wait_for("a first event", |_| true).await?;
    let before = expect_event_table(&cluster).await?;
    cluster.run(&["table", "drop", EVENTS]).await?.ok()?;
    let dropped = now_ns();
    // An administrative call.
    keep_routes(&cluster).await?;
    let is_later = |row: &Value| row["type"] == "admin_call" && time_of(row) > dropped;
    table.wait_for("an event after the drop", is_later).await?;
    let after = expect_event_table(&cluster).await?;
    assert_ne!(after, before);
    cluster.finish().await
}
