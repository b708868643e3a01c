//! Commits that come late, twice, in doubt, or to a region that is not what it was.

use tidewater_cluster_tests::cluster::{LOG_TABLE, Plan};
use tidewater_cluster_tests::node::Signal;
use tidewater_cluster_tests::s3::{Fault, Mode};
use tidewater_cluster_tests::{HarnessError, Result, wait};

use super::{Setting, done_by, expect};
use crate::support::SETTLED_WITHIN;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_outlives_its_owner_and_the_next_one_finds_it() -> Result<()> {
    let mut setting = Setting::start(3).await?;
    let owner = setting.cluster.owner(LOG_TABLE).await?;
    setting.hold(0, "data").await?;
    let (_, killed) = tokio::join!(setting.compact(&["--remote"]), async {
        setting.is_held().await?;
        setting.cluster.data[owner].signal(Signal::Kill).await
    });
    killed?;
    setting.cluster.data[owner].kill().await?;
    setting.cluster.owner_other_than(LOG_TABLE, Some(owner)).await?;
    let shown = setting.jobs().await?;
    let left = shown.len() == 1 && shown[0]["owner_node"] == 0;
    expect("the compactor shows what its owner has left", left, &shown)?;
    setting.s3().heal().await?;
    setting.logged(0, "compaction committed").await?;
    // The new owner's next commit is behind it.
    setting.flush(1).await?;
    expect("one merged, one flushed", setting.files().await? == 2, setting.files().await?)?;
    setting.cluster.data[owner].start().await?;
    setting.cluster.healthy().await?;
    setting.conclude().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_truncated_or_dropped_meanwhile_is_not_committed() -> Result<()> {
    let setting = Setting::start(1).await?;
    let mut ended = 0;
    for (table, verb) in [("emptied", "truncate"), ("gone", "drop")] {
        let region = setting.another_table(table).await?;
        setting.hold(0, "data").await?;
        let compact = ["region", "compact", &region];
        let (said, changed) = tokio::join!(setting.cluster.run(&compact), async {
            setting.is_held().await?;
            let said = setting.cluster.run(&["table", verb, table]).await?.ok();
            setting.s3().heal().await?;
            said
        });
        changed?;
        let said = said?;
        expect(verb, matches!(said.status, Some(3 | 4)), &said)?;
        ended += 1;
        setting.logged_times(0, "outcome=\"inputs_gone\"", ended).await?;
    }
    expect("nothing is left of them", setting.cluster.count("emptied").await? == 0, ())?;
    expect("no job is left", setting.jobs().await?.is_empty(), setting.jobs().await?)?;
    setting.conclude().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_in_doubt_is_settled() -> Result<()> {
    let mut setting = Setting::start(1).await?;
    let first = setting.compactor(0).await?;
    let name = setting.cluster.compactors[0].spec.name.clone();
    // It stands, and nobody said so.
    for mode in [Mode::ErrorAfter, Mode::CloseAfter] {
        let fault = Fault::of(mode).on_puts().on_path("manifest").of_node(&name).times(2);
        setting.s3().fault(fault).await?;
        let report = setting.compact(&[]).await?.ok()?.json()?;
        expect("it was committed once", report["node_id"] == first, &report)?;
        expect("something went wrong", setting.s3().hits().await? > 0, ())?;
        expect("one file", setting.files().await? == 1, setting.files().await?)?;
        setting.s3().heal().await?;
        setting.flush(2).await?;
    }
    // It stands, and whoever could have said so is gone.
    let fault = Fault::of(Mode::HoldAfter).on_puts().on_path("manifest").of_node(&name);
    setting.s3().fault(fault).await?;
    let (said, killed) = tokio::join!(setting.compact(&[]), async {
        setting.is_held().await?;
        setting.cluster.compactors[0].signal(Signal::Kill).await
    });
    killed?;
    done_by(said?, first, 3)?;
    setting.s3().heal().await?;
    setting.cluster.compactors[0].kill().await?;
    expect("one file", setting.files().await? == 1, setting.files().await?)?;
    setting.nobody_tried_again().await?;
    setting.conclude().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_nobody_can_tell_of_is_lost_once_another_one_has_its_place() -> Result<()> {
    let setting = Setting::hasty().await?;
    let second = setting.compactor(1).await?;
    setting.hold(0, "manifest").await?;
    done_by(setting.compact(&[]).await?, second, 3)?;
    setting.s3().heal().await?;
    setting.logged(0, "outcome=\"inputs_gone\"").await?;
    expect("one file", setting.files().await? == 1, setting.files().await?)?;
    setting.conclude().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_slept_beyond_the_grace_of_garbage_collection_commits_nothing() -> Result<()> {
    let plan = Plan::default().nodes(1, 1, 1).env("TIDEWATER_GC_GRACE", "1s");
    let setting = Setting::planned(plan).await?;
    setting.hold(0, "manifest").await?;
    let (said, collected) = tokio::join!(setting.compact(&["--remote"]), async {
        setting.is_held().await?;
        // What it has written is named by nobody, and old.
        let collected = wait::until("its outputs are collected", SETTLED_WITHIN, || async {
            let said = setting.cluster.run(&["gc", "--output", "json"]).await;
            let said =
                said.and_then(|said| said.ok()?.json()).map_err(|error| error.to_string())?;
            match said["deleted"].as_u64() {
                Some(deleted) if deleted > 0 => Ok(()),
                _ => Err(said.to_string()),
            }
        })
        .await;
        setting.s3().heal().await?;
        collected
    });
    collected?;
    let said = said?;
    if said.status != Some(4) {
        return Err(HarnessError::violated(format!("it was not refused: {said:?}")));
    }
    setting.logged(0, "below_floor").await?;
    expect("the files are as before", setting.files().await? == 3, setting.files().await?)?;
    let report = setting.compact(&["--remote"]).await?.ok()?.json()?;
    expect("the next attempt is younger", report["files_out"] == 1, &report)?;
    setting.conclude().await
}
