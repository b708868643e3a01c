//! Exports of a table of a fake data node, which writes no objects.

use std::time::Duration;

use bytes::Bytes;
use tidewater_common::ids::Epoch;
use tidewater_common::problem::LastingProblem;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{
    self, ProblemKind, Reason, change_collections::Change, meta_command::Kind,
};
use tokio::time::Instant;

use super::cluster::until;
use super::table_cluster::{NOW_MS, TableCluster};
use crate::catalog::{Export, ReadHold};
use crate::commands::collections::testing::export_request;
use crate::commands::testing::directory;

/// Intervals in milliseconds: with a second step at once, and without one in the time of a test.
const SHORT_MS: u64 = 1_000;
const LONG_MS: u64 = 3_600_000;

impl TableCluster {
    /// Creates an export of table "t" as of the last barrier.
    async fn create(&self, number: u64, name: &str, interval_ms: u64) -> v1::Export {
        let request =
            v1::CreateExportRequest { interval_ms, ..export_request(number, name, "t", 0) };
        let created = self.client().await.create_export(request).await.unwrap();
        created.into_inner().export.unwrap()
    }

    /// Returns an export with its hold.
    fn export(&self, name: &str) -> (Export, ReadHold) {
        let state = self.running.group.view.read();
        let export: &Export = state.exports().get(name).unwrap();
        let hold: &ReadHold = state.holds().get(&export.hold_name()).unwrap();
        (export.clone(), hold.clone())
    }

    /// Waits until an export has completed a number of steps; returns it with its hold.
    async fn completed(&self, name: &str, steps: u64) -> (Export, ReadHold) {
        until("the steps are completed", || self.export(name).0.steps >= steps).await;
        self.export(name)
    }

    /// Returns the only export as callers see it.
    async fn listed_export(&self) -> v1::ListedExport {
        let request = v1::ListExportsRequest::default();
        let listed = self.client().await.list_exports(request).await.unwrap().into_inner();
        let [export] = &listed.exports[..] else { panic!("{listed:?}") };
        export.clone()
    }

    /// Returns the number of exports whose steps are in progress or fail.
    fn steps_in_progress(&self) -> usize {
        self.running.observations.exports.lock().len()
    }

    /// Returns the calls of regions for a step.
    fn calls(&self, step: u64) -> Vec<v1::ExportRegionRequest> {
        let hosted = self.hosted.lock();
        hosted.exports.calls.iter().filter(|call| call.step == step).cloned().collect()
    }

    /// Returns the error of the steps that fail.
    fn failure(&self) -> Option<String> {
        let exports = self.running.observations.exports.lock();
        exports.values().find_map(|of| of.failure().map(|failure| failure.message.clone()))
    }

    /// Returns the problem of a failing export as it will be half a minute from now.
    fn later_problem(&self) -> Option<LastingProblem> {
        let later = Instant::now() + Duration::from_secs(30);
        let mut problems = self.running.problems.current(later).into_iter();
        problems.find(|of| of.problem.kind == ProblemKind::ExportFailing)
    }
}

/// Returns the regions of the files of a step.
fn regions_of(step: &v1::CompleteExportStepRequest) -> Vec<String> {
    let prefix = format!("{}/", step.step);
    step.files.iter().map(|file| file.path.replace(&prefix, "")).collect()
}

