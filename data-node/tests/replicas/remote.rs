//! Compactions on compactor nodes: what the owner makes of everything that they may do.

use std::sync::Arc;
use std::time::Duration;

use tidewater_common::ids::NodeId;
use tidewater_data_node::leadership::compactions::retry_policy::JobPolicy;
use tidewater_proto::v1::{CatalogSnapshot, CompactionPlace, Hook, Reason, watch_event};
use tokio::sync::Notify;

use crate::cluster::{until, write};
use crate::fake_compactor::{Act, FakeCompactor};
use crate::remote_setting::{Setting, cancel, flush_rows, jobs, no_fallback, options};
use crate::single::{place, start_with_region};
use crate::three::Three;

#[tokio::test(flavor = "multi_thread")]
async fn a_compactor_does_the_work_and_every_replica_loads_the_version() {
    let three = Three::start(options(JobPolicy::default())).await;
    let leader = three.leader().await;
    let compactor = FakeCompactor::start(201, &three.storage).await;
    let node = three.node(leader);
    let parts = node.groups.parts();
    parts.compactors.fleet.follow(parts.node, &[compactor.info(1)]);
    node.write(write(1, 1, &[])).await.unwrap();
    flush_rows(node, 2..6).await;
    let report = node.compact().await.unwrap().0.report.unwrap();
    assert_eq!((report.node_id, report.files_in, report.files_out), (201, 4, 1));
    let done = report.done.unwrap();
    assert_eq!((done.rows_read, done.rows_written), (8, 8));
    assert_eq!(report.job_id, compactor.plans.lock()[0].plan.as_ref().unwrap().job_id);
    assert!(compactor.open.lock().is_empty(), "what is not needed any more is closed");
    until("every replica has the file", async || {
        for node in three.running() {
            if node.info().await.is_none_or(|info| info.files != 1) {
                return false;
            }
        }
        true
    })
    .await;
    assert_eq!(node.scan().await.unwrap(), [1, 1, 1, 1, 2, 3, 4, 5]);
    assert_eq!(jobs(node).await, []);
    three.agree().await;
    three.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_due_goes_to_a_compactor_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = options(JobPolicy::default());
    options.compactions.interval = Duration::from_millis(50);
    let place = place(&folder, options).await;
    let node = start_with_region(&place).await;
    let compactor = FakeCompactor::start(201, &place.storage).await;
    node.groups.parts().compactors.fleet.follow(NodeId(1), &[compactor.info(1)]);
    node.write(write(1, 1, &[])).await.unwrap();
    flush_rows(&node, 2..6).await;
    until("four files become one", async || node.info().await.unwrap().files == 1).await;
    assert_eq!(compactor.attempts(), [1]);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_refuses_or_is_gone_is_passed_over() {
    let setting = Setting::start(no_fallback()).await;
    setting.one.script([Act::RefuseOpening(Reason::BadPlugin)]);
    let report = setting.compact().await.unwrap();
    assert_eq!((report.node_id, report.files_out), (202, 1));
    assert_eq!(setting.one.attempts(), [0_u32; 0]);
    assert_eq!(setting.two.attempts(), [2]);
    setting.check(1).await;

    // Nobody listens there any more.
    flush_rows(&setting.node, 5..6).await;
    let mut gone = setting.one.info(9);
    gone.node_id = 203;
    gone.address = "127.0.0.1:1".to_owned();
    let known = [gone, setting.two.info(1)];
    setting.node.groups.parts().compactors.fleet.follow(NodeId(1), &known);
    setting.two.script([Act::RefusePlan(Reason::Overloaded)]);
    assert_eq!(setting.compact().await.unwrap().node_id, 202, "it has room a little later");

    flush_rows(&setting.node, 6..7).await;
    setting.two.script((0..100).map(|_| Act::RefusePlan(Reason::Overloaded)));
    let refusal = setting.compact().await.unwrap_err();
    assert_eq!(refusal.reason, Reason::NoCompactors, "it is not waited for for ever");
    assert!(refusal.message.contains("as the script says"), "{refusal}");
    setting.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_takes_is_done_here_under_a_new_id() {
    let setting = Setting::start(options(JobPolicy::default())).await;
    setting.one.script([Act::RefusePlan(Reason::Overloaded)]);
    setting.two.script([Act::RefusePlan(Reason::ShuttingDown)]);
    let report = setting.compact().await.unwrap();
    assert_eq!((report.node_id, report.files_out), (0, 1));
    let asked: Vec<String> = [&setting.one, &setting.two]
        .iter()
        .map(|one| one.plans.lock()[0].plan.as_ref().unwrap().job_id.clone())
        .collect();
    assert_eq!(asked[0], asked[1]);
    assert_ne!(asked[0], report.job_id);
    setting.check(1).await;

    flush_rows(&setting.node, 5..6).await;
    setting.up(&[]);
    assert_eq!(setting.compact().await.unwrap().node_id, 0, "without any compactor");
    setting.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_it_is_done_can_be_said() {
    let setting = Setting::start(options(JobPolicy::default())).await;
    let (last, _) = setting.node.compact_at(CompactionPlace::Local).await.unwrap();
    assert_eq!(last.report.unwrap().node_id, 0);
    assert_eq!(setting.one.openings.lock().len() + setting.two.openings.lock().len(), 0);
    flush_rows(&setting.node, 5..6).await;
    setting.up(&[]);
    let refusal = setting.node.compact_at(CompactionPlace::Remote).await.unwrap_err();
    assert_eq!(refusal.reason, Reason::NoCompactors);
    setting.up(&[(&setting.two, 1)]);
    let (last, _) = setting.node.compact_at(CompactionPlace::Remote).await.unwrap();
    assert_eq!(last.report.unwrap().node_id, 202);
    setting.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_files_are_gone_is_discarded() {
    let setting = Setting::start(no_fallback()).await;
    setting.one.script([Act::Fail(Reason::InputsGone, false)]);
    let refusal = setting.compact().await.unwrap_err();
    assert_eq!(refusal.reason, Reason::InputsGone);
    setting.one.script([Act::Fail(Reason::BelowFloor, false)]);
    let refusal = setting.compact().await.unwrap_err();
    assert_eq!(refusal.reason, Reason::BelowFloor);
    assert_eq!((jobs(&setting.node).await, setting.two.attempts()), (vec![], vec![]));
    setting.check(3).await;
    setting.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_job_is_shown_and_cancelled() {
    let mut options = no_fallback();
    options.compactions.jobs.progress_timeout = Duration::from_secs(3_600);
    let setting = Setting::start(options).await;
    let go = Arc::new(Notify::new());
    setting.one.script([Act::Hang(go.clone())]);
    {
        let compacting = setting.compact();
        tokio::pin!(compacting);
        let mut running = Vec::new();
        until("the job runs", async || {
            assert!(futures::poll!(&mut compacting).is_pending());
            running = jobs(&setting.node).await;
            running.iter().any(|job| job.node_id == 201 && job.state == "running")
        })
        .await;
        cancel(&setting.node, &running[0].job_id).await.unwrap();
        until("the compactor is told", async || {
            assert!(futures::poll!(&mut compacting).is_pending());
            !setting.one.cancelled.lock().is_empty()
        })
        .await;
        // Too late: it is committed all the same, and that is what is said.
        go.notify_one();
        until("it has tried", async || setting.one.late.lock().len() == 1).await;
        assert_eq!(*setting.one.late.lock(), [Ok(())]);
        let report = compacting.await.unwrap();
        assert_eq!((report.node_id, report.files_out), (201, 1));
    }
    setting.check(1).await;
    setting.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_goes_on_when_its_owner_goes_away_and_the_next_one_finds_it() {
    let mut options = no_fallback();
    options.compactions.jobs.progress_timeout = Duration::from_secs(3_600);
    let mut three = Three::start(options).await;
    let leader = three.leader().await;
    let compactor = FakeCompactor::start(201, &three.storage).await;
    let node = three.node(leader);
    let parts = node.groups.parts();
    parts.compactors.fleet.follow(parts.node, &[compactor.info(1)]);
    node.write(write(1, 1, &[])).await.unwrap();
    flush_rows(node, 2..6).await;
    let go = Arc::new(Notify::new());
    compactor.script([Act::Hang(go.clone())]);
    {
        let compacting = node.compact();
        tokio::pin!(compacting);
        until("the job runs", async || {
            assert!(futures::poll!(&mut compacting).is_pending());
            compactor.attempts() == [1]
        })
        .await;
    }
    three.nodes[leader].take().unwrap().stop().await;
    let next = three.leader().await;
    let node = three.node(next);
    until("the new leader serves", async || node.scan().await.is_ok()).await;
    flush_rows(node, 6..7).await;
    go.notify_one();
    until("it has tried", async || compactor.late.lock().len() == 1).await;
    assert_eq!(*compactor.late.lock(), [Ok(())], "another owner, but its files are live");
    flush_rows(node, 7..8).await;
    assert_eq!(node.info().await.unwrap().files, 3, "what was merged, and two flushes");
    assert_eq!(node.scan().await.unwrap(), [1, 1, 1, 1, 1, 1, 2, 3, 4, 5, 6, 7]);
    three.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compactor_gets_the_hooks_that_see_the_table_and_are_called_as_things_happen() {
    let setting = Setting::start(no_fallback()).await;
    let log = setting.place.folder.with_file_name("calls.jsonl");
    let hook = |name: &str, table_id: u32, paused: bool, durable: bool| Hook {
        name: name.to_owned(),
        kind: "jsonl".to_owned(),
        config: serde_json::json!({ "path": log }).to_string(),
        table_id,
        paused,
        generation: 7,
        durable,
    };
    let hooks = vec![
        hook("all", 0, false, false),
        hook("durable", 0, false, true),
        hook("other", 4, false, false),
        hook("paused", 0, true, false),
        hook("this", 3, false, false),
        Hook { kind: "unknown".to_owned(), ..hook("unknown", 0, false, false) },
    ];
    let snapshot = CatalogSnapshot { hooks, ..Default::default() };
    setting.place.hooks.follow(&watch_event::Event::Snapshot(snapshot));
    assert_eq!(setting.compact().await.unwrap().node_id, 201);
    let opening = setting.one.openings.lock()[0].clone();
    let given: Vec<(String, u64)> =
        opening.plugins.iter().map(|one| (one.name.clone(), one.generation)).collect();
    assert_eq!(given, [("all".to_owned(), 7), ("this".to_owned(), 7)]);
    let lines = std::fs::read_to_string(&log).unwrap();
    let called: Vec<(String, String, String)> = lines
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|call| {
            let field = |name: &str| call[name].as_str().unwrap_or("").to_owned();
            (field("hook"), field("event"), field("node_role"))
        })
        .collect();
    let call =
        |hook: &str, event: &str| (hook.to_owned(), event.to_owned(), "compactor".to_owned());
    let expected = [
        call("all", "sst_files_written"),
        call("this", "sst_files_written"),
        call("all", "manifest_updated"),
        call("this", "manifest_updated"),
    ];
    assert_eq!(called, expected, "each on the compactor, none here");
    setting.node.stop().await;
}
