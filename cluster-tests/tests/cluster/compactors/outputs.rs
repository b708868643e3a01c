//! Jobs with several outputs of which one cannot be written.

use tidewater_cluster_tests::Result;
use tidewater_cluster_tests::cluster::{ClusterPlan, Store};
use tidewater_cluster_tests::s3::{Fault, Mode};

use super::incompressible_table::Noise;
use super::{CompactionScenario, expect, expect_committed_by};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn job_fails_completely_when_one_output_fails() -> Result<()> {
    let plan = ClusterPlan::default().nodes(1, 1, 2).store(Store::S3);
    let scenario =
        CompactionScenario::start_with(plan.env("TIDEWATER_MEMORY_LIMIT", "4GiB")).await?;
    let table = Noise { runs: 2, rows: 400_000 }.load(&scenario.cluster).await?;
    let first = &scenario.cluster.compactors[0];
    let second = scenario.compactor(1).await?;
    // The fault affects one part of one file; all other puts succeed.
    let fault = Fault::new(Mode::Conflict).on_puts().on_path("data").from_node(&first.spec.name);
    scenario.s3().inject(fault.times(1)).await?;
    let compact = ["region", "compact", &table.region, "--remote", "--output", "json"];
    let report = expect_committed_by(scenario.cluster.run(&compact).await?, second, table.files)?;
    expect("the fault has an effect", scenario.s3().hits().await? == 1, ())?;
    let log = first.log().text()?;
    expect("the job has several outputs", log.contains("parallelism=2"), first.log().tail())?;
    scenario.wait_for_log(0, "outcome=\"failed\"").await?;
    expect("all rows are written", report["rows_written"] == table.rows(), &report)?;
    table.expect_all_rows().await?;
    scenario.conclude().await
}
