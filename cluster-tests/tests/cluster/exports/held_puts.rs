//! Exports to a bucket that holds the puts of files with rows: a step is in progress until the bucket accepts them.

use tidewater_cluster_tests::cluster::{Cluster, ClusterPlan, LOG_TABLE, Store};
use tidewater_cluster_tests::s3::{Fault, Mode};
use tidewater_cluster_tests::{HarnessError, Result, wait};

use super::bucket::{ROWS, create_in_bucket, endpoint, expect_rows, load};
use super::{export, frontier_from};
use crate::commands::check_equal;
use crate::support::{SETTLED_WITHIN, keep_routes, wait_for_level};

/// Holds the puts of files with rows, and no other request.
async fn hold_puts(cluster: &Cluster) -> Result<()> {
    let fault = Fault::new(Mode::Hold).on_puts().on_path("exports/lake/data/");
    endpoint(cluster)?.inject(fault).await
}

/// Returns the number of puts that were held so far.
async fn held_puts(cluster: &Cluster) -> Result<u64> {
    endpoint(cluster)?.hits().await
}

/// Waits until more than a number of puts are held, and the meta leader has begun or continued the step; returns its epoch.
async fn held_step(cluster: &Cluster, puts: u64) -> Result<u64> {
    wait::until("a put of the step is held", SETTLED_WITHIN, || async {
        let held = held_puts(cluster).await.map_err(|error| error.to_string())?;
        let export = export(cluster).await?;
        let is_held = held > puts && export["regions"] == 1 && export["regions_done"] == 0;
        let step = export["step_as_of"].as_u64().filter(|_| is_held);
        step.ok_or_else(|| format!("{held} puts, {export}"))
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn step_continues_at_its_epoch_under_the_next_leader() -> Result<()> {
    let mut cluster = ClusterPlan::default().store(Store::S3).start().await?;
    wait_for_level(&cluster).await?;
    keep_routes(&cluster).await?;
    cluster.create_log_table().await?;
    load(&cluster, 1).await?;
    create_in_bucket(&cluster, &["--wait"]).await?.ok()?;
    hold_puts(&cluster).await?;
    load(&cluster, 2).await?;
    let step = held_step(&cluster, 0).await?;

    let (leader, _) = cluster.meta_leader().await?;
    cluster.meta[leader].kill().await?;
    check_equal("epoch under the next meta leader", held_step(&cluster, 0).await?, step)?;
    cluster.meta[leader].start().await?;
    let owner = cluster.owner(LOG_TABLE).await?;
    let puts = held_puts(&cluster).await?;
    cluster.data[owner].kill().await?;
    // The next owner writes the region again.
    check_equal("epoch under the next owner", held_step(&cluster, puts).await?, step)?;
    // The put of the killed owner is processed, too.
    endpoint(&cluster)?.heal().await?;
    frontier_from(&cluster, step).await?;
    cluster.data[owner].start().await?;
    expect_rows(&cluster, 2 * ROWS).await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn creation_waits_at_most_for_its_timeout() -> Result<()> {
    let cluster = ClusterPlan::default().nodes(1, 1, 0).store(Store::S3).start().await?;
    wait_for_level(&cluster).await?;
    cluster.create_log_table().await?;
    load(&cluster, 1).await?;
    hold_puts(&cluster).await?;
    let overdue = create_in_bucket(&cluster, &["--wait", "--timeout", "8s"]).await?;
    let words = ["not exported after 8s", "0 of 1 region written", "the export continues"];
    overdue.status(5)?.expect_stderr(&words)?;
    if held_puts(&cluster).await? == 0 {
        return Err(HarnessError::violated("no put of the export was held"));
    }
    endpoint(&cluster)?.heal().await?;
    expect_rows(&cluster, ROWS).await?;
    cluster.finish().await
}
