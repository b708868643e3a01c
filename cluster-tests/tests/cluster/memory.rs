//! Memory of data nodes stays within `--memory-limit` under any load.

use tidewater_cluster_tests::cluster::{ClusterPlan, LOG_TABLE};
use tidewater_cluster_tests::workload::{LoadOptions, Workload};
use tidewater_cluster_tests::{HarnessError, Result};

use crate::support::{expect_within_memory, rows_in_files};

/// Minimum memory limit of a data node.
const LIMIT_MIB: u64 = 768;
/// Bytes to write, as a multiple of the limit.
const TIMES: u64 = 2;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_node_stays_within_memory_limit_during_ingest() -> Result<()> {
    let cluster = ClusterPlan::default().memory_limit(&format!("{LIMIT_MIB}MiB")).start().await?;
    cluster.create_log_table().await?;
    let load = LoadOptions { writers: 6, rows: 2_000, note: 400, ..LoadOptions::unthrottled() };
    let write = u64::try_from(load.rows).unwrap_or(0) * load.note as u64;
    let load = Workload::start(&cluster, load).await?;
    for part in 1..=TIMES {
        load.progress((LIMIT_MIB << 20) / write).await?;
        println!("after {part} times the limit:");
        expect_within_memory(&cluster, LIMIT_MIB)?;
    }
    let attempts = load.stop().await?;
    if rows_in_files(&cluster, LOG_TABLE).await? == 0 {
        return Err(HarnessError::violated("nothing was flushed: the ingest was too small"));
    }
    // The limit includes the memory of a complete scan.
    println!("{}", cluster.verify(&attempts).await?);
    expect_within_memory(&cluster, LIMIT_MIB)?;
    cluster.finish().await
}
