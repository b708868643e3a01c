//! A job writes several files, and one of them cannot be written.

use tidewater_cluster_tests::Result;
use tidewater_cluster_tests::cluster::{Plan, Store};
use tidewater_cluster_tests::s3::{Fault, Mode};

use super::noise::Noise;
use super::{Setting, done_by, expect};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_fails_as_a_whole_when_one_of_its_files_cannot_be_written() -> Result<()> {
    let plan = Plan::default().nodes(1, 1, 2).store(Store::S3);
    let setting = Setting::planned(plan.env("TIDEWATER_MEMORY_LIMIT", "4GiB")).await?;
    let table = Noise { runs: 2, rows: 400_000 }.load(&setting.cluster).await?;
    let (first, second) = (&setting.cluster.compactors[0], setting.compactor(1).await?);
    // A part of one file; all other puts go well.
    let fault = Fault::of(Mode::Conflict).on_puts().on_path("data").of_node(&first.spec.name);
    setting.s3().fault(fault.times(1)).await?;
    let compact = ["region", "compact", &table.region, "--remote", "--output", "json"];
    let report = done_by(setting.cluster.run(&compact).await?, second, table.files)?;
    expect("it struck", setting.s3().hits().await? == 1, ())?;
    let log = first.log().text()?;
    expect("several were written", log.contains("parallelism=2"), first.log().tail())?;
    setting.logged(0, "outcome=\"failed\"").await?;
    expect("nothing is left out", report["rows_written"] == table.rows(), &report)?;
    table.all_is_there().await?;
    setting.conclude().await
}
