//! Tests of remote compactions that are cancelled by a command or by a disconnected caller.

use std::sync::Arc;

use tidewater_proto::v1::Reason;
use tokio::sync::Notify;

use crate::cluster::until;
use crate::fake_compactor::FakeReply;
use crate::remote_cluster::{
    MANY_INTERVALS, RemoteCompactionCluster, always_overloaded, cancel, flush_rows, jobs,
    no_fallback, with_automatic_compaction, with_long_patience, without_time_limits,
};

#[tokio::test(flavor = "multi_thread")]
async fn cancelled_compaction_does_not_restart_immediately() {
    let cluster = RemoteCompactionCluster::start(with_long_patience(with_automatic_compaction(
        no_fallback(),
    )))
    .await;
    cluster.first.script([FakeReply::HangUntilNotified(Arc::new(Notify::new()))]);
    flush_rows(&cluster.node, 5..9).await;
    until("a compactor has the job", async || cluster.first.attempts() == [1]).await;
    let running = jobs(&cluster.node).await;
    cancel(&cluster.node, &running[0].job_id).await.unwrap();
    until("the job has ended", async || jobs(&cluster.node).await.is_empty()).await;
    tokio::time::sleep(MANY_INTERVALS).await;
    assert_eq!((cluster.first.attempts(), cluster.second.attempts()), (vec![1], vec![]));
    assert!(cluster.compact().await.is_ok(), "a request is not delayed");
    cluster.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requested_compaction_that_is_cancelled_delays_its_region() {
    let cluster = RemoteCompactionCluster::start(with_long_patience(with_automatic_compaction(
        no_fallback(),
    )))
    .await;
    cluster.first.script([FakeReply::HangUntilNotified(Arc::new(Notify::new()))]);
    let compacting = cluster.compact_until_first_has_it().await;
    let running = jobs(&cluster.node).await;
    cancel(&cluster.node, &running[0].job_id).await.unwrap();
    compacting.await.unwrap_err();
    flush_rows(&cluster.node, 5..9).await;
    tokio::time::sleep(MANY_INTERVALS).await;
    assert_eq!((cluster.first.attempts(), cluster.second.attempts()), (vec![1], vec![]));
    assert_eq!(cluster.node.info().await.unwrap().files, 7);
    cluster.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn disconnected_caller_does_not_delay_its_region() {
    let cluster = RemoteCompactionCluster::start(with_automatic_compaction(no_fallback())).await;
    cluster.first.script([FakeReply::HangUntilNotified(Arc::new(Notify::new()))]);
    let compacting = cluster.compact_until_first_has_it().await;
    drop(compacting);
    until("the job has ended", async || jobs(&cluster.node).await.is_empty()).await;
    flush_rows(&cluster.node, 5..9).await;
    until("the region is compacted automatically", async || {
        cluster.node.info().await.unwrap().files <= 4
    })
    .await;
    cluster.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cancellation_without_a_reply_has_an_unknown_outcome() {
    let cluster = RemoteCompactionCluster::start(with_long_patience(no_fallback())).await;
    let go = Arc::new(Notify::new());
    cluster.first.script([FakeReply::HangUntilNotified(go.clone())]);
    let compacting = cluster.compact_until_first_has_it().await;
    let running = jobs(&cluster.node).await;
    cancel(&cluster.node, &running[0].job_id).await.unwrap();
    let refusal = compacting.await.unwrap_err();
    assert_eq!(refusal.reason, Reason::Unavailable, "{refusal}");
    assert!(refusal.message.contains("cancelled"), "{refusal}");
    go.notify_one();
    until("the compactor has worked", async || cluster.first.late.lock().len() == 1).await;
    assert_eq!(*cluster.first.late.lock(), [Ok(())], "the job committed after all");
    cluster.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_job_is_cancelled_by_command() {
    let cluster = RemoteCompactionCluster::start(without_time_limits(no_fallback())).await;
    cluster.first.script(always_overloaded());
    cluster.second.script(always_overloaded());
    let mut compacting = Box::pin(cluster.compact());
    until("no compactor has a free slot", async || {
        assert!(futures::poll!(&mut compacting).is_pending());
        cluster.second.attempts().len() > 1
    })
    .await;
    let waiting = jobs(&cluster.node).await;
    cancel(&cluster.node, &waiting[0].job_id).await.unwrap();
    assert_eq!(compacting.await.unwrap_err().reason, Reason::JobCancelled);
    cluster.node.stop().await;
}
