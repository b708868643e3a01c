//! Data nodes stay within `--memory-limit`, whatever is sent to them.

use tidewater_cluster_tests::cluster::{LOG_TABLE, Plan};
use tidewater_cluster_tests::workload::{Load, Workload};
use tidewater_cluster_tests::{HarnessError, Result};

use crate::support::{rows_in_files, within_memory};

/// The least that is accepted.
const LIMIT_MIB: u64 = 768;
/// Bytes that are written, as a multiple of the limit.
const TIMES: u64 = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_sustained_ingest() -> Result<()> {
    let cluster = Plan::default().memory_limit(&format!("{LIMIT_MIB}MiB")).start().await?;
    cluster.create_log_table().await?;
    let load = Load { writers: 6, rows: 2_000, note: 400, ..Load::flat_out() };
    let write = u64::try_from(load.rows).unwrap_or(0) * load.note as u64;
    let load = Workload::start(&cluster, load).await?;
    for part in 1..=TIMES {
        load.progress((LIMIT_MIB << 20) / write).await?;
        println!("after {part} times the limit:");
        within_memory(&cluster, LIMIT_MIB)?;
    }
    let attempts = load.stop().await?;
    if rows_in_files(&cluster, LOG_TABLE).await? == 0 {
        return Err(HarnessError::violated("nothing was flushed: that was no sustained ingest"));
    }
    // A scan of everything is part of what the limit is for.
    println!("{}", cluster.verify(&attempts).await?);
    within_memory(&cluster, LIMIT_MIB)?;
    cluster.finish().await
}
