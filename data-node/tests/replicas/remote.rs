//! Tests of compactions on compactor nodes: the owner's reactions to their results.

use std::sync::Arc;
use std::time::Duration;

use tidewater_common::ids::NodeId;
use tidewater_data_node::leadership::compactions::life::JobPolicy;
use tidewater_proto::v1::{CatalogSnapshot, CompactionPlace, Hook, Reason, watch_event};
use tokio::sync::Notify;

use crate::cluster::{until, write};
use crate::fake_compactor::{FakeCompactor, FakeReply};
use crate::remote_cluster::{
    RemoteCompactionCluster, cancel, flush_rows, jobs, no_fallback, options,
};
use crate::single::{node_config, start_with_region};
use crate::three::ThreeNodes;

#[tokio::test(flavor = "multi_thread")]
async fn compactor_compacts_and_every_replica_loads_the_version() {
    let three = ThreeNodes::start(options(JobPolicy::default())).await;
    let leader = three.leader().await;
    let compactor = FakeCompactor::start(201, &three.storage).await;
    let node = three.node(leader);
    let context = node.groups.context();
    context.compactors.fleet.follow(context.node, &[compactor.info(1)]);
    node.write(write(1, 1, &[])).await.unwrap();
    flush_rows(node, 2..6).await;
    let report = node.compact().await.unwrap().0.report.unwrap();
    assert_eq!((report.node_id, report.files_in, report.files_out), (201, 4, 1));
    let done = report.done.unwrap();
    assert_eq!((done.rows_read, done.rows_written), (8, 8));
    assert_eq!(report.job_id, compactor.plans.lock()[0].plan.as_ref().unwrap().job_id);
    assert!(compactor.open.lock().is_empty(), "the unneeded handle is closed");
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
async fn due_compaction_is_offloaded_automatically() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = options(JobPolicy::default());
    options.compactions.every = Duration::from_millis(50);
    let config = node_config(&folder, options).await;
    let node = start_with_region(&config).await;
    let compactor = FakeCompactor::start(201, &config.storage).await;
    node.groups.context().compactors.fleet.follow(NodeId(1), &[compactor.info(1)]);
    node.write(write(1, 1, &[])).await.unwrap();
    flush_rows(&node, 2..6).await;
    until("four files become one", async || node.info().await.unwrap().files == 1).await;
    assert_eq!(compactor.attempts(), [1]);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refusing_or_unreachable_compactors_are_skipped() {
    let cluster = RemoteCompactionCluster::start(no_fallback()).await;
    cluster.first.script([FakeReply::RefuseOpening(Reason::BadPlugin)]);
    let report = cluster.compact().await.unwrap();
    assert_eq!((report.node_id, report.files_out), (202, 1));
    assert_eq!(cluster.first.attempts(), [0_u32; 0]);
    assert_eq!(cluster.second.attempts(), [2]);
    cluster.check_files(1).await;

    // No process listens at this address.
    flush_rows(&cluster.node, 5..6).await;
    let mut unreachable = cluster.first.info(9);
    unreachable.node_id = 203;
    unreachable.address = "127.0.0.1:1".to_owned();
    let known = [unreachable, cluster.second.info(1)];
    cluster.node.groups.context().compactors.fleet.follow(NodeId(1), &known);
    cluster.second.script([FakeReply::RefusePlan(Reason::Overloaded)]);
    assert_eq!(cluster.compact().await.unwrap().node_id, 202, "a slot is free a little later");

    flush_rows(&cluster.node, 6..7).await;
    cluster.second.script((0..100).map(|_| FakeReply::RefusePlan(Reason::Overloaded)));
    let refusal = cluster.compact().await.unwrap_err();
    assert_eq!(refusal.reason, Reason::NoCompactors, "the wait is bounded");
    assert!(refusal.message.contains("as scripted"), "{refusal}");
    cluster.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn local_fallback_uses_a_new_job_id() {
    let cluster = RemoteCompactionCluster::start(options(JobPolicy::default())).await;
    cluster.first.script([FakeReply::RefusePlan(Reason::Overloaded)]);
    cluster.second.script([FakeReply::RefusePlan(Reason::ShuttingDown)]);
    let report = cluster.compact().await.unwrap();
    assert_eq!((report.node_id, report.files_out), (0, 1));
    let job_ids: Vec<String> = [&cluster.first, &cluster.second]
        .iter()
        .map(|compactor| compactor.plans.lock()[0].plan.as_ref().unwrap().job_id.clone())
        .collect();
    assert_eq!(job_ids[0], job_ids[1]);
    assert_ne!(job_ids[0], report.job_id);
    cluster.check_files(1).await;

    flush_rows(&cluster.node, 5..6).await;
    cluster.announce(&[]);
    assert_eq!(cluster.compact().await.unwrap().node_id, 0, "without any compactor");
    cluster.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn compaction_request_can_choose_the_place() {
    let cluster = RemoteCompactionCluster::start(options(JobPolicy::default())).await;
    let (last, _) = cluster.node.compact_at(CompactionPlace::Local).await.unwrap();
    assert_eq!(last.report.unwrap().node_id, 0);
    assert_eq!(cluster.first.openings.lock().len() + cluster.second.openings.lock().len(), 0);
    flush_rows(&cluster.node, 5..6).await;
    cluster.announce(&[]);
    let refusal = cluster.node.compact_at(CompactionPlace::Remote).await.unwrap_err();
    assert_eq!(refusal.reason, Reason::NoCompactors);
    cluster.announce(&[(&cluster.second, 1)]);
    let (last, _) = cluster.node.compact_at(CompactionPlace::Remote).await.unwrap();
    assert_eq!(last.report.unwrap().node_id, 202);
    cluster.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn job_with_missing_inputs_is_discarded() {
    let cluster = RemoteCompactionCluster::start(no_fallback()).await;
    cluster.first.script([FakeReply::Fail(Reason::InputsGone, false)]);
    let refusal = cluster.compact().await.unwrap_err();
    assert_eq!(refusal.reason, Reason::InputsGone);
    cluster.first.script([FakeReply::Fail(Reason::BelowFloor, false)]);
    let refusal = cluster.compact().await.unwrap_err();
    assert_eq!(refusal.reason, Reason::BelowFloor);
    assert_eq!((jobs(&cluster.node).await, cluster.second.attempts()), (vec![], vec![]));
    cluster.check_files(3).await;
    cluster.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn running_job_is_listed_and_cancelled() {
    let mut options = no_fallback();
    options.compactions.jobs.patience = Duration::from_secs(3_600);
    let cluster = RemoteCompactionCluster::start(options).await;
    let go = Arc::new(Notify::new());
    cluster.first.script([FakeReply::HangUntilNotified(go.clone())]);
    {
        let compacting = cluster.compact();
        tokio::pin!(compacting);
        let mut running = Vec::new();
        until("the job runs", async || {
            assert!(futures::poll!(&mut compacting).is_pending());
            running = jobs(&cluster.node).await;
            running.iter().any(|job| job.node_id == 201 && job.state == "running")
        })
        .await;
        cancel(&cluster.node, &running[0].job_id).await.unwrap();
        until("the compactor receives the cancellation", async || {
            assert!(futures::poll!(&mut compacting).is_pending());
            !cluster.first.cancelled.lock().is_empty()
        })
        .await;
        // The cancellation is too late: the job commits, and its report is returned.
        go.notify_one();
        until("the compactor has worked", async || cluster.first.late.lock().len() == 1).await;
        assert_eq!(*cluster.first.late.lock(), [Ok(())]);
        let report = compacting.await.unwrap();
        assert_eq!((report.node_id, report.files_out), (201, 1));
    }
    cluster.check_files(1).await;
    cluster.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn job_continues_after_a_failover_of_its_owner() {
    let mut options = no_fallback();
    options.compactions.jobs.patience = Duration::from_secs(3_600);
    let mut three = ThreeNodes::start(options).await;
    let leader = three.leader().await;
    let compactor = FakeCompactor::start(201, &three.storage).await;
    let node = three.node(leader);
    let context = node.groups.context();
    context.compactors.fleet.follow(context.node, &[compactor.info(1)]);
    node.write(write(1, 1, &[])).await.unwrap();
    flush_rows(node, 2..6).await;
    let go = Arc::new(Notify::new());
    compactor.script([FakeReply::HangUntilNotified(go.clone())]);
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
    until("the compactor has worked", async || compactor.late.lock().len() == 1).await;
    assert_eq!(
        *compactor.late.lock(),
        [Ok(())],
        "the owner is another one, but the inputs are live"
    );
    flush_rows(node, 7..8).await;
    assert_eq!(node.info().await.unwrap().files, 3, "the compacted file and two flushes");
    assert_eq!(node.scan().await.unwrap(), [1, 1, 1, 1, 1, 1, 2, 3, 4, 5, 6, 7]);
    three.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn compactor_calls_only_the_active_hooks_of_the_table() {
    let cluster = RemoteCompactionCluster::start(no_fallback()).await;
    let log = cluster.config.folder.with_file_name("calls.jsonl");
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
    cluster.config.hooks.follow(&watch_event::Event::Snapshot(snapshot));
    assert_eq!(cluster.compact().await.unwrap().node_id, 201);
    let opening = cluster.first.openings.lock()[0].clone();
    let passed: Vec<(String, u64)> =
        opening.plugins.iter().map(|plugin| (plugin.name.clone(), plugin.generation)).collect();
    assert_eq!(passed, [("all".to_owned(), 7), ("this".to_owned(), 7)]);
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
    assert_eq!(called, expected, "the compactor calls each hook, the owner none");
    cluster.node.stop().await;
}
