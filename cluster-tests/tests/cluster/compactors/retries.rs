//! Compactors that fail to complete jobs: retries on other compactors, and local fallback.

use tidewater_cluster_tests::cluster::{ClusterPlan, LOG_TABLE};
use tidewater_cluster_tests::command::CommandOutput;
use tidewater_cluster_tests::node::Signal;
use tidewater_cluster_tests::s3::{Fault, Mode};
use tidewater_cluster_tests::workload::{LoadOptions, Workload};
use tidewater_cluster_tests::{Result, wait};

use super::{CompactionScenario, expect, expect_committed_by};
use crate::support::{SETTLED_WITHIN, conclude, wait_for_problem};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unavailable_compactors_are_skipped_with_local_fallback() -> Result<()> {
    let mut scenario = CompactionScenario::start(1).await?;
    let second = scenario.compactor(1).await?;
    // The owner has not noticed the kill.
    scenario.cluster.compactors[0].kill().await?;
    expect_committed_by(scenario.compact(&["--remote"]).await?, second, 3)?;

    scenario.cluster.compactors[1].kill().await?;
    scenario.flush(2).await?;
    let refused = scenario.compact(&["--remote"]).await?;
    refused.status(5)?.expect_stderr(&["no compactor", "--local"])?;
    expect_committed_by(scenario.compact(&[]).await?, 0, 3)?;

    // The restarted compactors have new ids.
    for node in &mut scenario.cluster.compactors {
        node.start().await?;
    }
    scenario.flush(2).await?;
    scenario.wait_for_compactors().await?;
    let report = scenario.compact(&["--remote"]).await?.ok()?.json()?;
    expect("a compactor runs the job", report["node_id"] != 0, &report)?;
    scenario.conclude().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_compactor_completes_its_job_and_accepts_no_other() -> Result<()> {
    let scenario = CompactionScenario::start(1).await?;
    let first = scenario.compactor(0).await?;
    let second = scenario.compactor(1).await?;
    let other = scenario.create_other_table("other").await?;
    scenario.hold_puts(0, "data").await?;
    let (output, other_job) = tokio::join!(scenario.compact(&[]), async {
        scenario.wait_until_held().await?;
        scenario.cluster.compactors[0].signal(Signal::Term).await?;
        scenario.wait_for_log(0, "takes no more jobs").await?;
        let output = scenario.cluster.run(&["region", "compact", &other, "--output", "json"]).await;
        scenario.s3().heal().await?;
        expect_committed_by(output?, second, 2)
    });
    other_job?;
    expect_committed_by(output?, first, 3)?;
    scenario.conclude().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_compactor_returns_job_after_drain_timeout() -> Result<()> {
    let drain = ("TIDEWATER_DRAIN_TIMEOUT", "1s");
    let plan = ClusterPlan::default().nodes(1, 1, 2).env(drain.0, drain.1);
    let mut scenario = CompactionScenario::start_with(plan).await?;
    let second = scenario.compactor(1).await?;
    scenario.hold_puts(0, "data").await?;
    let CompactionScenario { cluster, .. } = &mut scenario;
    let mut first = cluster.compactors.remove(0);
    let (output, ended) = tokio::join!(scenario.compact(&[]), async {
        scenario.wait_until_held().await?;
        first.terminate().await
    });
    ended?;
    expect_committed_by(output?, second, 3)?;
    scenario.s3().heal().await?;
    scenario.expect_no_retries().await?;
    scenario.conclude().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn job_of_killed_compactor_moves_to_another() -> Result<()> {
    let mut scenario = CompactionScenario::start(1).await?;
    let second = scenario.compactor(1).await?;
    scenario.hold_puts(0, "data").await?;
    let (output, killed) = tokio::join!(scenario.compact(&[]), async {
        scenario.wait_until_held().await?;
        let jobs = scenario.jobs().await?;
        let running = jobs.len() == 1 && jobs[0]["state"] == "running";
        expect("the running job is listed", running, &jobs)?;
        scenario.cluster.compactors[0].signal(Signal::Kill).await
    });
    killed?;
    let report = expect_committed_by(output?, second, 3)?;
    expect("the job has one output", report["files_out"] == 1, &report)?;
    scenario.cluster.compactors[0].kill().await?;
    expect("one file is live", scenario.files().await? == 1, scenario.files().await?)?;
    scenario.conclude().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_commit_of_frozen_compactor_is_rejected() -> Result<()> {
    let scenario = CompactionScenario::start_with_short_timeout().await?;
    let second = scenario.compactor(1).await?;
    // The compactor is committing, which cannot be cancelled any more.
    scenario.hold_puts(0, "manifest").await?;
    let (output, stopped) = tokio::join!(scenario.compact(&[]), async {
        scenario.wait_until_held().await?;
        scenario.cluster.compactors[0].signal(Signal::Stop).await
    });
    stopped?;
    expect_committed_by(output?, second, 3)?;
    scenario.s3().heal().await?;
    scenario.cluster.compactors[0].signal(Signal::Continue).await?;
    scenario.wait_for_log(0, "outcome=\"inputs_gone\"").await?;
    expect("one file", scenario.files().await? == 1, scenario.files().await?)?;
    scenario.conclude().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn job_is_quarantined_after_three_failures() -> Result<()> {
    let scenario = CompactionScenario::start_with_short_timeout().await?;
    let other = scenario.create_other_table("other").await?;
    // Every attempt stalls, and no flush runs at the same time.
    scenario.s3().inject(Fault::new(Mode::Hold).on_puts().on_path("data")).await?;
    let failed = scenario.compact(&["--remote"]).await?;
    expect("the job fails", failed.status.is_some_and(|status| status != 0), &failed)?;
    scenario.s3().heal().await?;
    let jobs = scenario.jobs().await?;
    let [held] = &jobs[..] else {
        return expect("one job is listed", false, &jobs);
    };
    let quarantined = held["state"] == "quarantined" && held["attempts"] == 3;
    expect("the job is quarantined", quarantined && held["files_in"] == 3, held)?;

    // Files of another table, and other files of the same region, are still compacted.
    scenario.wait_for_compactors().await?;
    let compact = ["region", "compact", &other, "--remote", "--output", "json"];
    let report = scenario.cluster.run(&compact).await?.ok()?.json()?;
    expect("another region is compacted", report["files_in"] == 2, &report)?;
    let problem = "have failed too often and are quarantined";
    wait_for_problem(&scenario.cluster, problem, true).await?;
    scenario.flush(4).await?;
    let report = scenario.compact(&["--remote", "--due"]).await?.ok()?.json()?;
    expect("a request compacts the files again", report["files_in"] == 7, &report)?;
    expect("the quarantine has ended", scenario.jobs().await?.is_empty(), ())?;
    let ended = held["job_id"].as_str().unwrap_or_default();
    let unknown = scenario.cluster.run(&["compaction", "cancel", ended]).await?;
    unknown.status(3)?.expect_stderr(&[ended])?;
    scenario.cluster.run(&["compaction", "cancel", "x"]).await?.status(2)?;
    scenario.conclude().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancel_command_ends_a_running_job() -> Result<()> {
    let scenario = CompactionScenario::start(1).await?;
    scenario.hold_puts(0, "data").await?;
    let (output, cancelled) = tokio::join!(scenario.compact(&[]), async {
        scenario.wait_until_held().await?;
        let jobs = scenario.jobs().await?;
        let job = jobs[0]["job_id"].as_str().unwrap_or_default().to_owned();
        // The store does not answer. A cancelled job does not wait for it.
        scenario.cluster.run(&["compaction", "cancel", &job]).await?.ok()
    });
    cancelled?;
    scenario.wait_for_log(0, "outcome=\"cancelled\"").await?;
    scenario.s3().heal().await?;
    output?.status(4)?.expect_stderr(&["cancelled"])?;
    expect("the files are unchanged", scenario.files().await? == 3, scenario.files().await?)?;
    let report = scenario.compact(&[]).await?.ok()?.json()?;
    expect("the files can be compacted again", report["files_in"] == 3, &report)?;
    scenario.conclude().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compactor_without_disk_space_gets_no_job() -> Result<()> {
    let plan = ClusterPlan::default().nodes(1, 1, 1).env("TIDEWATER_COMPACTION", "off");
    let mut cluster = plan.prepare().await?;
    let reserve = ("TIDEWATER_DISK_RESERVE".to_owned(), "1000TiB".to_owned());
    cluster.compactors[0].spec.env.push(reserve);
    cluster.start_all().await?;
    wait_for_problem(&cluster, "the disk of the object store is full", true).await?;
    cluster.create_log_table().await?;
    let region = cluster.region(LOG_TABLE).await?.region_id.to_string();
    let compact = ["region", "compact", &region, "--output", "json"];
    wait::until("the owner knows the compactor", SETTLED_WITHIN, || async {
        let output = cluster.run(&[&compact, &["--remote"][..]].concat()).await;
        output.and_then(CommandOutput::ok).map(drop).map_err(|error| error.to_string())
    })
    .await?;
    let load = Workload::start(&cluster, LoadOptions::default()).await?;
    for _ in 0..2 {
        load.progress(10).await?;
        cluster.flush(LOG_TABLE).await?.ok()?;
    }
    expect_committed_by(cluster.run(&compact).await?, 0, 2)?;
    conclude(cluster, load).await.map(drop)
}
