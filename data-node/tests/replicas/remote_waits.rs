//! Tests of remote compactions that wait: for a slot, for another job, for the local permit, for a
//! compactor's next event.

use std::sync::Arc;
use std::time::Duration;

use tidewater_common::backoff::Backoff;
use tidewater_common::ids::GroupId;
use tidewater_data_node::leadership::compactions::retry_policy::JobPolicy;
use tidewater_data_node::options::GroupOptions;
use tidewater_proto::compaction::v1::RunningCompaction;
use tidewater_proto::v1::{CompactionPlace, CompactionProgress, Reason};
use tidewater_region_engine::compaction::LocalSlot;
use tokio::sync::Notify;

use crate::cluster::{GROUP, Node, until};
use crate::fake_compactor::FakeReply;
use crate::remote_cluster::{
    CHECK_INTERVAL, MANY_INTERVALS, RemoteCompactionCluster, always_overloaded, flush_rows, jobs,
    no_fallback, options, with_automatic_compaction, without_time_limits,
};

/// Takes the only slot for compactions on this node.
async fn take_local_slot(node: &Node) -> LocalSlot {
    node.groups.context().env.compactions.acquire().await
}

/// Lets the first compactor report a running job of the region with this progress.
fn report_running_job(cluster: &RemoteCompactionCluster, rows_read: u64) {
    let dir = cluster.first.openings.lock()[0].dir;
    let done = Some(CompactionProgress { rows_read, ..Default::default() });
    *cluster.first.running.lock() = vec![RunningCompaction { dir, done, ..Default::default() }];
}

/// A cluster with two files, whose first compactor has a job of the region that another owner
/// started.
async fn cluster_with_orphaned_job(options: GroupOptions) -> RemoteCompactionCluster {
    let cluster = RemoteCompactionCluster::start(options).await;
    cluster.first.script([
        FakeReply::RefuseOpening(Reason::BadPlugin),
        FakeReply::RefusePlan(Reason::JobExists),
    ]);
    assert_eq!(cluster.compact().await.unwrap().node_id, 202);
    flush_rows(&cluster.node, 5..6).await;
    report_running_job(&cluster, 1);
    cluster
}

