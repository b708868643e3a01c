//! Exports: the files below a prefix, read in order, give the table as of the frontier, whatever is killed.

mod bucket;
mod held_puts;
mod kills;
mod mirrors;
mod refusals;
mod replay;
mod tokens;

use std::time::Duration;

use serde_json::Value;
use tidewater_cluster_tests::cluster::Cluster;
use tidewater_cluster_tests::{HarnessError, Result, wait};

use self::replay::prefix;

/// Limit for the frontier to advance, also after kills.
const ADVANCED_WITHIN: Duration = Duration::from_secs(90);

/// Runs a command that must succeed; returns its JSON.
async fn json_of(cluster: &Cluster, args: &[&str]) -> Result<Value> {
    cluster.run(&[args, &["--output", "json"]].concat()).await?.ok()?.json()
}

/// Returns the only export.
async fn export(cluster: &Cluster) -> std::result::Result<Value, String> {
    let listed = json_of(cluster, &["export", "list"]).await.map_err(|error| error.to_string())?;
    listed.get(0).cloned().ok_or_else(|| "no export is listed".to_owned())
}

/// Creates the export `lake` of a table; its first step may not be completed yet.
async fn create(cluster: &Cluster, table: &str) -> Result<Value> {
    let url = format!("file://{}", prefix(cluster).display());
    json_of(cluster, &["export", "create", "lake", "--table", table, "--to", &url, "--every", "1s"])
        .await
}

/// Waits until the frontier is at or above an epoch; returns it.
async fn frontier_from(cluster: &Cluster, epoch: u64) -> Result<u64> {
    wait::until("the export advances", ADVANCED_WITHIN, || async {
        let export = export(cluster).await?;
        let frontier = export["frontier"].as_u64();
        frontier.filter(|frontier| *frontier >= epoch).ok_or_else(|| export.to_string())
    })
    .await
}

/// Returns the epoch of the last barrier.
async fn last_epoch(cluster: &Cluster) -> Result<u64> {
    let export = export(cluster).await.map_err(HarnessError::violated)?;
    export["upper"].as_u64().ok_or_else(|| HarnessError::violated(export.to_string()))
}

/// Waits until the export has the changes up to now.
async fn catch_up(cluster: &Cluster) -> Result<()> {
    let last = last_epoch(cluster).await?;
    frontier_from(cluster, last).await.map(drop)
}
