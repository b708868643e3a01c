//! Compactors stay within `--memory-limit`, however much they merge.

use tidewater_cluster_tests::Result;
use tidewater_cluster_tests::cluster::Plan;

use super::noise::Noise;
use super::{compactors_are_known, done_by, expect};

/// The least that is accepted.
const LIMIT: u64 = 256 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_merge_of_several_times_its_memory_stays_within_the_limit() -> Result<()> {
    let plan = Plan::default().nodes(1, 1, 1).env("TIDEWATER_COMPACTION", "off");
    let mut cluster = plan.prepare().await?;
    let limit = ("TIDEWATER_MEMORY_LIMIT".to_owned(), LIMIT.to_string());
    cluster.compactors[0].spec.env.push(limit);
    cluster.start_all().await?;
    cluster.healthy().await?;
    let table = Noise { runs: 3, rows: 1_600_000 }.load(&cluster).await?;
    expect("that is several times the limit", table.bytes >= 3 * LIMIT, table.bytes)?;

    let compactor = &cluster.compactors[0];
    let node = cluster.node_id(&compactor.spec).await?;
    compactors_are_known(&cluster).await?;
    let compact = ["region", "compact", &table.region, "--remote", "--output", "json"];
    let report = done_by(cluster.run(&compact).await?, node, table.files)?;
    expect("nothing is left out", report["rows_written"] == table.rows(), &report)?;
    let peak = compactor.memory()?.peak;
    println!("{} MiB were merged with a peak of {} MiB", table.bytes >> 20, peak >> 20);
    expect("a compactor stays within its limit", peak <= LIMIT, peak)?;
    table.all_is_there().await?;
    cluster.finish().await
}
