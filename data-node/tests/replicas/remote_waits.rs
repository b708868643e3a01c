//! Compactions on compactor nodes that have to wait: for room, for another job, for this node, for
//! somebody's next word.

use std::sync::Arc;
use std::time::Duration;

use tidewater_common::ids::GroupId;
use tidewater_data_node::leadership::compactions::retry_policy::JobPolicy;
use tidewater_data_node::options::GroupOptions;
use tidewater_proto::compaction::v1::RunningCompaction;
use tidewater_proto::v1::{CompactionPlace, CompactionProgress, Reason};
use tokio::sync::{Notify, SemaphorePermit};

use crate::cluster::{GROUP, Node, until};
use crate::fake_compactor::Act;
use crate::remote_setting::{
    A_WHILE, EVERY, Setting, by_itself, flush_rows, for_ever, full, jobs, no_fallback, options,
};

/// The one permit for compactions on this node.
async fn permit(node: &Node) -> SemaphorePermit<'_> {
    node.groups.parts().env.compactions.acquire().await.unwrap()
}

/// The first compactor says that a job of the region runs there, with so much done.
fn runs(setting: &Setting, rows_read: u64) {
    let dir = setting.one.openings.lock()[0].dir;
    let done = Some(CompactionProgress { rows_read, ..Default::default() });
    *setting.one.running.lock() = vec![RunningCompaction { dir, done, ..Default::default() }];
}

