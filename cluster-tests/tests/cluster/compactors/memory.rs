//! Memory of compactors stays within `--memory-limit` for inputs of any size.

use tidewater_cluster_tests::Result;
use tidewater_cluster_tests::cluster::ClusterPlan;

use super::incompressible_table::Noise;
use super::{expect, expect_committed_by, wait_for_compactors};

/// Minimum memory limit of a compactor.
const LIMIT: u64 = 256 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compaction_of_large_table_stays_within_memory_limit() -> Result<()> {
    let plan = ClusterPlan::default().nodes(1, 1, 1).env("TIDEWATER_COMPACTION", "off");
    let mut cluster = plan.prepare().await?;
    let limit = ("TIDEWATER_MEMORY_LIMIT".to_owned(), LIMIT.to_string());
    cluster.compactors[0].spec.env.push(limit);
    cluster.start_all().await?;
    cluster.wait_until_healthy().await?;
    let table = Noise { runs: 3, rows: 1_600_000 }.load(&cluster).await?;
    expect("the table is larger than the limit", table.bytes >= 3 * LIMIT, table.bytes)?;

    let compactor = &cluster.compactors[0];
    let node = cluster.node_id(&compactor.spec).await?;
    wait_for_compactors(&cluster).await?;
    let compact = ["region", "compact", &table.region, "--remote", "--output", "json"];
    let report = expect_committed_by(cluster.run(&compact).await?, node, table.files)?;
    expect("all rows are written", report["rows_written"] == table.rows(), &report)?;
    let peak = compactor.memory()?.peak;
    println!("compacted {} MiB with a peak of {} MiB", table.bytes >> 20, peak >> 20);
    expect("the compactor stays within its limit", peak <= LIMIT, peak)?;
    table.expect_all_rows().await?;
    cluster.finish().await
}
