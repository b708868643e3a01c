//! Read holds: the rows of a held epoch never change, and its versions are dropped once it is released.

mod commands;
mod drops;

use std::fs;
use std::time::Duration;

use serde_json::Value;
use tidewater_client::{AcquireHold, Client, HoldLoss};
use tidewater_cluster_tests::cluster::{Cluster, ClusterPlan, LOG_TABLE, Store};
use tidewater_cluster_tests::workload::{LoadOptions, Workload, options};
use tidewater_cluster_tests::{HarnessError, Result, wait};
use tidewater_common::ids::Epoch;

use super::{check, failed, next_epoch, rows_as_of};
use crate::splits::routes;
use crate::support::{SETTLED_WITHIN, conclude, keep_routes, wait_for_level};

/// Rows of the table whose keys are overwritten, and the number of times.
const KEYS: u64 = 2_000;
const OVERWRITES: u64 = 5;

/// Runs a command that must succeed; returns its JSON.
async fn json_of(cluster: &Cluster, args: &[&str]) -> Result<Value> {
    let args = [args, &["--output", "json"]].concat();
    cluster.run(&args).await?.ok()?.json()
}

/// Acquires a hold by the command; returns its epoch.
async fn acquire(cluster: &Cluster, args: &[&str]) -> Result<Epoch> {
    let acquired = json_of(cluster, &[&["hold", "acquire"], args].concat()).await?;
    let epoch = acquired["epoch"].as_u64();
    epoch.map(Epoch).ok_or_else(|| HarnessError::violated(acquired.to_string()))
}

async fn since_of(client: &Client, table: &str) -> std::result::Result<Epoch, String> {
    let epochs = client.table_epochs(table).await.map_err(|error| error.to_string())?;
    Ok(epochs.since)
}

