//! Commits that are late, repeated, of unknown outcome, or for a region that has changed.

use tidewater_cluster_tests::cluster::{ClusterPlan, LOG_TABLE};
use tidewater_cluster_tests::node::Signal;
use tidewater_cluster_tests::s3::{Fault, Mode};
use tidewater_cluster_tests::{HarnessError, Result, wait};

use super::{CompactionScenario, expect, expect_committed_by};
use crate::support::SETTLED_WITHIN;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn job_commits_after_its_owner_is_killed() -> Result<()> {
    let mut scenario = CompactionScenario::start(3).await?;
    let owner = scenario.cluster.owner(LOG_TABLE).await?;
    scenario.hold_puts(0, "data").await?;
    let (_, killed) = tokio::join!(scenario.compact(&["--remote"]), async {
        scenario.wait_until_held().await?;
        scenario.cluster.data[owner].signal(Signal::Kill).await
    });
    killed?;
    scenario.cluster.data[owner].kill().await?;
    scenario.cluster.owner_other_than(LOG_TABLE, Some(owner)).await?;
    let jobs = scenario.jobs().await?;
    let orphaned = jobs.len() == 1 && jobs[0]["owner_node"] == 0;
    expect("the compactor lists the orphaned job", orphaned, &jobs)?;
    scenario.s3().heal().await?;
    scenario.wait_for_log(0, "compaction committed").await?;
    // The next commit of the new owner follows that of the job.
    scenario.flush(1).await?;
    expect(
        "one compacted and one flushed file",
        scenario.files().await? == 2,
        scenario.files().await?,
    )?;
    scenario.cluster.data[owner].start().await?;
    scenario.cluster.wait_until_healthy().await?;
    scenario.conclude().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn job_of_truncated_or_dropped_table_is_not_committed() -> Result<()> {
    let scenario = CompactionScenario::start(1).await?;
    let mut ended = 0;
    for (table, verb) in [("truncated", "truncate"), ("dropped", "drop")] {
        let region = scenario.create_other_table(table).await?;
        scenario.hold_puts(0, "data").await?;
        let compact = ["region", "compact", &region];
        let (output, changed) = tokio::join!(scenario.cluster.run(&compact), async {
            scenario.wait_until_held().await?;
            let output = scenario.cluster.run(&["table", verb, table]).await?.ok();
            scenario.s3().heal().await?;
            output
        });
        changed?;
        let output = output?;
        expect(verb, matches!(output.status, Some(3 | 4)), &output)?;
        ended += 1;
        scenario.wait_for_log_times(0, "outcome=\"inputs_gone\"", ended).await?;
    }
    expect("the table is empty", scenario.cluster.count("truncated").await? == 0, ())?;
    expect("no job is listed", scenario.jobs().await?.is_empty(), scenario.jobs().await?)?;
    scenario.conclude().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commit_with_lost_answer_is_resolved_without_retry() -> Result<()> {
    let mut scenario = CompactionScenario::start(1).await?;
    let first = scenario.compactor(0).await?;
    let name = scenario.cluster.compactors[0].spec.name.clone();
    // The commit succeeds, and its response is lost.
    for mode in [Mode::ErrorAfter, Mode::CloseAfter] {
        let fault = Fault::new(mode).on_puts().on_path("manifest").from_node(&name).times(2);
        scenario.s3().inject(fault).await?;
        let report = scenario.compact(&[]).await?.ok()?.json()?;
        expect("the job is committed once", report["node_id"] == first, &report)?;
        expect("the fault has an effect", scenario.s3().hits().await? > 0, ())?;
        expect("one file", scenario.files().await? == 1, scenario.files().await?)?;
        scenario.s3().heal().await?;
        scenario.flush(2).await?;
    }
    // The commit succeeds, and the compactor is killed before it can report it.
    let fault = Fault::new(Mode::HoldAfter).on_puts().on_path("manifest").from_node(&name);
    scenario.s3().inject(fault).await?;
    let (output, killed) = tokio::join!(scenario.compact(&[]), async {
        scenario.wait_until_held().await?;
        scenario.cluster.compactors[0].signal(Signal::Kill).await
    });
    killed?;
    expect_committed_by(output?, first, 3)?;
    scenario.s3().heal().await?;
    scenario.cluster.compactors[0].kill().await?;
    expect("one file", scenario.files().await? == 1, scenario.files().await?)?;
    scenario.expect_no_retries().await?;
    scenario.conclude().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unacknowledged_commit_is_void_once_its_version_is_taken() -> Result<()> {
    let scenario = CompactionScenario::start_with_short_timeout().await?;
    let second = scenario.compactor(1).await?;
    scenario.hold_puts(0, "manifest").await?;
    expect_committed_by(scenario.compact(&[]).await?, second, 3)?;
    scenario.s3().heal().await?;
    scenario.wait_for_log(0, "outcome=\"inputs_gone\"").await?;
    expect("one file", scenario.files().await? == 1, scenario.files().await?)?;
    scenario.conclude().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compactor_delayed_beyond_gc_grace_commits_nothing() -> Result<()> {
    let plan = ClusterPlan::default().nodes(1, 1, 1).env("TIDEWATER_GC_GRACE", "1s");
    let scenario = CompactionScenario::start_with(plan).await?;
    scenario.hold_puts(0, "manifest").await?;
    let (output, collected) = tokio::join!(scenario.compact(&["--remote"]), async {
        scenario.wait_until_held().await?;
        // The outputs are unreferenced and older than the grace period.
        let collected = wait::until("the outputs are collected", SETTLED_WITHIN, || async {
            let output = scenario.cluster.run(&["gc", "--output", "json"]).await;
            let output =
                output.and_then(|output| output.ok()?.json()).map_err(|error| error.to_string())?;
            match output["deleted"].as_u64() {
                Some(deleted) if deleted > 0 => Ok(()),
                _ => Err(output.to_string()),
            }
        })
        .await;
        scenario.s3().heal().await?;
        collected
    });
    collected?;
    let output = output?;
    if output.status != Some(4) {
        return Err(HarnessError::violated(format!("the commit was not rejected: {output:?}")));
    }
    scenario.wait_for_log(0, "below_floor").await?;
    expect("the files are unchanged", scenario.files().await? == 3, scenario.files().await?)?;
    let report = scenario.compact(&["--remote"]).await?.ok()?.json()?;
    expect("the next attempt succeeds", report["files_out"] == 1, &report)?;
    scenario.conclude().await
}
