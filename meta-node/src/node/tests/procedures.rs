//! Procedures in clusters with data nodes that fail, hang, or have taken later steps.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidewater_common::feature_level::FeatureLevel;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::procedures_client::ProceduresClient;
use tidewater_proto::v1::{self, ProcedureKind, ProcedureState, Reason};
use tokio::time::{Instant, sleep};
use tonic::transport::Channel;
use tonic::{Response, Status};

use super::cluster::{LIMIT, MetaCluster};
use super::data_nodes::{FakeDataNode, FakeDataNodes};
use crate::commands::procedures::testing::{begin, id};
use crate::commands::testing::{directory, table};

/// A cluster at the level of procedures with one data node, and the regions that it fakes.
struct ProcedureCluster {
    meta: MetaCluster,
    data: FakeDataNode,
    hosted: Arc<Mutex<FakeDataNodes>>,
}

impl ProcedureCluster {
    async fn start(members: u64) -> Self {
        let meta = MetaCluster::bootstrapped(members).await;
        let hosted = Arc::new(Mutex::new(FakeDataNodes::default()));
        let data = FakeDataNode::start(&meta, 1, &hosted).await;
        let deadline = Instant::now() + LIMIT;
        while meta.status().await.feature_level < FeatureLevel::HIGHEST.get() {
            assert!(Instant::now() < deadline, "the level is not raised");
            sleep(Duration::from_millis(20)).await;
        }
        Self { meta, data, hosted }
    }

    async fn client(&self) -> ProceduresClient<Channel> {
        ProceduresClient::new(self.meta.channel(self.meta.leader().await).await)
    }

    async fn describe(&self, number: u64) -> Result<v1::ProcedureInfo, Status> {
        let request = v1::DescribeProcedureRequest { procedure_id: id(number).to_string() };
        let described = self.client().await.describe_procedure(request).await;
        described.map(|response| response.into_inner().procedure.unwrap())
    }