#[tokio::test(flavor = "multi_thread")]
async fn orphaned_job_is_awaited_while_it_progresses() {
    let mut options = options(JobPolicy::default());
    // Much longer than the time between two reports, also on a loaded machine.
    let timeout = Duration::from_secs(3);
    options.compactions.jobs.progress_timeout = timeout;
    let cluster = cluster_with_orphaned_job(options).await;
    let mut compacting = Box::pin(cluster.compact());
    // Longer than the wait for a job without progress.
    let end = tokio::time::Instant::now() + 2 * timeout;
    for rows in 1.. {
        if tokio::time::Instant::now() >= end {
            break;
        }
        report_running_job(&cluster, rows);
        tokio::select! {
            ended = &mut compacting => panic!("{ended:?}"),
            () = tokio::time::sleep(CHECK_INTERVAL) => {}
        }
    }
    cluster.first.running.lock().clear();
    assert_eq!(compacting.await.unwrap().node_id, 201, "its slot is free again");
    assert_eq!((cluster.first.attempts(), cluster.second.attempts().len()), (vec![1, 2], 1));
    assert_eq!(cluster.node.info().await.unwrap().files, 1);
    cluster.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stalled_orphaned_job_is_not_awaited() {
    let mut options = options(JobPolicy::default());
    // A job with progress is awaited for much longer than this test takes.
    options.compactions.jobs.progress_timeout = Duration::from_secs(2);
    let cluster = cluster_with_orphaned_job(options).await;
    let compacting = tokio::time::timeout(Duration::from_secs(30), cluster.compact());
    assert_eq!(compacting.await.unwrap().unwrap().node_id, 202);
    assert_eq!(cluster.first.attempts(), [1]);
    cluster.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_orphaned_job_is_not_awaited_indefinitely() {
    let mut options = options(JobPolicy::default());
    options.compactions.jobs.progress_timeout = Duration::from_millis(100);
    let cluster = cluster_with_orphaned_job(options).await;
    let mut compacting = Box::pin(cluster.compact());
    let mut rows = 1;
    let report = loop {
        tokio::select! {
            ended = &mut compacting => break ended.unwrap(),
            () = tokio::time::sleep(Duration::from_millis(10)) => {
                report_running_job(&cluster, rows);
            }
        }
        rows += 1;
    };
    drop(compacting);
    assert_eq!(report.node_id, 202);
    assert_eq!(cluster.first.attempts(), [1]);
    cluster.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn inputs_compacted_by_another_job_are_not_compacted_again() {
    let cluster =
        cluster_with_orphaned_job(without_time_limits(options(JobPolicy::default()))).await;
    let compacting = cluster.compact_until_first_has_it().await;
    cluster.first.compact_as_another_job().await;
    assert_eq!(compacting.await.unwrap_err().reason, Reason::InputsGone);
    assert_eq!((cluster.first.attempts(), cluster.second.attempts().len()), (vec![1], 1));
    assert_eq!(cluster.node.info().await.unwrap().files, 1);
    cluster.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn job_waiting_for_files_holds_no_local_permit() {
    let cluster = RemoteCompactionCluster::start(options(JobPolicy::default())).await;
    cluster.first.script([FakeReply::HangUntilNotified(Arc::new(Notify::new()))]);
    let remote = cluster.compact_until_first_has_it().await;
    // The remote attempt times out, no compactor accepts the job, and so it needs the local permit
    // too.
    cluster.first.script(always_overloaded());
    cluster.second.script(always_overloaded());
    let local = cluster.node.compact_at(CompactionPlace::Local);
    let (remote, local) = tokio::join!(remote, local);
    assert_eq!((remote.unwrap().node_id, local.unwrap().0.report), (0, None));
    cluster.check_files(1).await;
    cluster.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn job_waiting_for_files_compacts_the_remaining_files() {
    let cluster = RemoteCompactionCluster::start(without_time_limits(no_fallback())).await;
    let go = Arc::new(Notify::new());
    cluster.first.script([FakeReply::DieOnNotify(go.clone())]);
    cluster.second.script([FakeReply::Fail(Reason::InputsGone, false)]);
    let remote = cluster.compact_until_first_has_it().await;
    let mut local = Box::pin(cluster.node.compact_at(CompactionPlace::Local));
    let early = tokio::time::timeout(MANY_INTERVALS, &mut local).await;
    assert!(early.is_err(), "{early:?}");
    go.notify_one();
    let (remote, local) = tokio::join!(remote, local);
    assert_eq!(remote.unwrap_err().reason, Reason::InputsGone);
    let report = local.unwrap().0.report.unwrap();
    assert_eq!((report.node_id, report.files_in), (0, 3));
    cluster.check_files(1).await;
    cluster.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn job_refused_by_compactors_waits_for_the_local_permit() {
    let cluster = RemoteCompactionCluster::start(options(JobPolicy::default())).await;
    cluster.first.script([FakeReply::RefuseOpening(Reason::BadPlugin)]);
    cluster.second.script([FakeReply::RefuseOpening(Reason::BadPlugin)]);
    let taken = take_local_slot(&cluster.node).await;
    let mut compacting = Box::pin(cluster.compact());
    while cluster.second.openings.lock().is_empty() {
        tokio::select! {
            ended = &mut compacting => panic!("{ended:?}"),
            () = tokio::time::sleep(CHECK_INTERVAL) => {}
        }
    }
    let early = tokio::time::timeout(MANY_INTERVALS, &mut compacting).await;
    assert!(early.is_err(), "{early:?}");
    drop(taken);
    assert_eq!(compacting.await.unwrap().node_id, 0);
    cluster.check_files(1).await;
    cluster.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn background_job_waits_for_a_free_compactor_slot() {
    let cluster =
        RemoteCompactionCluster::start(with_automatic_compaction(options(JobPolicy::default())))
            .await;
    cluster.first.script(always_overloaded());
    cluster.second.script(always_overloaded());
    flush_rows(&cluster.node, 5..9).await;
    until("compactors refused the job", async || cluster.first.attempts().len() > 3).await;
    assert!(cluster.node.info().await.unwrap().files >= 7, "the job did not run locally");
    cluster.first.clear_script();
    cluster.second.clear_script();
    until("a compactor runs the job", async || cluster.node.info().await.unwrap().files <= 4).await;
    cluster.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn overdue_job_runs_locally() {
    let mut options = with_automatic_compaction(options(JobPolicy::default()));
    options.compactions.overdue_after = MANY_INTERVALS;
    let cluster = RemoteCompactionCluster::start(options).await;
    cluster.first.script(always_overloaded());
    cluster.second.script(always_overloaded());
    flush_rows(&cluster.node, 5..9).await;
    until("the job runs locally", async || cluster.node.info().await.unwrap().files <= 4).await;
    assert!(!cluster.first.attempts().is_empty(), "compactors were tried first");
    cluster.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn late_remote_commit_preempts_the_local_fallback() {
    let cluster = RemoteCompactionCluster::start(options(JobPolicy::default())).await;
    let go = Arc::new(Notify::new());
    cluster
        .first
        .script([FakeReply::HangUntilNotified(go.clone())].into_iter().chain(always_overloaded()));
    cluster.second.script(always_overloaded());
    let taken = take_local_slot(&cluster.node).await;
    let mut compacting = Box::pin(cluster.compact());
    until("the job waits for the local permit", async || {
        assert!(futures::poll!(&mut compacting).is_pending());
        cluster.second.attempts().len() == 1 && cluster.first.attempts().len() == 2
    })
    .await;
    go.notify_one();
    until("the first compactor has committed", async || cluster.first.late.lock().len() == 1).await;
    assert_eq!(*cluster.first.late.lock(), [Ok(())]);
    drop(taken);
    let report = compacting.await.unwrap();
    assert_eq!((report.files_in, report.files_out), (3, 1));
    assert_ne!(report.node_id, 0);
    cluster.check_files(1).await;
    cluster.node.stop().await;
}

/// Stops a node and checks that no task of its replica remains.
async fn stop_without_tasks(cluster: RemoteCompactionCluster, context: &str) {
    let replica = cluster.node.groups.get(GroupId(GROUP)).unwrap();
    cluster.node.stop().await;
    assert_eq!(replica.tasks_left(), 0, "{context}");
}

#[tokio::test(flavor = "multi_thread")]
async fn node_stops_while_requested_compactions_wait() {
    // Waiting for the local permit, for the next attempt, and in quarantine.
    let hour = Duration::from_secs(3_600);
    let mut slow = options(JobPolicy::default());
    slow.compactions.jobs.backoff = Backoff { first: hour, longest: hour };
    let clusters = [
        (
            RemoteCompactionCluster::start(options(JobPolicy::default())).await,
            CompactionPlace::Local,
            0,
        ),
        (RemoteCompactionCluster::start(slow).await, CompactionPlace::Any, 1),
        (
            RemoteCompactionCluster::start(options(JobPolicy::default())).await,
            CompactionPlace::Any,
            3,
        ),
    ];
    for (cluster, place, deaths) in clusters {
        cluster.first.script((0..deaths).map(|_| FakeReply::Die));
        cluster.second.script((0..deaths).map(|_| FakeReply::Die));
        let compactions = cluster.node.groups.context().env.compactions.clone();
        let taken = compactions.acquire().await;
        {
            let compacting = cluster.node.compact_at(place);
            tokio::pin!(compacting);
            let _ = tokio::time::timeout(MANY_INTERVALS, &mut compacting).await;
        }
        stop_without_tasks(cluster, &format!("{place:?} after {deaths}")).await;
        drop(taken);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn node_stops_while_automatic_compactions_wait() {
    // In an attempt, waiting for the local permit, and for the next attempt.
    let hour = Duration::from_secs(3_600);
    let mut slow = without_time_limits(with_automatic_compaction(no_fallback()));
    slow.compactions.jobs.backoff = Backoff { first: hour, longest: hour };
    for (reply, attempts) in [
        (Some(FakeReply::DieOnNotify(Arc::new(Notify::new()))), 1),
        (Some(FakeReply::RefuseOpening(Reason::BadPlugin)), 0),
        (Some(FakeReply::Die), 1),
    ] {
        let options = if attempts == 0 {
            with_automatic_compaction(options(JobPolicy::default()))
        } else {
            slow.clone()
        };
        let context = format!("{reply:?}");
        let cluster = RemoteCompactionCluster::start(options).await;
        let compactions = cluster.node.groups.context().env.compactions.clone();
        let taken = compactions.acquire().await;
        cluster.first.script(reply);
        cluster.second.script([FakeReply::RefuseOpening(Reason::BadPlugin)]);
        flush_rows(&cluster.node, 5..9).await;
        until("a compactor was called", async || {
            cluster.first.attempts().len() >= attempts && !cluster.first.openings.lock().is_empty()
        })
        .await;
        tokio::time::sleep(MANY_INTERVALS).await;
        stop_without_tasks(cluster, &context).await;
        drop(taken);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn local_compaction_ends_with_its_node() {
    let cluster =
        RemoteCompactionCluster::start(with_automatic_compaction(options(JobPolicy::default())))
            .await;
    cluster.announce(&[]);
    let env = cluster.node.groups.context().env.clone();
    let taken = env.compactions.acquire().await;
    flush_rows(&cluster.node, 5..9).await;
    let workers = env.workers.available_permits() as u32;
    let busy = env.workers.clone().acquire_many_owned(workers).await.unwrap();
    drop(taken);
    until("the job runs", async || {
        jobs(&cluster.node).await.first().is_some_and(|job| job.state == "running")
    })
    .await;
    stop_without_tasks(cluster, "a local compaction").await;
    drop(busy);
}
