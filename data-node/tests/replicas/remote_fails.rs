//! Compactions whose attempts fail: they are replaced, quarantined, or left until the store is back.

use std::sync::Arc;
use std::time::Duration;

use tidewater_data_node::leadership::compactions::retry_policy::JobPolicy;
use tidewater_proto::v1::Reason;
use tokio::sync::Notify;

use crate::cluster::{REGION, until};
use crate::fake_compactor::Act;
use crate::remote_setting::{
    A_WHILE, EVERY, Setting, cancel, flush_rows, for_ever, full, jobs, no_fallback, options,
};

#[tokio::test(flavor = "multi_thread")]
async fn one_that_dies_is_replaced_and_the_job_keeps_its_id() {
    let setting = Setting::start(no_fallback()).await;
    setting.one.script([Act::Die]);
    let report = setting.compact().await.unwrap();
    assert_eq!((report.node_id, report.files_out), (202, 1));
    assert_eq!((setting.one.attempts(), setting.two.attempts()), (vec![1], vec![2]));
    assert_eq!(setting.one.plans.lock()[0].plan, setting.two.plans.lock()[0].plan);
    setting.check(1).await;
    setting.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_hangs_is_given_up_and_comes_too_late() {
    let setting = Setting::start(no_fallback()).await;
    let go = Arc::new(Notify::new());
    setting.one.script([Act::Hang(go.clone())]);
    let report = setting.compact().await.unwrap();
    assert_eq!(report.node_id, 202, "its messages never stopped, but nothing in them changed");
    assert_eq!(*setting.one.cancelled.lock(), [report.job_id]);
    go.notify_one();
    until("it has tried", async || setting.one.late.lock().len() == 1).await;
    assert_eq!(*setting.one.late.lock(), [Err(Reason::InputsGone)]);
    setting.check(1).await;
    setting.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_nobody_reported_is_found_in_the_manifest() {
    let setting = Setting::start(no_fallback()).await;
    setting.one.script([Act::WorkAndDie]);
    let report = setting.compact().await.unwrap();
    assert_eq!((report.node_id, report.files_in, report.files_out), (201, 3, 1));
    assert_eq!(setting.two.attempts(), [0_u32; 0]);
    assert_eq!(setting.node.info().await.unwrap().manifest_version, report.manifest_version);
    setting.check(1).await;
    setting.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_of_another_job_and_a_second_one_are_ignored() {
    let setting = Setting::start(no_fallback()).await;
    setting.one.script([Act::ReportTwice]);
    let report = setting.compact().await.unwrap();
    assert_eq!((report.node_id, report.files_out), (201, 1));
    // As it was reported, not as the manifest tells of one that was not heard of.
    assert_eq!(report.done.unwrap().rows_written, 6);
    assert_eq!((setting.one.attempts(), setting.two.attempts()), (vec![1], vec![]));
    assert_eq!(setting.node.compact().await.unwrap().0.report, None);
    setting.check(1).await;
    setting.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_in_doubt_is_tried_again_and_committed_once() {
    let setting = Setting::start(no_fallback()).await;
    setting.one.script([Act::Fail(Reason::Unavailable, true)]);
    let report = setting.compact().await.unwrap();
    assert_eq!((report.node_id, report.files_out), (202, 1));
    setting.check(1).await;
    setting.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_whose_files_are_gone_when_it_fails_is_the_last() {
    let setting = Setting::start(for_ever(no_fallback())).await;
    let go = Arc::new(Notify::new());
    setting.one.script([Act::DieWhenTold(go.clone())]);
    let compacting = setting.compact_until_one_has_it().await;
    setting.one.merge_as_another().await;
    go.notify_one();
    compacting.await.unwrap_err();
    assert_eq!((setting.one.attempts(), setting.two.attempts()), (vec![1], vec![]));
    setting.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_says_files_are_gone_may_speak_of_an_attempt_that_was_given_up() {
    let mut options = no_fallback();
    options.compactions.jobs.slot_timeout = Duration::from_secs(3_600);
    let setting = Setting::start(options).await;
    let go = Arc::new(Notify::new());
    setting.one.script([Act::Hang(go.clone())].into_iter().chain(full()));
    setting.two.script(full());
    let mut compacting = Box::pin(setting.compact());
    until("it was given up, and others have no room", async || {
        assert!(futures::poll!(&mut compacting).is_pending());
        setting.one.attempts().len() >= 2
    })
    .await;
    go.notify_one();
    until("it was merged there", async || setting.one.late.lock().len() == 1).await;
    assert_eq!(*setting.one.late.lock(), [Ok(())]);
    for compactor in [&setting.one, &setting.two] {
        compactor.script_now((0..100).map(|_| Act::RefusePlan(Reason::InputsGone)));
    }
    let report = compacting.await.unwrap();
    assert_eq!((report.files_in, report.files_out), (3, 1));
    setting.check(1).await;
    setting.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_failures_quarantine_a_job_and_other_files_go_on() {
    let setting = Setting::start(options(JobPolicy::default())).await;
    let fail = || Act::Fail(Reason::Corrupt, false);
    setting.one.script([fail(), fail()]);
    setting.two.script([fail()]);
    let refusal = setting.compact().await.unwrap_err();
    assert_eq!(refusal.reason, Reason::Corrupt);
    assert_eq!((setting.one.attempts(), setting.two.attempts()), (vec![1, 3], vec![2]));
    let [held] = &jobs(&setting.node).await[..] else { panic!("one job is shown") };
    assert_eq!((held.state.as_str(), held.attempts, held.node_id), ("quarantined", 3, 0));
    assert_eq!((held.region_id, held.files_in), (REGION, 3));
    assert_eq!(held.last_error, "as the script says");

    // Its files are left alone, others are not.
    let due = setting.node.groups.get(tidewater_common::ids::GroupId(crate::cluster::GROUP));
    let region = due.unwrap().region(tidewater_common::ids::RegionId(REGION)).unwrap().region;
    flush_rows(&setting.node, 5..9).await;
    assert_eq!(region.compactions_due()[0].files, 4, "the new ones");

    // Forgotten, it is chosen again; so it is when somebody asks.
    let (job, unknown) = (held.job_id.clone(), uuid::Uuid::now_v7().to_string());
    assert_eq!(cancel(&setting.node, &unknown).await.unwrap_err().reason, Reason::JobNotFound);
    assert_eq!(cancel(&setting.node, "x").await.unwrap_err().reason, Reason::InvalidArgument);
    cancel(&setting.node, &job).await.unwrap();
    until("it is forgotten", async || jobs(&setting.node).await.is_empty()).await;
    assert_eq!(setting.compact().await.unwrap().files_in, 7);
    drop(region);
    setting.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_down_quarantines_nothing() {
    let setting = Setting::start(no_fallback()).await;
    let fail = || Act::Fail(Reason::ObjectStoreUnavailable, false);
    setting.one.script([fail(), fail()]);
    setting.two.script([fail()]);
    let refusal = setting.compact().await.unwrap_err();
    assert_eq!(refusal.reason, Reason::ObjectStoreUnavailable);
    assert_eq!(jobs(&setting.node).await, []);
    assert_eq!(setting.compact().await.unwrap().files_in, 3, "its files are free");
    setting.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn asking_gives_quarantined_files_another_chance() {
    let setting = Setting::start(no_fallback()).await;
    setting.one.script((0..3).map(|_| Act::Die));
    setting.two.script((0..3).map(|_| Act::Die));
    setting.compact().await.unwrap_err();
    assert_eq!(jobs(&setting.node).await.len(), 1);
    setting.one.forget();
    setting.two.forget();
    assert_eq!(setting.compact().await.unwrap().files_in, 3);
    setting.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quarantine_ends_after_its_time() {
    let quarantine = Duration::from_millis(300);
    let setting = Setting::start(options(JobPolicy { quarantine, ..JobPolicy::default() })).await;
    setting.one.script((0..3).map(|_| Act::Die));
    setting.two.script((0..3).map(|_| Act::Die));
    setting.compact().await.unwrap_err();
    assert_eq!(jobs(&setting.node).await[0].state, "quarantined");
    until("it is over", async || jobs(&setting.node).await.is_empty()).await;
    setting.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quarantine_ends_when_its_files_are_gone() {
    let quarantine_check = EVERY;
    let jobs_of = JobPolicy { quarantine_check, ..JobPolicy::default() };
    let setting = Setting::start(options(jobs_of)).await;
    setting.one.script((0..3).map(|_| Act::Die));
    setting.two.script((0..3).map(|_| Act::Die));
    setting.compact().await.unwrap_err();
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(jobs(&setting.node).await[0].state, "quarantined", "they are there still");
    setting.one.merge_as_another().await;
    until("it is over", async || jobs(&setting.node).await.is_empty()).await;
    setting.node.stop().await;
}
