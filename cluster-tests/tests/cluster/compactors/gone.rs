//! M3: all compactors are gone for good. Data nodes go on serving, and merge themselves.

use tidewater_cluster_tests::cluster::{LOG_TABLE, Plan};
use tidewater_cluster_tests::metrics::Metrics;
use tidewater_cluster_tests::workload::{Load, Workload};
use tidewater_cluster_tests::{Result, wait};

use super::{compactors_are_known, expect};
use crate::support::{SETTLED_WITHIN, conclude, live_files};

const FLUSHES: usize = 40;
/// Four files become one, sixteen of them one again: so often is a row written at most, flushes aside.
const MOST_REWRITES: u64 = 2;
/// Fewer than four on each of three levels.
const MOST_FILES: usize = 9;
/// A region with more is merged before all else, by whoever can: it may grow while that goes on.
const MOST_FILES_MEANWHILE: usize = 24;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_any_files_are_few_and_rewritten_seldom() -> Result<()> {
    let plan = Plan::default().nodes(1, 1, 2).env("TIDEWATER_COMPACTION_EVERY", "100ms");
    let mut cluster = plan.start().await?;
    cluster.create_log_table().await?;
    let load = Workload::start(&cluster, Load::default()).await?;
    compactors_are_known(&cluster).await?;
    for compactor in &mut cluster.compactors {
        compactor.kill().await?;
    }
    let mut most = 0;
    for _ in 0..FLUSHES {
        load.progress(20).await?;
        cluster.flush(LOG_TABLE).await?.ok()?;
        most = most.max(live_files(&cluster, LOG_TABLE).await?.len());
    }
    expect("few files, at any time", most <= MOST_FILES_MEANWHILE, most)?;
    let files = wait::until("what is due is merged", SETTLED_WITHIN, || async {
        let files = live_files(&cluster, LOG_TABLE).await.map_err(|error| error.to_string())?.len();
        if files <= MOST_FILES { Ok(files) } else { Err(format!("{files} files")) }
    })
    .await?;
    let metrics = Metrics::of(cluster.data[0].spec.listen).await?;
    let flushed = metrics.sum("tidewater_flush_rows_total");
    let rewritten = metrics.sum("tidewater_compaction_rows_written_total");
    let here = metrics.labelled("tidewater_compaction_jobs_total", "outcome", "committed_here");
    println!(
        "{files} files, at most {most}; {flushed} rows flushed, {rewritten} rewritten in {here} jobs"
    );
    expect("the data node merges", here >= 3, here)?;
    expect("few rewrites", rewritten <= MOST_REWRITES * flushed, (rewritten, flushed))?;
    conclude(cluster, load).await.map(drop)
}
