//! A region of many runs: a real data node opens, reads and compacts it within its memory limit.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray,
};
use arrow::datatypes::SchemaRef;
use tidewater_client::{Client, WriterOptions};
use tidewater_cluster_tests::cluster::{Cluster, ClusterPlan};
use tidewater_cluster_tests::workload::options;
use tidewater_cluster_tests::{HarnessError, Result};
use tidewater_common::ids::RegionId;

use crate::support::{expect_within_memory, live_files, setting};

const TABLE: &str = "measured";
/// Minimum memory limit of a data node.
const LIMIT_MIB: u64 = 768;
const DEVICES: i64 = 200;

fn violation(error: impl std::fmt::Display) -> HarnessError {
    HarnessError::violated(error.to_string())
}

/// Returns the rows of one hour, which are of all devices.
fn hour(schema: &SchemaRef, hour: i64, rows: i64) -> Result<RecordBatch> {
    let begin = 1_700_000_000_000 + hour * 3_600_000;
    let noise = |row: i64| (row * 7_919 + hour * 104_729).rem_euclid(1_000_003);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values((0..rows).map(|row| row % DEVICES))),
        Arc::new(TimestampMillisecondArray::from_iter_values((0..rows).map(|row| begin + row))),
        Arc::new(Float64Array::from_iter_values((0..rows).map(|row| noise(row) as f64))),
        Arc::new(StringArray::from_iter_values(
            (0..rows).map(|row| format!("{:064x}", u128::from(noise(row).unsigned_abs()).pow(3))),
        )),
    ];
    RecordBatch::try_new(schema.clone(), columns).map_err(violation)
}

/// Creates a table with one region, and writes and flushes `runs` hours.
async fn create_runs(cluster: &Cluster, runs: i64, rows: i64) -> Result<()> {
    let columns = "device int64, at timestamp(ms), v float64, note utf8";
    let key = ["--primary-key", "device,at", "--time-column", "at"];
    let create = ["table", "create", TABLE, "--columns", columns];
    cluster.run(&[&create[..], &key].concat()).await?.ok()?;
    let region = RegionId(cluster.region(TABLE).await?.region_id);
    let client = Client::connect(options(cluster)).await.map_err(violation)?;
    let writer = client.writer(TABLE, WriterOptions::default()).await.map_err(violation)?;
    let schema = writer.table().schema.arrow();
    for number in 0..runs {
        writer.put_rows(hour(&schema, number, rows)?).await.map_err(violation)?;
        client.flush_region(region).await.map_err(violation)?;
    }
    Ok(())
}

/// Reads all rows in several ways; fails if one is missing or the node exceeds its memory limit.
async fn expect_rows(cluster: &Cluster, runs: i64, rows: i64) -> Result<()> {
    let total = u64::try_from(runs * rows).unwrap_or(0);
    let of_device = u64::try_from(runs * (rows / DEVICES)).unwrap_or(0);
    let path = cluster.directory().join("rows.csv");
    let out = path.to_string_lossy();
    let scan = ["scan", TABLE, "--format", "csv", "--timeout", "600s", "--out", &out];
    cluster.run(&scan).await?.ok()?;
    let text = std::fs::read(&path).map_err(HarnessError::io("read the rows"))?;
    let scanned = text.iter().filter(|byte| **byte == b'\n').count() as u64 - 1;
    let found = [
        ("scanned", scanned, total),
        ("counted", cluster.count(TABLE).await?, total),
        ("of a device", cluster.count_where(TABLE, Some("device = 7")).await?, of_device),
    ];
    for (what, found, expected) in found {
        if found != expected {
            return Err(violation(format!("{found} rows {what}, expected {expected}")));
        }
    }
    expect_within_memory(cluster, LIMIT_MIB)
}

// `TIDEWATER_RUNS=720 TIDEWATER_RUN_ROWS=40000` with a release binary and `--profile long` is a month of
// hourly windows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn region_of_many_runs_fits_into_memory() -> Result<()> {
    let runs: i64 = setting("TIDEWATER_RUNS", 100);
    let rows: i64 = setting("TIDEWATER_RUN_ROWS", 1_000);
    let plan = ClusterPlan::default().nodes(1, 1, 0).env("TIDEWATER_COMPACTION", "off");
    let mut cluster = plan.memory_limit(&format!("{LIMIT_MIB}MiB")).start().await?;
    create_runs(&cluster, runs, rows).await?;
    let files = live_files(&cluster, TABLE).await?.len();
    if i64::try_from(files) != Ok(runs) {
        return Err(violation(format!("{files} files, expected {runs}")));
    }
    // A new process opens the region with all its runs.
    cluster.data[0].terminate().await?;
    cluster.data[0].start().await?;
    cluster.wait_until_healthy().await?;
    println!("{runs} runs:");
    expect_rows(&cluster, runs, rows).await?;
    cluster.run(&["region", "compact", "--table", TABLE]).await?.ok()?;
    let files = live_files(&cluster, TABLE).await?.len();
    println!("compacted into {files} files:");
    if i64::try_from(files).is_ok_and(|files| files >= runs / 10) {
        return Err(violation(format!("{files} files are left")));
    }
    expect_rows(&cluster, runs, rows).await?;
    cluster.finish().await
}
