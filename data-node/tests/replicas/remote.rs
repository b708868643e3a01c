//! Compactions on compactor nodes: what the owner makes of everything that they may do.

use std::sync::Arc;
use std::time::Duration;

use tidewater_common::ids::NodeId;
use tidewater_common::refusal::Refusal;
use tidewater_data_node::leadership::compactions::choose::CompactionPolicy;
use tidewater_data_node::leadership::compactions::life::JobPolicy;
use tidewater_data_node::options::GroupOptions;
use tidewater_proto::v1::region_admin_server::RegionAdmin;
use tidewater_proto::v1::{
    CancelCompactionRequest, CatalogSnapshot, CompactionInfo, CompactionPlace, CompactionReport,
    Hook, ListCompactionsRequest, Reason, watch_event,
};
use tokio::sync::Notify;
use tonic::Request;

use crate::cluster::{Node, Place, REGION, until, write};
use crate::fake_compactor::{Act, FakeCompactor};
use crate::single::{place, start_with_region};
use crate::three::Three;

/// Nothing by itself; attempts are given up soon.
pub(crate) fn options(jobs: JobPolicy) -> GroupOptions {
    let jobs = JobPolicy {
        patience: Duration::from_millis(400),
        backoff: (Duration::from_millis(10), Duration::from_millis(20)),
        longest_wait: Duration::from_millis(300),
        ..jobs
    };
    let every = Duration::from_secs(3_600);
    let compactions = CompactionPolicy { every, jobs, ..CompactionPolicy::default() };
    GroupOptions { compactions, ..GroupOptions::default() }
}

pub(crate) fn no_fallback() -> GroupOptions {
    options(JobPolicy { fallback_to_local: false, ..JobPolicy::default() })
}

/// A node with a region of three files, and two compactors.
pub(crate) struct Setting {
    _folder: tempfile::TempDir,
    pub(crate) place: Place,
    pub(crate) node: Node,
    pub(crate) one: Arc<FakeCompactor>,
    pub(crate) two: Arc<FakeCompactor>,
}

impl Setting {
    pub(crate) async fn start(options: GroupOptions) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let place = place(&folder, options).await;
        let node = start_with_region(&place).await;
        node.write(write(1, 1, &[])).await.unwrap();
        flush_rows(&node, 2..5).await;
        let one = FakeCompactor::start(201, &place.storage).await;
        let two = FakeCompactor::start(202, &place.storage).await;
        let setting = Self { _folder: folder, place, node, one, two };
        // The first has more room, so it is asked first.
        setting.up(&[(&setting.one, 2), (&setting.two, 1)]);
        setting
    }

    pub(crate) fn up(&self, compactors: &[(&Arc<FakeCompactor>, u32)]) {
        let known: Vec<_> = compactors.iter().map(|(one, slots)| one.info(*slots)).collect();
        self.node.groups.parts().compactors.fleet.follow(NodeId(1), &known);
    }

    pub(crate) async fn compact(&self) -> Result<CompactionReport, Refusal> {
        Ok(self.node.compact().await?.0.report.unwrap())
    }

    /// Files, and the rows that were written.
    pub(crate) async fn check(&self, files: u32) {
        assert_eq!(self.node.info().await.unwrap().files, files);
        assert_eq!(self.node.scan().await.unwrap(), [1, 1, 1, 2, 3, 4]);
    }
}

pub(crate) async fn flush_rows(node: &Node, serials: std::ops::Range<u64>) {
    for serial in serials {
        node.write(write(1, serial, &[1, serial as i64])).await.unwrap();
        node.flush().await.unwrap();
    }
}

pub(crate) async fn jobs(node: &Node) -> Vec<CompactionInfo> {
    let answer = node.admin.list_compactions(Request::new(ListCompactionsRequest {})).await;
    answer.unwrap().into_inner().compactions
}

pub(crate) async fn cancel(node: &Node, job_id: &str) -> Result<(), Refusal> {
    let request = CancelCompactionRequest { job_id: job_id.to_owned() };
    node.admin.cancel_compaction(Request::new(request)).await?;
    Ok(())
}

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
    options.compactions.every = Duration::from_millis(50);
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
    options.compactions.jobs.patience = Duration::from_secs(3_600);
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
    options.compactions.jobs.patience = Duration::from_secs(3_600);
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