/// Waits until the regions of a table can no longer be read as of an epoch.
async fn wait_until_unreadable(client: &Client, table: &str, epoch: Epoch) -> Result<()> {
    wait::until("the epoch can no longer be read", SETTLED_WITHIN, || async {
        let since = since_of(client, table).await?;
        if since > epoch { Ok(()) } else { Err(format!("since is {since}")) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_a_held_epoch_never_change() -> Result<()> {
    // Without a history, only the newest epoch could be read.
    let mut cluster = ClusterPlan::default().store(Store::S3).start().await?;
    wait_for_level(&cluster).await?;
    keep_routes(&cluster).await?;
    cluster.create_log_table_with_regions(3).await?;
    let client = Client::connect(options(&cluster)).await.map_err(failed)?;
    let load = Workload::start(&cluster, LoadOptions::default()).await?;
    load.progress(40).await?;
    let epoch = acquire(&cluster, &["backup", LOG_TABLE]).await?;
    next_epoch(&client, epoch).await?;
    let seen = [(epoch, rows_as_of(&client, epoch).await?)];
    load.progress(40).await?;
    check(&client, &seen, "later writes").await?;

    for step in ["flush", "compact"] {
        cluster.run(&["region", step, "--table", LOG_TABLE]).await?.ok()?;
    }
    cluster.run(&["gc"]).await?.ok()?;
    check(&client, &seen, "a compaction").await?;
    let refused = cluster.run(&["table", "truncate", LOG_TABLE]).await?;
    refused.status(4)?.expect_stderr(&["is held by", "backup"])?;
    let known = routes(&cluster, LOG_TABLE).await?;
    let (route, from) = (known[0]["route_id"].to_string(), known[0]["group_id"].as_u64());
    let to = if from == Some(1) { "2" } else { "1" };
    cluster.run(&["route", "move", &route, "--to", to]).await?.ok()?;
    next_epoch(&client, epoch).await?;
    check(&client, &seen, "a move").await?;
    let (leader, _) = cluster.meta_leader().await?;
    cluster.meta[leader].kill().await?;
    // A later hold at the same epoch, of the next leader.
    let same = acquire(&cluster, &["second", LOG_TABLE, "--epoch", &epoch.to_string()]).await?;
    cluster.meta[leader].start().await?;
    cluster.run(&["hold", "release", "backup"]).await?.ok()?;
    let owner = cluster.owner(LOG_TABLE).await?;
    cluster.data[owner].kill().await?;
    check(&client, &seen, "kills of leaders").await?;
    cluster.data[owner].start().await?;
    if same != epoch {
        return Err(HarnessError::violated(format!("{same} instead of {epoch}")));
    }

    cluster.run(&["hold", "release", "second"]).await?.ok()?;
    wait_until_unreadable(&client, LOG_TABLE, epoch).await?;
    let count = ["scan", LOG_TABLE, "--count", "--as-of", &epoch.to_string()].map(str::to_owned);
    let count: Vec<&str> = count.iter().map(String::as_str).collect();
    cluster.run(&count).await?.status(4)?.expect_stderr(&["below since"])?;
    let late = ["hold", "acquire", "late", LOG_TABLE, "--epoch", &epoch.to_string()];
    cluster.run(&late).await?.status(4)?.expect_stderr(&["below since"])?;
    let verdict = conclude(cluster, load).await?;
    if verdict.failed > 0 {
        return Err(HarnessError::violated(format!("a write failed: {verdict}")));
    }
    Ok(())
}

/// Writes each key with another value.
async fn overwrite(cluster: &Cluster, value: u64) -> Result<()> {
    let file = cluster.directory().join("versions.csv");
    let rows: String = (0..KEYS).map(|key| format!("{key},{value}\n")).collect();
    fs::write(&file, format!("k,v\n{rows}")).map_err(HarnessError::io("a csv file"))?;
    cluster.run(&["load", "versions", &file.display().to_string()]).await?.ok()?;
    cluster.run(&["region", "flush", "--table", "versions"]).await?.ok()?;
    Ok(())
}

/// Compacts the table; returns the number of versions in its files.
async fn versions(cluster: &Cluster, region: &str) -> Result<u64> {
    cluster.run(&["region", "compact", region]).await?.ok()?;
    let files = json_of(cluster, &["region", "files", region]).await?;
    Ok(files.as_array().into_iter().flatten().filter_map(|file| file["rows"].as_u64()).sum())
}

/// Counts the rows of an epoch that have a value.
async fn count_of(cluster: &Cluster, epoch: Epoch, value: u64) -> Result<String> {
    let filter = format!("v = {value}");
    let args = ["scan", "versions", "--count", "--where", &filter, "--as-of", &epoch.to_string()]
        .map(str::to_owned);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    Ok(cluster.run(&args).await?.ok()?.stdout.trim().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compaction_drops_versions_of_a_released_epoch() -> Result<()> {
    let plan = ClusterPlan::default().nodes(1, 1, 0).env("TIDEWATER_COMPACTION", "off");
    let cluster = plan.start().await?;
    wait_for_level(&cluster).await?;
    let columns = ["--columns", "k int64, v int64", "--primary-key", "k"];
    cluster.run(&[&["table", "create", "versions"], &columns[..]].concat()).await?.ok()?;
    let region = cluster.region("versions").await?.region_id.to_string();
    let client = Client::connect(options(&cluster)).await.map_err(failed)?;
    overwrite(&cluster, 0).await?;
    let epoch = acquire(&cluster, &["h", "versions"]).await?;
    wait::until("the epoch is complete", SETTLED_WITHIN, || async {
        let epochs = client.table_epochs("versions").await.map_err(|error| error.to_string())?;
        if epochs.upper > epoch { Ok(()) } else { Err(format!("{epochs:?}")) }
    })
    .await?;
    for value in 1..=OVERWRITES {
        overwrite(&cluster, value).await?;
    }
    // The version of the held epoch and the newest one of each key; epochs between may be read, too.
    let held = versions(&cluster, &region).await?;
    if !(2 * KEYS..=(OVERWRITES + 1) * KEYS).contains(&held) {
        return Err(HarnessError::violated(format!("{held} versions while the epoch is held")));
    }
    let costs = json_of(&cluster, &["hold", "list", "--costs"]).await?;
    if costs[0]["kept_versions"] != held - KEYS || costs[0]["kept_bytes"].as_u64() < Some(KEYS) {
        return Err(HarnessError::violated(format!("{held} versions, of them {costs} held")));
    }
    let counted = count_of(&cluster, epoch, 0).await?;
    if counted != KEYS.to_string() {
        return Err(HarnessError::violated(format!("{counted} rows of the held epoch")));
    }
    cluster.run(&["hold", "release", "h"]).await?.ok()?;
    wait_until_unreadable(&client, "versions", epoch).await?;
    // Another flush: a compaction of one file may have nothing to do.
    overwrite(&cluster, 9).await?;
    let left = versions(&cluster, &region).await?;
    if left != KEYS {
        return Err(HarnessError::violated(format!("{left} versions after the release")));
    }
    cluster.run(&["table", "drop", "versions"]).await?.ok()?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn renewed_hold_outlasts_its_lease() -> Result<()> {
    let cluster = ClusterPlan::default().nodes(1, 1, 0).start().await?;
    wait_for_level(&cluster).await?;
    cluster.create_log_table().await?;
    let client = Client::connect(options(&cluster)).await.map_err(failed)?;
    let lease = Duration::from_secs(10);
    let hold = |name: &str| AcquireHold {
        name: name.to_owned(),
        holder: "a test".to_owned(),
        tables: vec![LOG_TABLE.to_owned()],
        epoch: None,
        lease,
        like: None,
    };
    client.acquire_read_hold(hold("left")).await.map_err(failed)?;
    let live = client.hold(hold("kept")).await.map_err(failed)?;
    wait::until("the hold that is not renewed expires", Duration::from_secs(60), || async {
        let left = client.read_hold("left").await.map_err(|error| error.to_string())?;
        left.map_or(Ok(()), |hold| Err(format!("{hold:?}")))
    })
    .await?;
    tokio::time::sleep(lease).await;
    let kept = client.read_hold("kept").await.map_err(failed)?;
    if kept.is_none() || live.is_lost() {
        return Err(HarnessError::violated("a renewed hold is lost"));
    }
    // Another program releases it.
    cluster.run(&["hold", "release", "kept"]).await?.ok()?;
    let loss = tokio::time::timeout(lease, live.lost()).await.map_err(failed)?;
    if loss != HoldLoss::NotFound {
        return Err(HarnessError::violated(format!("{loss:?}")));
    }
    cluster.finish().await
}