/// The region has two files, and the first compactor a job of it that another owner has left.
async fn left_there(options: GroupOptions) -> Setting {
    let setting = Setting::start(options).await;
    setting.one.script([Act::RefuseOpening(Reason::BadPlugin), Act::RefusePlan(Reason::JobExists)]);
    assert_eq!(setting.compact().await.unwrap().node_id, 202);
    flush_rows(&setting.node, 5..6).await;
    runs(&setting, 1);
    setting
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_compactor_has_already_is_waited_for_as_long_as_it_goes_on() {
    let setting = left_there(options(JobPolicy::default())).await;
    let mut compacting = Box::pin(setting.compact());
    // For longer than it would be waited for without progress.
    for rows in 1..30 {
        runs(&setting, rows);
        tokio::select! {
            ended = &mut compacting => panic!("{ended:?}"),
            () = tokio::time::sleep(EVERY) => {}
        }
    }
    setting.one.running.lock().clear();
    assert_eq!(compacting.await.unwrap().node_id, 201, "it is free again");
    assert_eq!((setting.one.attempts(), setting.two.attempts().len()), (vec![1, 2], 1));
    assert_eq!(setting.node.info().await.unwrap().files, 1);
    setting.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_elsewhere_that_stands_still_is_not_waited_for() {
    let mut options = options(JobPolicy::default());
    // One that moves is waited for much longer than this test.
    options.compactions.jobs.progress_timeout = Duration::from_secs(2);
    let setting = left_there(options).await;
    let compacting = tokio::time::timeout(Duration::from_secs(30), setting.compact());
    assert_eq!(compacting.await.unwrap().unwrap().node_id, 202);
    assert_eq!(setting.one.attempts(), [1]);
    setting.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_elsewhere_that_goes_on_for_ever_is_not_waited_for() {
    let mut options = options(JobPolicy::default());
    options.compactions.jobs.progress_timeout = Duration::from_millis(100);
    let setting = left_there(options).await;
    let mut compacting = Box::pin(setting.compact());
    let mut rows = 1;
    let report = loop {
        tokio::select! {
            ended = &mut compacting => break ended.unwrap(),
            () = tokio::time::sleep(Duration::from_millis(10)) => runs(&setting, rows),
        }
        rows += 1;
    };
    drop(compacting);
    assert_eq!(report.node_id, 202);
    assert_eq!(setting.one.attempts(), [1]);
    setting.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_job_has_merged_meanwhile_is_not_merged_again() {
    let setting = left_there(for_ever(options(JobPolicy::default()))).await;
    let compacting = setting.compact_until_one_has_it().await;
    setting.one.merge_as_another().await;
    assert_eq!(compacting.await.unwrap_err().reason, Reason::InputsGone);
    assert_eq!((setting.one.attempts(), setting.two.attempts().len()), (vec![1], 1));
    assert_eq!(setting.node.info().await.unwrap().files, 1);
    setting.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_files_keeps_nobody_from_this_node() {
    let setting = Setting::start(options(JobPolicy::default())).await;
    setting.one.script([Act::Hang(Arc::new(Notify::new()))]);
    let there = setting.compact_until_one_has_it().await;
    // It is given up, nobody else takes it, and so it needs this node as well.
    setting.one.script(full());
    setting.two.script(full());
    let here = setting.node.compact_at(CompactionPlace::Local);
    let (there, here) = tokio::join!(there, here);
    assert_eq!((there.unwrap().node_id, here.unwrap().0.report), (0, None));
    setting.check(1).await;
    setting.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_files_merges_what_another_job_leaves() {
    let setting = Setting::start(for_ever(no_fallback())).await;
    let go = Arc::new(Notify::new());
    setting.one.script([Act::DieWhenTold(go.clone())]);
    setting.two.script([Act::Fail(Reason::InputsGone, false)]);
    let there = setting.compact_until_one_has_it().await;
    let mut here = Box::pin(setting.node.compact_at(CompactionPlace::Local));
    let early = tokio::time::timeout(A_WHILE, &mut here).await;
    assert!(early.is_err(), "{early:?}");
    go.notify_one();
    let (there, here) = tokio::join!(there, here);
    assert_eq!(there.unwrap_err().reason, Reason::InputsGone);
    let report = here.unwrap().0.report.unwrap();
    assert_eq!((report.node_id, report.files_in), (0, 3));
    setting.check(1).await;
    setting.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_compactor_can_do_waits_for_room_on_this_node() {
    let setting = Setting::start(options(JobPolicy::default())).await;
    setting.one.script([Act::RefuseOpening(Reason::BadPlugin)]);
    setting.two.script([Act::RefuseOpening(Reason::BadPlugin)]);
    let taken = permit(&setting.node).await;
    let mut compacting = Box::pin(setting.compact());
    let early = tokio::time::timeout(A_WHILE, &mut compacting).await;
    assert!(early.is_err(), "{early:?}");
    assert_eq!(setting.two.openings.lock().len(), 1);
    drop(taken);
    assert_eq!(compacting.await.unwrap().node_id, 0);
    setting.check(1).await;
    setting.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_waits_for_is_left_until_a_compactor_has_room() {
    let setting = Setting::start(by_itself(options(JobPolicy::default()))).await;
    setting.one.script(full());
    setting.two.script(full());
    flush_rows(&setting.node, 5..9).await;
    until("compactors were asked", async || setting.one.attempts().len() > 3).await;
    assert!(setting.node.info().await.unwrap().files >= 7, "this node has not done it");
    setting.one.forget();
    setting.two.forget();
    until("a compactor does it", async || setting.node.info().await.unwrap().files <= 4).await;
    setting.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_waited_for_long_is_done_here() {
    let mut options = by_itself(options(JobPolicy::default()));
    options.compactions.overdue_after = A_WHILE;
    let setting = Setting::start(options).await;
    setting.one.script(full());
    setting.two.script(full());
    flush_rows(&setting.node, 5..9).await;
    until("this node does it", async || setting.node.info().await.unwrap().files <= 4).await;
    assert!(!setting.one.attempts().is_empty(), "compactors were asked first");
    setting.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_came_before_this_nodes_is_what_is_answered() {
    let setting = Setting::start(options(JobPolicy::default())).await;
    let go = Arc::new(Notify::new());
    setting.one.script([Act::Hang(go.clone())].into_iter().chain(full()));
    setting.two.script(full());
    let taken = permit(&setting.node).await;
    let mut compacting = Box::pin(setting.compact());
    until("it waits for this node", async || {
        assert!(futures::poll!(&mut compacting).is_pending());
        setting.two.attempts().len() == 1 && setting.one.attempts().len() == 2
    })
    .await;
    go.notify_one();
    until("it was merged there", async || setting.one.late.lock().len() == 1).await;
    assert_eq!(*setting.one.late.lock(), [Ok(())]);
    drop(taken);
    let report = compacting.await.unwrap();
    assert_eq!((report.files_in, report.files_out), (3, 1));
    assert_ne!(report.node_id, 0);
    setting.check(1).await;
    setting.node.stop().await;
}

/// Nothing of its replica goes on after a node has stopped.
async fn stops(setting: Setting, what: &str) {
    let replica = setting.node.groups.get(GroupId(GROUP)).unwrap();
    setting.node.stop().await;
    assert_eq!(replica.tasks_left(), 0, "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_waits_keeps_a_node_from_stopping() {
    // For this node's permit, for the next attempt, in quarantine.
    let hour = Duration::from_secs(3_600);
    let mut slow = options(JobPolicy::default());
    slow.compactions.jobs.backoff = (hour, hour);
    let settings = [
        (Setting::start(options(JobPolicy::default())).await, CompactionPlace::Local, 0),
        (Setting::start(slow).await, CompactionPlace::Any, 1),
        (Setting::start(options(JobPolicy::default())).await, CompactionPlace::Any, 3),
    ];
    for (setting, place, deaths) in settings {
        setting.one.script((0..deaths).map(|_| Act::Die));
        setting.two.script((0..deaths).map(|_| Act::Die));
        let compactions = setting.node.groups.parts().env.compactions.clone();
        let taken = compactions.acquire().await.unwrap();
        {
            let compacting = setting.node.compact_at(place);
            tokio::pin!(compacting);
            let _ = tokio::time::timeout(A_WHILE, &mut compacting).await;
        }
        stops(setting, &format!("{place:?} after {deaths}")).await;
        drop(taken);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_nobody_waits_for_keeps_a_node_from_stopping() {
    // An attempt, the permit, the next attempt.
    let hour = Duration::from_secs(3_600);
    let mut slow = for_ever(by_itself(no_fallback()));
    slow.compactions.jobs.backoff = (hour, hour);
    for (act, asked) in [
        (Some(Act::DieWhenTold(Arc::new(Notify::new()))), 1),
        (Some(Act::RefuseOpening(Reason::BadPlugin)), 0),
        (Some(Act::Die), 1),
    ] {
        let options = match asked {
            0 => by_itself(options(JobPolicy::default())),
            _ => slow.clone(),
        };
        let what = format!("{act:?}");
        let setting = Setting::start(options).await;
        let compactions = setting.node.groups.parts().env.compactions.clone();
        let taken = compactions.acquire().await.unwrap();
        setting.one.script(act);
        setting.two.script([Act::RefuseOpening(Reason::BadPlugin)]);
        flush_rows(&setting.node, 5..9).await;
        until("a compactor was asked", async || {
            setting.one.attempts().len() >= asked && !setting.one.openings.lock().is_empty()
        })
        .await;
        tokio::time::sleep(A_WHILE).await;
        stops(setting, &what).await;
        drop(taken);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_merges_itself_ends_with_it() {
    let setting = Setting::start(by_itself(options(JobPolicy::default()))).await;
    setting.up(&[]);
    let env = setting.node.groups.parts().env.clone();
    let taken = env.compactions.acquire().await.unwrap();
    flush_rows(&setting.node, 5..9).await;
    let workers = env.workers.available_permits() as u32;
    let busy = env.workers.clone().acquire_many_owned(workers).await.unwrap();
    drop(taken);
    until("it merges", async || {
        jobs(&setting.node).await.first().is_some_and(|job| job.state == "running")
    })
    .await;
    stops(setting, "a merge").await;
    drop(busy);
}