fn names(regions: &[u64]) -> Vec<String> {
    regions.iter().map(u64::to_string).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn completed_steps_move_the_hold_of_their_export() {
    let cluster = TableCluster::start().await;
    let created = cluster.create(20, "x", SHORT_MS).await;
    let (export, hold) = cluster.completed("x", 2).await;
    assert_eq!(Some(hold.epoch), export.frontier);
    assert!(hold.epoch > Epoch(created.as_of), "{hold:?}");
    {
        let hosted = cluster.hosted.lock();
        assert_eq!(hosted.exports.claims, [cluster.data.node_id]);
        let [first, second, ..] = &hosted.exports.completed[..] else { panic!("{hosted:?}") };
        assert_eq!((first.step, first.after, first.as_of), (1, None, created.as_of));
        assert_eq!((second.step, second.after), (2, Some(created.as_of)));
        for step in [first, second] {
            assert_eq!(regions_of(step), names(&cluster.regions));
            let target = step.target.as_ref().unwrap();
            assert_eq!((target.name.as_str(), target.table.as_str()), ("x", "t"));
        }
    }
    let listed = cluster.listed_export().await;
    assert_eq!((listed.table.as_str(), listed.failure.as_str()), ("t", ""));
    assert!(listed.upper >= listed.export.unwrap().frontier);

    // Without changes, the frontier advances, and no object is written. A step may be in progress.
    cluster.hosted.lock().exports.is_unchanged = true;
    let in_progress = cluster.export("x").0.steps + 1;
    let (before, _) = cluster.completed("x", in_progress).await;
    let written = cluster.hosted.lock().exports.completed.len();
    let (after, hold) = cluster.completed("x", before.steps + 1).await;
    assert_eq!(cluster.hosted.lock().exports.completed.len(), written);
    assert_eq!((after.files, after.rows), (before.files, before.rows));
    assert!(after.frontier > before.frontier && Some(hold.epoch) == after.frontier);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_export_ends_its_step() {
    let cluster = TableCluster::start().await;
    cluster.hosted.lock().exports.blocked_from = Some(1);
    cluster.create(20, "x", LONG_MS).await;
    until("the regions are called", || cluster.calls(1).len() == 2).await;
    assert_eq!(cluster.steps_in_progress(), 1);
    let drop = v1::DropExportRequest { name: "x".to_owned() };
    cluster.client().await.drop_export(drop).await.unwrap();
    until("the step ends", || cluster.steps_in_progress() == 0).await;
    cluster.hosted.lock().exports.blocked_from = None;
    cluster.create(21, "y", LONG_MS).await;
    cluster.completed("y", 1).await;
    // The calls for the dropped export are not repeated.
    assert_eq!(cluster.calls(1).len(), 4);
    let completed = cluster.hosted.lock().exports.completed.clone();
    let names: Vec<_> = completed.iter().filter_map(|step| step.target.as_ref()).collect();
    assert!(matches!(&names[..], [only] if only.name == "y"), "{names:?}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn next_leader_continues_a_step_at_its_epoch() {
    let cluster = TableCluster::start().await;
    cluster.hosted.lock().exports.blocked_from = Some(2);
    cluster.create(20, "x", SHORT_MS).await;
    until("the second step begins", || cluster.calls(2).len() == 2).await;
    let epoch = cluster.export("x").0.step_as_of.unwrap();
    let cluster = cluster.restarted().await;
    until("the next leader calls the regions", || cluster.calls(2).len() == 4).await;
    assert!(cluster.upper() > epoch, "the step would have a later epoch");
    cluster.hosted.lock().exports.blocked_from = Some(3);
    let (export, hold) = cluster.completed("x", 2).await;
    assert_eq!((export.frontier, hold.epoch), (Some(epoch), epoch));
    assert!(cluster.calls(2).iter().all(|call| call.as_of == epoch.get()));
    let completed: Vec<(u64, u64)> =
        cluster.hosted.lock().exports.completed.iter().map(|of| (of.step, of.as_of)).collect();
    assert_eq!(completed, [(1, export.as_of.get()), (2, epoch.get())]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failing_region_is_a_problem_until_it_is_written() {
    let cluster = TableCluster::start().await;
    let failing = cluster.regions[0];
    let reason = Reason::ExportTargetUnavailable;
    cluster.hosted.lock().exports.failing.insert(failing, reason);
    cluster.create(20, "x", LONG_MS).await;
    until("the region fails", || cluster.failure().is_some()).await;
    let attempts = || cluster.calls(1).iter().filter(|call| call.region_id == failing).count();
    let made = attempts();
    until("further attempts are made", || {
        // Also during the backoffs, and when the other region is found written.
        assert_eq!(cluster.failure().as_deref(), Some("the bucket is full"));
        attempts() >= made + 3
    })
    .await;
    let listed = cluster.listed_export().await;
    assert_eq!((listed.failure.as_str(), listed.regions), ("the bucket is full", 2));
    let problem = cluster.later_problem().unwrap();
    let expected = "export \"x\" of table \"t\" fails: the bucket is full";
    assert_eq!(problem.problem.detail, expected);
    assert!(problem.age >= Duration::from_secs(30), "{problem:?}");

    cluster.hosted.lock().exports.failing.clear();
    cluster.completed("x", 1).await;
    until("the step ends", || cluster.steps_in_progress() == 0).await;
    assert_eq!(cluster.later_problem(), None);
    assert_eq!(cluster.listed_export().await.failure, "");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn step_has_the_files_of_routes_that_replace_others() {
    let cluster = TableCluster::start().await;
    let [parent, other] = cluster.regions[..] else { panic!("{:?}", cluster.regions) };
    cluster.hosted.lock().exports.failing.insert(parent, Reason::RegionLoading);
    cluster.create(20, "x", LONG_MS).await;
    let done = || cluster.running.observations.exports.lock().values().any(|of| of.done == 1);
    until("the other region is written", done).await;
    let split = v1::SplitRouteRequest {
        request_id: directory(21),
        route_id: parent,
        split_key: Bytes::from_static(&[0x40]),
        expected_version: 0,
        for_load: false,
    };
    let split = cluster.meta.admin(1).await.split_route(split).await.unwrap().into_inner();
    let (export, _) = cluster.completed("x", 1).await;
    assert_eq!((export.files, export.rows), (3, 30));
    let mut expected = [names(&[other]), names(&split.child_ids)].concat();
    expected.sort();
    let completed = cluster.hosted.lock().exports.completed.clone();
    let [step] = &completed[..] else { panic!("{completed:?}") };
    let mut regions = regions_of(step);
    regions.sort();
    assert_eq!(regions, expected);
    // It was written once.
    let calls = cluster.calls(1);
    assert_eq!(calls.iter().filter(|call| call.region_id == other).count(), 1);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn export_is_refused_after_its_token_expires() {
    let cluster = TableCluster::start().await;
    let mut client = cluster.client().await;
    let prepare = v1::PrepareExportRequest {
        request_id: directory(20),
        table: "t".to_owned(),
        lease_ms: 10_000,
        ..v1::PrepareExportRequest::default()
    };
    let token = client.prepare_export(prepare).await.unwrap().into_inner().hold.unwrap().name;
    let later = NOW_MS + 3_600_000;
    let advance = v1::AdvanceTime { now_ms: later, agreed_ms: later };
    let names = vec![token.clone()];
    let expire = v1::ChangeCollections {
        change: Some(Change::Expire(v1::ReleaseReadHoldsRequest { names })),
        ..v1::ChangeCollections::default()
    };
    for kind in [Kind::AdvanceTime(advance), Kind::ChangeCollections(expire)] {
        cluster.running.group.propose(kind).await.unwrap();
    }
    let create = v1::CreateExportRequest { token, ..export_request(21, "x", "t", 0) };
    let refused = Refusal::from_status(&client.create_export(create).await.unwrap_err());
    assert_eq!(refused.reason, Reason::ExportTokenExpired, "{refused}");
    // Nothing was written below the prefix.
    assert_eq!(cluster.hosted.lock().exports.claims, [0; 0]);
    cluster.stop().await;
}
