//! Permanent loss of all compactors (M3): data nodes continue to serve and compact locally.

use tidewater_cluster_tests::cluster::{Cluster, ClusterPlan, LOG_TABLE};
use tidewater_cluster_tests::metrics::Metrics;
use tidewater_cluster_tests::workload::{LoadOptions, Workload};
use tidewater_cluster_tests::{Result, wait};

use super::{expect, wait_for_compactors};
use crate::support::{SETTLED_WITHIN, conclude, live_files};

const FLUSHES: usize = 40;
/// Maximum rewrites of a row, not counting flushes: four files become one, and then sixteen become one.
const MAX_REWRITES: u64 = 2;
/// Maximum number of files after compaction: fewer than four on each of three levels.
const MAX_FILES: usize = 9;
/// Maximum number of files at any time. A region with more files is compacted first, and may grow during
/// that compaction.
const MAX_FILES_DURING_COMPACTION: usize = 24;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_node_compacts_locally_without_compactors() -> Result<()> {
    let plan = ClusterPlan::default().nodes(1, 1, 2).env("TIDEWATER_COMPACTION_EVERY", "100ms");
    let mut cluster = plan.start().await?;
    cluster.create_log_table().await?;
    let load = Workload::start(&cluster, LoadOptions::default()).await?;
    wait_for_compactors(&cluster).await?;
    expect_described_metrics(&cluster).await?;
    for compactor in &mut cluster.compactors {
        compactor.kill().await?;
    }
    let mut max_files = 0;
    for _ in 0..FLUSHES {
        load.progress(20).await?;
        cluster.flush(LOG_TABLE).await?.ok()?;
        max_files = max_files.max(live_files(&cluster, LOG_TABLE).await?.len());
    }
    let few = max_files <= MAX_FILES_DURING_COMPACTION;
    expect("the number of files is bounded at any time", few, max_files)?;
    let files = wait::until("all due files are compacted", SETTLED_WITHIN, || async {
        let files = live_files(&cluster, LOG_TABLE).await.map_err(|error| error.to_string())?.len();
        if files <= MAX_FILES { Ok(files) } else { Err(format!("{files} files")) }
    })
    .await?;
    let metrics = Metrics::fetch(cluster.data[0].spec.listen).await?;
    let flushed = metrics.sum("tidewater_flush_rows_total");
    let rewritten = metrics.sum("tidewater_compaction_rows_written_total");
    let jobs = metrics.labelled("tidewater_compaction_jobs_total", "outcome", "committed_here");
    println!(
        "{files} files, at most {max_files}; {flushed} rows flushed, {rewritten} rewritten in {jobs} jobs"
    );
    expect("the data node compacts", jobs >= 3, jobs)?;
    let few = rewritten <= MAX_REWRITES * flushed;
    expect("the number of rewrites is bounded", few, (rewritten, flushed))?;
    expect_described_metrics(&cluster).await?;
    conclude(cluster, load).await.map(drop)
}

/// Verifies that every metric of every running node has a HELP line.
async fn expect_described_metrics(cluster: &Cluster) -> Result<()> {
    let nodes = cluster.meta.iter().chain(&cluster.data).chain(&cluster.compactors);
    for node in nodes.filter(|node| node.is_running()) {
        let metrics = Metrics::fetch(node.spec.listen).await?;
        expect("the node has metrics", !metrics.is_empty(), &node.spec.name)?;
        let undescribed = metrics.undescribed();
        expect("every metric has a HELP line", undescribed.is_empty(), undescribed)?;
    }
    Ok(())
}
