//! The disk of the object store fills up during compactions.

use tidewater_cluster_tests::cluster::{Cluster, ClusterPlan, LOG_TABLE, SmallDiskUse};
use tidewater_cluster_tests::disk::SmallDisk;
use tidewater_cluster_tests::workload::{LoadOptions, Workload};
use tidewater_cluster_tests::{Result, wait};

use super::incompressible_table::{Loaded, Noise};
use super::{expect, expect_committed_by};
use crate::support::{SETTLED_WITHIN, conclude};

/// Waits until a compaction succeeds on the compactor, which requires disk space and a data node that
/// knows the compactor.
async fn wait_for_compaction(cluster: &Cluster, table: &Loaded) -> Result<()> {
    let node = cluster.node_id(&cluster.compactors[0].spec).await?;
    let compact = ["region", "compact", &table.region, "--remote", "--output", "json"];
    wait::until("a compaction succeeds on the compactor", SETTLED_WITHIN, || async {
        let output = cluster.run(&compact).await;
        let report = output.and_then(|output| expect_committed_by(output, node, table.files));
        report.map(drop).map_err(|error| error.to_string())
    })
    .await
}

/// Runs garbage collection; returns the number of deleted objects.
async fn collect_garbage(cluster: &Cluster) -> Result<u64> {
    let output = cluster.run(&["gc", "--output", "json"]).await?.ok()?.json()?;
    Ok(output["deleted"].as_u64().unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compaction_recovers_after_the_object_store_disk_fills_up() -> Result<()> {
    let plan = ClusterPlan::default().nodes(1, 1, 1).small_disk(SmallDiskUse::Store);
    let plan = plan.env("TIDEWATER_COMPACTION", "off").env("TIDEWATER_GC_GRACE", "1s");
    let mut cluster = plan.prepare().await?;
    if !cluster.disk.as_ref().is_some_and(SmallDisk::is_small) {
        println!("skipped: cannot mount a disk that can be filled");
        return cluster.finish().await;
    }
    // Without a reserve, the error comes from the disk itself.
    let none = ("TIDEWATER_DISK_RESERVE".to_owned(), "0".to_owned());
    cluster.compactors[0].spec.env.insert(0, none);
    cluster.start_all().await?;
    cluster.wait_until_healthy().await?;
    cluster.create_log_table().await?;
    let load = Workload::start(&cluster, LoadOptions::default()).await?;
    load.progress(1).await?;
    cluster.flush(LOG_TABLE).await?.ok()?;
    let table = Noise { runs: 3, rows: 200_000 }.load(&cluster).await?;
    let pids = [cluster.data[0].pid(), cluster.compactors[0].pid()];
    let disk = cluster.disk.as_ref().expect("planned");

    // The files to compact fit, their replacements do not.
    disk.fill_except(table.bytes / 5)?;
    let compact = ["region", "compact", &table.region];
    let output = cluster.run(&compact).await?;
    expect("the job fails", output.status == Some(5), &output)?;
    output.expect_stderr(&["disk"])?;
    // Flushes fail as well, and writes are still accepted. The outputs of the job are deleted.
    disk.fill()?;
    let flush = ["region", "flush", "--table", LOG_TABLE, "--timeout", "10s"];
    let flushed = cluster.run(&flush).await?;
    expect("a flush fails", flushed.status == Some(5), &flushed)?;
    flushed.expect_stderr(&["disk"])?;
    load.progress(10).await?;
    table.expect_all_rows().await?;

    disk.empty()?;
    wait_for_compaction(&cluster, &table).await?;
    cluster.flush(LOG_TABLE).await?.ok()?;
    table.expect_all_rows().await?;
    let now = [cluster.data[0].pid(), cluster.compactors[0].pid()];
    expect("no process has exited", now == pids, (now, pids))?;
    wait::until("outputs of failed attempts are collected", SETTLED_WITHIN, || async {
        match collect_garbage(&cluster).await.map_err(|error| error.to_string())? {
            0 => Err("nothing was deleted".to_owned()),
            _ => Ok(()),
        }
    })
    .await?;
    table.expect_all_rows().await?;
    conclude(cluster, load).await.map(drop)
}
