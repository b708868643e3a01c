//! Data files are read by DuckDB, pyarrow, Polars and PyIceberg, with the values and types of the table.

use std::path::Path;

use tidewater_cluster_tests::cluster::Cluster;
use tidewater_cluster_tests::s3::python;
use tidewater_cluster_tests::{HarnessError, Result};

use crate::support::live_files;

const ROWS: u64 = 1_000;
/// The columns of `scripts/lib/read_times.py`, in its order.
const COLUMNS: &str = "id int64, sec timestamp(s), milli timestamp(ms), micro timestamp(us), \
                       sec_utc timestamp(s, UTC), milli_offset timestamp(ms, +01:00), \
                       micro_paris timestamp(us, Europe/Paris)";

async fn script(args: &[&str]) -> Result<String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/lib/read_times.py");
    let output = tokio::process::Command::new(python()?)
        .arg(script)
        .args(args)
        .output()
        .await
        .map_err(HarnessError::io("run scripts/lib/read_times.py"))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        return Err(HarnessError::violated(format!("{}: {stderr}", args[0])));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Flushes all regions of a table.
async fn flush_all(cluster: &Cluster, table: &str) -> Result<()> {
    let catalog = cluster.catalog().await?;
    let id = catalog.tables.iter().find(|entry| entry.name == table).map(|entry| entry.table_id);
    let prefix = id.unwrap_or_default().to_be_bytes();
    for route in catalog.routes.iter().filter(|route| route.start.starts_with(&prefix)) {
        cluster.run(&["region", "flush", &route.route_id.to_string()]).await?.ok()?;
    }
    Ok(())
}

/// Reads the live files of a table with all programs.
async fn check_files(cluster: &Cluster, table: &str) -> Result<()> {
    let files = live_files(cluster, table).await?;
    let files: Vec<String> =
        files.iter().map(|file| cluster.objects().join(file).display().to_string()).collect();
    let args: Vec<&str> =
        std::iter::once("check").chain(files.iter().map(String::as_str)).collect();
    let found = script(&args).await?;
    println!("{table}, {} files: {found}", files.len());
    let found: serde_json::Value =
        serde_json::from_str(&found).map_err(|error| HarnessError::violated(error.to_string()))?;
    for reader in ["duckdb", "pyarrow", "polars", "pyiceberg"] {
        if found[reader] != ROWS {
            return Err(HarnessError::violated(format!("{reader} did not read all rows: {found}")));
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_programs_read_times_of_data_files() -> Result<()> {
    let cluster = Cluster::start().await?;
    let csv = cluster.directory().join("times.csv").display().to_string();
    script(&["prepare", &csv]).await?;
    for (table, how) in [("written", &[][..]), ("bulk", &["--bulk"][..])] {
        let create = ["table", "create", table, "--columns", COLUMNS, "--primary-key", "id"];
        let spread = ["--distribute", "hash(id)", "--regions", "2"];
        cluster.run(&[&create[..], &spread].concat()).await?.ok()?;
        cluster.run(&[&["load", table, &csv], how].concat()).await?.ok()?;
        flush_all(&cluster, table).await?;
        check_files(&cluster, table).await?;
        // Newer versions of all rows, and a compaction of both.
        cluster.run(&["load", table, &csv]).await?.ok()?;
        flush_all(&cluster, table).await?;
        cluster.run(&["region", "compact", "--table", table]).await?.ok()?;
        check_files(&cluster, table).await?;
    }
    cluster.finish().await
}