    /// Waits until a procedure fits.
    async fn wait_for(
        &self,
        number: u64,
        fits: impl Fn(&v1::ProcedureInfo) -> bool,
    ) -> v1::ProcedureInfo {
        let deadline = Instant::now() + LIMIT;
        loop {
            let described = self.describe(number).await;
            match described {
                Ok(procedure) if fits(&procedure) => return procedure,
                _ => assert!(Instant::now() < deadline, "{described:?}"),
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Begins the creation of table "t" without waiting for its end.
    async fn begin_creation(&self, number: u64, regions: u32) {
        let request = v1::CreateTableRequest { regions, ..table(number, "t") };
        let leader = self.meta.leader().await;
        let group = self.meta.nodes[&leader].meta.slot().get().unwrap().group;
        group.propose(begin(ProcedureKind::Create, number, &request)).await.unwrap();
    }

    async fn stop(mut self) {
        self.data.stop().await;
        for (_, node) in std::mem::take(&mut self.meta.nodes) {
            node.stop().await;
        }
    }
}

fn reason<T: std::fmt::Debug>(result: Result<Response<T>, Status>) -> Reason {
    Refusal::from_status(&result.unwrap_err()).reason
}

#[tokio::test(flavor = "multi_thread")]
async fn next_leader_continues_where_the_last_one_was() {
    let cluster = ProcedureCluster::start(3).await;
    cluster.hosted.lock().failing.insert(2, Reason::ObjectStoreUnavailable);
    cluster.begin_creation(10, 3).await;
    let failing = cluster.wait_for(10, |procedure| procedure.regions_done == 2).await;
    assert_eq!((failing.regions, failing.step), (3, 1));
    let failing = cluster.wait_for(10, |procedure| procedure.failure.is_some()).await;
    assert_eq!(failing.failure.unwrap().message, "the region fails");

    let before = cluster.meta.leader().await;
    let to_node = if before == 1 { 2 } else { 1 };
    let transfer = v1::TransferGroupLeaderRequest { group_id: 0, to_node };
    cluster.meta.admin(before).await.transfer_group_leader(transfer).await.unwrap();
    let deadline = Instant::now() + LIMIT;
    while cluster.meta.leader().await == before {
        assert!(Instant::now() < deadline, "the leader stays");
        sleep(Duration::from_millis(20)).await;
    }
    let made = cluster.hosted.lock().called.len();
    cluster.hosted.lock().failing.clear();
    let is_completed = |of: &v1::ProcedureInfo| of.state() == ProcedureState::Completed;
    let completed = cluster.wait_for(10, is_completed).await;
    assert_eq!((completed.failure, completed.regions), (None, 0));
    let later = cluster.hosted.lock().called[made..].to_vec();
    assert!(!later.is_empty() && later.iter().all(|region| *region == 2), "{later:?}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelled_creation_does_not_wait_for_calls_that_hang() {
    let cluster = ProcedureCluster::start(1).await;
    cluster.begin_creation(10, 2).await;
    cluster.wait_for(10, |procedure| procedure.state() == ProcedureState::Completed).await;
    assert_eq!(cluster.hosted.lock().regions.len(), 2);
    cluster.hosted.lock().hanging.insert(cluster.data.node_id);
    let second = v1::CreateTableRequest { regions: 2, ..table(11, "u") };
    let group = cluster.meta.nodes[&1].meta.slot().get().unwrap().group;
    group.propose(begin(ProcedureKind::Create, 11, &second)).await.unwrap();
    let deadline = Instant::now() + LIMIT;
    while cluster.hosted.lock().open_calls < 4 {
        assert!(Instant::now() < deadline, "no call");
        sleep(Duration::from_millis(10)).await;
    }
    let begun = Instant::now();
    let cancel = v1::CancelProcedureRequest { procedure_id: id(11).to_string() };
    let answer = cluster.client().await.cancel_procedure(cancel.clone()).await.unwrap();
    let answer = answer.into_inner().procedure.unwrap();
    assert_eq!(
        (answer.state(), answer.cause()),
        (ProcedureState::Abandoning, v1::AbandonCause::Operator)
    );
    cluster.wait_for(11, |of| of.state() == ProcedureState::Abandoned).await;
    assert!(begun.elapsed() < Duration::from_secs(8), "before the calls have timed out");
    assert!(group.view.read().table_named("u").is_none());
    // Idempotent; one that is completed is not taken back.
    cluster.client().await.cancel_procedure(cancel).await.unwrap();
    let late = v1::CancelProcedureRequest { procedure_id: id(10).to_string() };
    let refused = cluster.client().await.cancel_procedure(late).await;
    assert_eq!(reason(refused), Reason::ProcedureNotAbandonable);
    let unknown = v1::CancelProcedureRequest { procedure_id: id(99).to_string() };
    let refused = cluster.client().await.cancel_procedure(unknown).await;
    assert_eq!(reason(refused), Reason::ProcedureNotFound);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn group_that_fails_gets_few_calls_in_an_attempt() {
    let cluster = ProcedureCluster::start(1).await;
    for region in 1..=64 {
        cluster.hosted.lock().failing.insert(region, Reason::ObjectStoreUnavailable);
    }
    cluster.begin_creation(10, 64).await;
    cluster.wait_for(10, |procedure| procedure.failure.is_some()).await;
    // One attempt, or a few with growing waits between them.
    let calls = cluster.hosted.lock().called.len();
    assert!(calls < 64, "{calls} calls");
    cluster.hosted.lock().failing.clear();
    cluster.wait_for(10, |of| of.state() == ProcedureState::Completed).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn load_is_published_only_at_its_loaders_request() {
    let cluster = ProcedureCluster::start(1).await;
    cluster.meta.create_table(table(10, "t")).await.unwrap();
    let mut admin = cluster.meta.admin(1).await;
    let load =
        v1::BeginLoadRequest { request_id: directory(11), name: "t".into(), timeout_ms: 60_000 };
    admin.begin_load(load.clone()).await.unwrap();
    // Several rounds of the driver, with signs of life of the loader.
    for _ in 0..5 {
        sleep(Duration::from_millis(300)).await;
        admin.begin_load(load.clone()).await.unwrap();
        assert_eq!(cluster.describe(11).await.unwrap().step, 2);
    }
    let end = |publish| v1::EndLoadRequest { request_id: directory(11), name: "t".into(), publish };
    admin.end_load(end(true)).await.unwrap();
    assert_eq!(cluster.describe(11).await.unwrap().state(), ProcedureState::Completed);
    // The same answer again, and no other one.
    admin.end_load(end(true)).await.unwrap();
    assert_eq!(reason(admin.end_load(end(false)).await), Reason::LoadEnded);
    assert_eq!(reason(admin.begin_load(load).await), Reason::LoadEnded);
    let steps: Vec<u32> = cluster.hosted.lock().changes.iter().map(|(_, step)| step.step).collect();
    assert_eq!(steps, [1, 2]);

    let other = v1::BeginLoadRequest { request_id: directory(12), name: "t".into(), timeout_ms: 0 };
    admin.begin_load(other).await.unwrap();
    let cancel = v1::CancelProcedureRequest { procedure_id: id(12).to_string() };
    cluster.client().await.cancel_procedure(cancel).await.unwrap();
    let end = v1::EndLoadRequest { request_id: directory(12), name: "t".into(), publish: true };
    assert_eq!(reason(admin.end_load(end).await), Reason::LoadEnded);
    cluster.wait_for(12, |of| of.state() == ProcedureState::Abandoned).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn superseded_step_ends_its_procedure() {
    let cluster = ProcedureCluster::start(1).await;
    cluster.meta.create_table(table(10, "t")).await.unwrap();
    let region = cluster.meta.catalog().await.routes[0].route_id;
    cluster.hosted.lock().failing.insert(region, Reason::ProcedureSuperseded);
    let mut admin = cluster.meta.admin(1).await;
    let truncate =
        |number| v1::TruncateTableRequest { request_id: directory(number), name: "t".into() };
    let refused = admin.truncate_table(truncate(11)).await;
    assert_eq!(reason(refused), Reason::ProcedureSuperseded);
    let ended = cluster.describe(11).await.unwrap();
    assert_eq!(
        (ended.state(), ended.cause()),
        (ProcedureState::Superseded, v1::AbandonCause::Superseded)
    );
    assert_eq!(reason(admin.truncate_table(truncate(11)).await), Reason::ProcedureSuperseded);
    cluster.hosted.lock().failing.clear();
    admin.truncate_table(truncate(12)).await.unwrap();
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn caller_of_a_cancelled_alter_gets_an_error() {
    let cluster = ProcedureCluster::start(1).await;
    cluster.meta.create_table(table(10, "t")).await.unwrap();
    let region = cluster.meta.catalog().await.routes[0].route_id;
    cluster.hosted.lock().failing.insert(region, Reason::ObjectStoreUnavailable);
    let column =
        v1::NewColumn { name: "n".into(), r#type: "int64".into(), nullable: true, default: None };
    let change = v1::ColumnChange { change: Some(v1::column_change::Change::Add(column)) };
    let alter = v1::AlterTableRequest {
        request_id: directory(11),
        name: "t".into(),
        columns: vec![change],
        ttl_ms: None,
        compaction_window_ms: None,
        by_node: false,
        explicit_since: false,
    };
    let mut admin = cluster.meta.admin(1).await;
    let waiting = tokio::spawn(async move { admin.alter_table(alter).await });
    cluster.wait_for(11, |of| of.failure.is_some()).await;
    let cancel = v1::CancelProcedureRequest { procedure_id: id(11).to_string() };
    cluster.client().await.cancel_procedure(cancel).await.unwrap();
    cluster.hosted.lock().failing.clear();
    let refusal = Refusal::from_status(&waiting.await.unwrap().unwrap_err());
    assert_eq!(refusal.reason, Reason::ProcedureCancelled);
    assert!(refusal.message.contains("was cancelled"), "{refusal}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn busy_table_names_the_procedure_that_runs() {
    let cluster = ProcedureCluster::start(1).await;
    cluster.meta.create_table(table(10, "t")).await.unwrap();
    let region = cluster.meta.catalog().await.routes[0].route_id;
    cluster.hosted.lock().failing.insert(region, Reason::ObjectStoreUnavailable);
    let truncate = v1::TruncateTableRequest { request_id: directory(11), name: "t".into() };
    let mut admin = cluster.meta.admin(1).await;
    let waiting = {
        let mut admin = admin.clone();
        tokio::spawn(async move { admin.truncate_table(truncate).await })
    };
    cluster.wait_for(11, |of| of.failure.is_some()).await;
    let second = v1::TruncateTableRequest { request_id: directory(12), name: "t".into() };
    let refusal = Refusal::from_status(&admin.truncate_table(second).await.unwrap_err());
    assert_eq!(refusal.reason, Reason::TableBusy);
    assert!(refusal.message.contains(&id(11).to_string()), "{refusal}");
    let other = v1::TruncateTableRequest { request_id: directory(11), name: "u".into() };
    assert_eq!(reason(admin.truncate_table(other).await), Reason::InvalidArgument);
    cluster.hosted.lock().failing.clear();
    waiting.await.unwrap().unwrap();
    cluster.stop().await;
}
