//! Replay of an export by DuckDB.

use std::path::{Path, PathBuf};

use tidewater_cluster_tests::cluster::Cluster;
use tidewater_cluster_tests::s3::python;
use tidewater_cluster_tests::{HarnessError, Result, wait};

use super::{export, json_of};
use crate::support::SETTLED_WITHIN;

/// Hold that keeps the epoch of the comparison.
const HOLD: &str = "comparison";

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

/// Compares a table as of the frontier of its export with the files of the export.
pub(super) async fn expect_replay(cluster: &Cluster, name: &str, table: &str) -> Result<()> {
    let frontier = held_frontier(cluster, table).await?.to_string();
    let out = cluster.directory().join(format!("{name}-{frontier}.csv")).display().to_string();
    let scan = ["scan", table, "--as-of", &frontier, "--format", "csv", "--out", &out];
    cluster.run(&scan).await?.ok()?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/lib/export_replay.py");
    let prefix = prefix(cluster);
    let output = tokio::process::Command::new(python()?)
        .arg(script)
        .arg(&prefix)
        .args([&frontier, &out, "time_hour, carrier, flight"])
        .output()
        .await
        .map_err(HarnessError::io("run scripts/lib/export_replay.py"))?;
    let (stdout, stderr) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !output.status.success() {
        return Err(HarnessError::violated(format!("export_replay.py: {stdout}{stderr}")));
    }
    println!("{}", stdout.trim());
    json_of(cluster, &["hold", "release", HOLD]).await?;
    Ok(())
}
