//! Tests of remote compactions whose attempts fail: they are replaced, quarantined, or deferred
//! until the store is available.

use std::sync::Arc;
use std::time::Duration;

use tidewater_data_node::leadership::compactions::life::JobPolicy;
use tidewater_proto::v1::Reason;
use tokio::sync::Notify;

use crate::cluster::{REGION, until};
use crate::fake_compactor::FakeReply;
use crate::remote_cluster::{
    CHECK_INTERVAL, MANY_INTERVALS, RemoteCompactionCluster, always_overloaded, cancel, flush_rows,
    jobs, no_fallback, options, without_time_limits,
};

#[tokio::test(flavor = "multi_thread")]
async fn job_of_a_dead_compactor_keeps_its_id() {
    let cluster = RemoteCompactionCluster::start(no_fallback()).await;
    cluster.first.script([FakeReply::Die]);
    let report = cluster.compact().await.unwrap();
    assert_eq!((report.node_id, report.files_out), (202, 1));
    assert_eq!((cluster.first.attempts(), cluster.second.attempts()), (vec![1], vec![2]));
    assert_eq!(cluster.first.plans.lock()[0].plan, cluster.second.plans.lock()[0].plan);
    cluster.check_files(1).await;
    cluster.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stalled_compactor_is_replaced_and_commits_too_late() {
    let cluster = RemoteCompactionCluster::start(no_fallback()).await;
    let go = Arc::new(Notify::new());
    cluster.first.script([FakeReply::HangUntilNotified(go.clone())]);
    let report = cluster.compact().await.unwrap();
    assert_eq!(report.node_id, 202, "its messages continued without progress");
    assert_eq!(*cluster.first.cancelled.lock(), [report.job_id]);
    go.notify_one();
    until("the compactor has worked", async || cluster.first.late.lock().len() == 1).await;
    assert_eq!(*cluster.first.late.lock(), [Err(Reason::InputsGone)]);
    cluster.check_files(1).await;
    cluster.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unreported_commit_is_found_in_the_manifest() {
    let cluster = RemoteCompactionCluster::start(no_fallback()).await;
    cluster.first.script([FakeReply::WorkAndDie]);
    let report = cluster.compact().await.unwrap();
    assert_eq!((report.node_id, report.files_in, report.files_out), (201, 3, 1));
    assert_eq!(cluster.second.attempts(), [0_u32; 0]);
    assert_eq!(cluster.node.info().await.unwrap().manifest_version, report.manifest_version);
    cluster.check_files(1).await;
    cluster.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_of_other_jobs_and_duplicates_are_ignored() {
    let cluster = RemoteCompactionCluster::start(no_fallback()).await;
    cluster.first.script([FakeReply::ReportTwice]);
    let report = cluster.compact().await.unwrap();
    assert_eq!((report.node_id, report.files_out), (201, 1));
    // The reported numbers are used, not those reconstructed from the manifest for an unreported
    // commit.
    assert_eq!(report.done.unwrap().rows_written, 6);
    assert_eq!((cluster.first.attempts(), cluster.second.attempts()), (vec![1], vec![]));
    assert_eq!(cluster.node.compact().await.unwrap().0.report, None);
    cluster.check_files(1).await;
    cluster.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_outcome_is_retried_and_committed_once() {
    let cluster = RemoteCompactionCluster::start(no_fallback()).await;
    cluster.first.script([FakeReply::Fail(Reason::Unavailable, true)]);
    let report = cluster.compact().await.unwrap();
    assert_eq!((report.node_id, report.files_out), (202, 1));
    cluster.check_files(1).await;
    cluster.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_attempt_with_missing_inputs_is_not_retried() {
    let cluster = RemoteCompactionCluster::start(without_time_limits(no_fallback())).await;
    let go = Arc::new(Notify::new());
    cluster.first.script([FakeReply::DieOnNotify(go.clone())]);
    let compacting = cluster.compact_until_first_has_it().await;
    cluster.first.compact_as_another_job().await;
    go.notify_one();
    compacting.await.unwrap_err();
    assert_eq!((cluster.first.attempts(), cluster.second.attempts()), (vec![1], vec![]));
    cluster.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn inputs_gone_may_refer_to_a_replaced_attempt() {
    let mut options = no_fallback();
    options.compactions.jobs.longest_wait = Duration::from_secs(3_600);
    let cluster = RemoteCompactionCluster::start(options).await;
    let go = Arc::new(Notify::new());
    cluster
        .first
        .script([FakeReply::HangUntilNotified(go.clone())].into_iter().chain(always_overloaded()));
    cluster.second.script(always_overloaded());
    let mut compacting = Box::pin(cluster.compact());
    until("the first attempt was replaced and no slot is free", async || {
        assert!(futures::poll!(&mut compacting).is_pending());
        cluster.first.attempts().len() >= 2
    })
    .await;
    go.notify_one();
    until("the first compactor has committed", async || cluster.first.late.lock().len() == 1).await;
    assert_eq!(*cluster.first.late.lock(), [Ok(())]);
    for compactor in [&cluster.first, &cluster.second] {
        compactor.replace_script((0..100).map(|_| FakeReply::RefusePlan(Reason::InputsGone)));
    }
    let report = compacting.await.unwrap();
    assert_eq!((report.files_in, report.files_out), (3, 1));
    cluster.check_files(1).await;
    cluster.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_failures_quarantine_a_job_but_not_other_files() {
    let cluster = RemoteCompactionCluster::start(options(JobPolicy::default())).await;
    let fail = || FakeReply::Fail(Reason::Corrupt, false);
    cluster.first.script([fail(), fail()]);
    cluster.second.script([fail()]);
    let refusal = cluster.compact().await.unwrap_err();
    assert_eq!(refusal.reason, Reason::Corrupt);
    assert_eq!((cluster.first.attempts(), cluster.second.attempts()), (vec![1, 3], vec![2]));
    let [held] = &jobs(&cluster.node).await[..] else { panic!("one job is shown") };
    assert_eq!((held.state.as_str(), held.attempts, held.node_id), ("quarantined", 3, 0));
    assert_eq!((held.region_id, held.files_in), (REGION, 3));
    assert_eq!(held.last_error, "as scripted");

    // Quarantined files are not compacted, others are.
    let due = cluster.node.groups.get(tidewater_common::ids::GroupId(crate::cluster::GROUP));
    let region = due.unwrap().region(tidewater_common::ids::RegionId(REGION)).unwrap().region;
    flush_rows(&cluster.node, 5..9).await;
    assert_eq!(region.compactions_due()[0].files, 4, "only the new files");

    // A cancelled quarantine makes the files available again, and so does a request.
    let job = held.job_id.clone();
    let unknown = uuid::Uuid::now_v7().to_string();
    assert_eq!(cancel(&cluster.node, &unknown).await.unwrap_err().reason, Reason::JobNotFound);
    assert_eq!(cancel(&cluster.node, "x").await.unwrap_err().reason, Reason::InvalidArgument);
    cancel(&cluster.node, &job).await.unwrap();
    until("the quarantine has ended", async || jobs(&cluster.node).await.is_empty()).await;
    assert_eq!(cluster.compact().await.unwrap().files_in, 7);
    drop(region);
    cluster.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn store_outage_quarantines_no_files() {
    let cluster = RemoteCompactionCluster::start(no_fallback()).await;
    let fail = || FakeReply::Fail(Reason::ObjectStoreUnavailable, false);
    cluster.first.script([fail(), fail()]);
    cluster.second.script([fail()]);
    let refusal = cluster.compact().await.unwrap_err();
    assert_eq!(refusal.reason, Reason::ObjectStoreUnavailable);
    assert_eq!(jobs(&cluster.node).await, []);
    assert_eq!(cluster.compact().await.unwrap().files_in, 3, "the files are not quarantined");
    cluster.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requested_compaction_includes_quarantined_files() {
    let cluster = RemoteCompactionCluster::start(no_fallback()).await;
    cluster.first.script((0..3).map(|_| FakeReply::Die));
    cluster.second.script((0..3).map(|_| FakeReply::Die));
    cluster.compact().await.unwrap_err();
    assert_eq!(jobs(&cluster.node).await.len(), 1);
    cluster.first.clear_script();
    cluster.second.clear_script();
    assert_eq!(cluster.compact().await.unwrap().files_in, 3);
    cluster.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn quarantine_expires() {
    let quarantine = Duration::from_millis(300);
    let cluster =
        RemoteCompactionCluster::start(options(JobPolicy { quarantine, ..JobPolicy::default() }))
            .await;
    cluster.first.script((0..3).map(|_| FakeReply::Die));
    cluster.second.script((0..3).map(|_| FakeReply::Die));
    cluster.compact().await.unwrap_err();
    assert_eq!(jobs(&cluster.node).await[0].state, "quarantined");
    until("the quarantine has ended", async || jobs(&cluster.node).await.is_empty()).await;
    cluster.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn quarantine_ends_when_its_files_are_removed() {
    let quarantine_look = CHECK_INTERVAL;
    let jobs_of = JobPolicy { quarantine_look, ..JobPolicy::default() };
    let cluster = RemoteCompactionCluster::start(options(jobs_of)).await;
    cluster.first.script((0..3).map(|_| FakeReply::Die));
    cluster.second.script((0..3).map(|_| FakeReply::Die));
    cluster.compact().await.unwrap_err();
    tokio::time::sleep(MANY_INTERVALS).await;
    assert_eq!(jobs(&cluster.node).await[0].state, "quarantined", "the files are still live");
    cluster.first.compact_as_another_job().await;
    until("the quarantine has ended", async || jobs(&cluster.node).await.is_empty()).await;
    cluster.node.stop().await;
}
