//! Memory of compactors stays within `--memory-limit` for inputs of any size.

use tidewater_cluster_tests::Result;
use tidewater_cluster_tests::cluster::ClusterPlan;

use super::incompressible_table::Noise;
use super::{expect, expect_committed_by, wait_for_compactors};

/// Memory limit of the data node.
const DATA_LIMIT: u64 = 1 << 30;

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn region_of_many_runs_is_compacted_in_passes() -> Result<()> {
    // An open file takes about 31 MiB, 12 files more than either node has.
    for (compactors, least_passes) in [(1, 5), (0, 2)] {
        let plan = ClusterPlan::default().nodes(1, 1, compactors);
        let mut cluster = plan.env("TIDEWATER_COMPACTION", "off").prepare().await?;
        let limit = |bytes: u64| ("TIDEWATER_MEMORY_LIMIT".to_owned(), bytes.to_string());
        cluster.data[0].spec.env.push(limit(DATA_LIMIT));
        for compactor in &mut cluster.compactors {
            compactor.spec.env.push(limit(LIMIT));
        }
        cluster.start_all().await?;
        cluster.wait_until_healthy().await?;
        let table = Noise { runs: 12, rows: 40_000 }.load(&cluster).await?;
        expect("each load is a file", table.files == 12, table.files)?;
        let mut node = 0;
        for compactor in &cluster.compactors {
            node = cluster.node_id(&compactor.spec).await?;
            wait_for_compactors(&cluster).await?;
        }
        let compact = ["region", "compact", &table.region, "--output", "json"];
        let report = cluster.run(&compact).await?.ok()?.json()?;
        println!("{report}");
        expect("the compactor is used if there is one", report["node_id"] == node, &report)?;
        let passes = report["passes"].as_u64().unwrap_or(0);
        expect("the runs are merged in passes", passes >= least_passes, &report)?;
        let files = cluster.run(&["region", "files", &table.region, "--output", "json"]).await?;
        let files = files.ok()?.json()?.as_array().map_or(0, Vec::len);
        expect("one file is left", files == 1, files)?;
        for (node, limit) in cluster
            .compactors
            .iter()
            .map(|node| (node, LIMIT))
            .chain([(&cluster.data[0], DATA_LIMIT)])
        {
            let peak = node.memory()?.peak;
            println!("peak of {} MiB within {} MiB", peak >> 20, limit >> 20);
            expect("the node stays within its limit", peak <= limit, peak)?;
        }
        table.expect_all_rows().await?;
        let again = cluster.run(&compact).await?.ok()?.json()?;
        expect("nothing is left to compact", again["job_id"].is_null(), &again)?;
        cluster.finish().await?;
    }
    Ok(())
}
