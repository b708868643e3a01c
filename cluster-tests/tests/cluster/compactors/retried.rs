//! Compactors that do not do their work: others do it, or the data node.

use tidewater_cluster_tests::cluster::{LOG_TABLE, Plan};
use tidewater_cluster_tests::command::Said;
use tidewater_cluster_tests::node::Signal;
use tidewater_cluster_tests::s3::{Fault, Mode};
use tidewater_cluster_tests::workload::{Load, Workload};
use tidewater_cluster_tests::{Result, wait};

use super::{Setting, done_by, expect};
use crate::support::{SETTLED_WITHIN, conclude, status_says};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_gone_is_passed_over_and_without_any_the_data_node_does_it() -> Result<()> {
    let mut setting = Setting::start(1).await?;
    let second = setting.compactor(1).await?;
    // The owner still believes that it is up.
    setting.cluster.compactors[0].kill().await?;
    done_by(setting.compact(&["--remote"]).await?, second, 3)?;

    setting.cluster.compactors[1].kill().await?;
    setting.flush(2).await?;
    let refused = setting.compact(&["--remote"]).await?;
    refused.status(5)?.complains(&["no compactor", "--local"])?;
    done_by(setting.compact(&[]).await?, 0, 3)?;

    // They come back under other ids.
    for node in &mut setting.cluster.compactors {
        node.start().await?;
    }
    setting.flush(2).await?;
    setting.compactors_are_known().await?;
    let report = setting.compact(&["--remote"]).await?.ok()?.json()?;
    expect("a compactor did it", report["node_id"] != 0, &report)?;
    setting.conclude().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_stops_finishes_its_job_and_takes_no_other() -> Result<()> {
    let setting = Setting::start(1).await?;
    let (first, second) = (setting.compactor(0).await?, setting.compactor(1).await?);
    let other = setting.another_table("other").await?;
    setting.hold(0, "data").await?;
    let (said, elsewhere) = tokio::join!(setting.compact(&[]), async {
        setting.is_held().await?;
        setting.cluster.compactors[0].signal(Signal::Term).await?;
        setting.logged(0, "takes no more jobs").await?;
        let said = setting.cluster.run(&["region", "compact", &other, "--output", "json"]).await;
        setting.s3().heal().await?;
        done_by(said?, second, 2)
    });
    elsewhere?;
    done_by(said?, first, 3)?;
    setting.conclude().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_may_not_wait_hands_its_job_back() -> Result<()> {
    let drain = ("TIDEWATER_DRAIN_TIMEOUT", "1s");
    let plan = Plan::default().nodes(1, 1, 2).env(drain.0, drain.1);
    let mut setting = Setting::planned(plan).await?;
    let second = setting.compactor(1).await?;
    setting.hold(0, "data").await?;
    let Setting { cluster, .. } = &mut setting;
    let mut first = cluster.compactors.remove(0);
    let (said, ended) = tokio::join!(setting.compact(&[]), async {
        setting.is_held().await?;
        first.terminate().await
    });
    ended?;
    done_by(said?, second, 3)?;
    setting.s3().heal().await?;
    setting.nobody_tried_again().await?;
    setting.conclude().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_dies_in_the_midst_is_replaced() -> Result<()> {
    let mut setting = Setting::start(1).await?;
    let second = setting.compactor(1).await?;
    setting.hold(0, "data").await?;
    let (said, killed) = tokio::join!(setting.compact(&[]), async {
        setting.is_held().await?;
        let shown = setting.jobs().await?;
        expect("the job is shown", shown.len() == 1 && shown[0]["state"] == "running", &shown)?;
        setting.cluster.compactors[0].signal(Signal::Kill).await
    });
    killed?;
    let report = done_by(said?, second, 3)?;
    expect("its files became one", report["files_out"] == 1, &report)?;
    setting.cluster.compactors[0].kill().await?;
    expect("one file is live", setting.files().await? == 1, setting.files().await?)?;
    setting.conclude().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_sleeps_is_given_up_and_comes_too_late() -> Result<()> {
    let setting = Setting::hasty().await?;
    let second = setting.compactor(1).await?;
    // It is committing: it cannot be told to end any more.
    setting.hold(0, "manifest").await?;
    let (said, stopped) = tokio::join!(setting.compact(&[]), async {
        setting.is_held().await?;
        setting.cluster.compactors[0].signal(Signal::Stop).await
    });
    stopped?;
    done_by(said?, second, 3)?;
    setting.s3().heal().await?;
    setting.cluster.compactors[0].signal(Signal::Continue).await?;
    setting.logged(0, "outcome=\"inputs_gone\"").await?;
    expect("one file", setting.files().await? == 1, setting.files().await?)?;
    setting.conclude().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_fails_three_times_is_quarantined_and_other_work_goes_on() -> Result<()> {
    let setting = Setting::hasty().await?;
    let other = setting.another_table("other").await?;
    // Whoever tries comes to a standstill. Nobody flushes meanwhile.
    setting.s3().fault(Fault::of(Mode::Hold).on_puts().on_path("data")).await?;
    let failed = setting.compact(&["--remote"]).await?;
    expect("it fails", failed.status.is_some_and(|status| status != 0), &failed)?;
    setting.s3().heal().await?;
    let shown = setting.jobs().await?;
    let [held] = &shown[..] else {
        return expect("one job is shown", false, &shown);
    };
    let quarantined = held["state"] == "quarantined" && held["attempts"] == 3;
    expect("it is quarantined", quarantined && held["files_in"] == 3, held)?;

    // Another table's files are merged meanwhile, and other files of the same region.
    setting.compactors_are_known().await?;
    let compact = ["region", "compact", &other, "--remote", "--output", "json"];
    let report = setting.cluster.run(&compact).await?.ok()?.json()?;
    expect("other work goes on", report["files_in"] == 2, &report)?;
    let problem = "1 of its compactions have failed too often";
    status_says(&setting.cluster, problem, true).await?;
    setting.flush(4).await?;
    let report = setting.compact(&["--remote", "--due"]).await?.ok()?.json()?;
    expect("asking takes the files up again", report["files_in"] == 7, &report)?;
    expect("nothing is held any more", setting.jobs().await?.is_empty(), ())?;
    let gone = held["job_id"].as_str().unwrap_or_default();
    let unknown = setting.cluster.run(&["compaction", "cancel", gone]).await?;
    unknown.status(3)?.complains(&[gone])?;
    setting.cluster.run(&["compaction", "cancel", "x"]).await?.status(2)?;
    setting.conclude().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_job_is_cancelled_by_command() -> Result<()> {
    let setting = Setting::start(1).await?;
    setting.hold(0, "data").await?;
    let (said, cancelled) = tokio::join!(setting.compact(&[]), async {
        setting.is_held().await?;
        let shown = setting.jobs().await?;
        let job = shown[0]["job_id"].as_str().unwrap_or_default().to_owned();
        // The store does not answer: what was cancelled does not wait for that.
        setting.cluster.run(&["compaction", "cancel", &job]).await?.ok()
    });
    cancelled?;
    setting.logged(0, "outcome=\"cancelled\"").await?;
    setting.s3().heal().await?;
    said?.status(4)?.complains(&["cancelled"])?;
    expect("nothing has changed", setting.files().await? == 3, setting.files().await?)?;
    let report = setting.compact(&[]).await?.ok()?.json()?;
    expect("they are free again", report["files_in"] == 3, &report)?;
    setting.conclude().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_without_room_on_the_disk_of_the_store_gets_no_job() -> Result<()> {
    let plan = Plan::default().nodes(1, 1, 1).env("TIDEWATER_COMPACTION", "off");
    let mut cluster = plan.prepare().await?;
    let reserve = ("TIDEWATER_DISK_RESERVE".to_owned(), "1000TiB".to_owned());
    cluster.compactors[0].spec.env.push(reserve);
    cluster.start_all().await?;
    status_says(&cluster, "the disk of the object store is full", true).await?;
    cluster.create_log_table().await?;
    let region = cluster.region(LOG_TABLE).await?.region_id.to_string();
    let compact = ["region", "compact", &region, "--output", "json"];
    wait::until("the owner knows the compactor", SETTLED_WITHIN, || async {
        let said = cluster.run(&[&compact, &["--remote"][..]].concat()).await;
        said.and_then(Said::ok).map(drop).map_err(|error| error.to_string())
    })
    .await?;
    let load = Workload::start(&cluster, Load::default()).await?;
    for _ in 0..2 {
        load.progress(10).await?;
        cluster.flush(LOG_TABLE).await?.ok()?;
    }
    done_by(cluster.run(&compact).await?, 0, 2)?;
    conclude(cluster, load).await.map(drop)
}
