//! Replay of an export by DuckDB.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use tidewater_cluster_tests::cluster::Cluster;
use tidewater_cluster_tests::s3::python;
use tidewater_cluster_tests::{HarnessError, Result, wait};

use super::{export, json_of};
use crate::support::SETTLED_WITHIN;

/// In the place of a key: an append-only table, in which no row replaces another one.
pub(super) const APPEND_ONLY: &str = "--append-only";

/// Hold that keeps the epoch of the comparison.
const HOLD: &str = "comparison";

/// Rows of a table that equal those of its export, and the steps that give them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Replayed {
    pub(super) rows: u64,
    pub(super) steps: u64,
    /// Versions of rows in the files of the steps.
    pub(super) versions: u64,
    /// Versions that delete a row.
    pub(super) deletes: u64,
}

/// Directory of the export of a cluster.
pub(super) fn prefix(cluster: &Cluster) -> PathBuf {
    cluster.export_directory().join("lake")
}

/// Holds the table at the frontier of the export, which advances; returns the frontier.
async fn held_frontier(cluster: &Cluster, table: &str) -> Result<u64> {
    wait::until("the frontier is held", SETTLED_WITHIN, || async {
        let export = export(cluster).await?;
        let frontier = export["frontier"].as_u64().ok_or_else(|| export.to_string())?;
        let epoch = frontier.to_string();
        let acquire = ["hold", "acquire", HOLD, table, "--epoch", &epoch];
        // Below since if the export has advanced in between.
        let acquired = cluster.run(&acquire).await.map_err(|error| error.to_string())?;
        acquired.ok().map_err(|error| error.to_string())?;
        Ok(frontier)
    })
    .await
}

/// Writes the rows of a table as of an epoch, which is held, to a file.
pub(super) async fn scan_as_of(cluster: &Cluster, table: &str, epoch: u64) -> Result<PathBuf> {
    let path = cluster.directory().join(format!("{table}-{epoch}.csv"));
    let epoch = epoch.to_string();
    let out = path.display().to_string();
    let scan = ["scan", table, "--as-of", &epoch, "--format", "csv", "--out", &out];
    cluster.run(&scan).await?.ok()?;
    Ok(path)
}

/// Compares the rows of a table as of an epoch with the files of the export. `key`: columns of the primary key, or
/// [`APPEND_ONLY`].
pub(super) async fn expect_rows_of(
    cluster: &Cluster,
    epoch: u64,
    rows: &Path,
    key: &str,
) -> Result<Replayed> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/lib/export_replay.py");
    let output = tokio::process::Command::new(python()?)
        .arg(script)
        .arg(prefix(cluster))
        .arg(epoch.to_string())
        .arg(rows)
        .arg(key)
        .output()
        .await
        .map_err(HarnessError::io("run scripts/lib/export_replay.py"))?;
    let stdout = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        return Err(HarnessError::violated(format!("export_replay.py: {stdout}{stderr}")));
    }
    println!("{}", stdout.trim());
    serde_json::from_str(&stdout).map_err(|error| HarnessError::violated(error.to_string()))
}

/// Compares a table as of the frontier of its export with the files of the export. `key`: as that of [`expect_rows_of`].
pub(super) async fn expect_replay(cluster: &Cluster, table: &str, key: &str) -> Result<Replayed> {
    let frontier = held_frontier(cluster, table).await?;
    let rows = scan_as_of(cluster, table, frontier).await?;
    let replayed = expect_rows_of(cluster, frontier, &rows, key).await?;
    json_of(cluster, &["hold", "release", HOLD]).await?;
    Ok(replayed)
}
