//! Read holds on a table of a fake data node: the table is altered, and its regions are asked.

mod refusals;

use std::time::Duration;

use tidewater_common::ids::Epoch;
use tidewater_common::refusal::{Effect, Refusal};
use tidewater_proto::v1::read_policy::Policy;
use tidewater_proto::v1::storage_admin_server::StorageAdmin;
use tidewater_proto::v1::{self, Reason};
use tonic::{Request, Response, Status};

use super::cluster::until;
use super::table_cluster::{REPORTED, TableCluster};
use crate::commands::testing::directory;

impl TableCluster {
    /// Oldest readable epoch of the table, if the record of the table has one.
    fn since(&self) -> Option<u64> {
        let state = self.running.group.view.read();
        state.since_at(self.table, self.upper()).map(Epoch::get)
    }

    /// Greatest oldest readable epoch that barriers have named for the table.
    fn named(&self) -> Option<u64> {
        self.hosted.lock().named.get(&self.table.get()).copied()
    }

    /// Number of calls that list the regions of a table as their confirmed leaders.
    fn asked(&self) -> usize {
        self.hosted.lock().asked.len()
    }

    async fn frontiers(&self) -> v1::CollectionFrontiers {
        let request = v1::GetCollectionFrontiersRequest { tables: vec!["t".to_owned()] };
        let described = self.client().await.get_collection_frontiers(request).await.unwrap();
        described.into_inner().collections.remove(0)
    }

    async fn listed(&self) -> Vec<v1::ListedHold> {
        let request = v1::ListReadHoldsRequest::default();
        let listed = self.client().await.list_read_holds(request).await.unwrap();
        listed.into_inner().holds
    }

    async fn set_policy(&self, policy: Policy) -> v1::CollectionFrontiers {
        let policy = Some(v1::ReadPolicy { policy: Some(policy) });
        let request = v1::SetReadPolicyRequest { table: "t".to_owned(), policy };
        let set = self.client().await.set_read_policy(request).await.unwrap();
        set.into_inner().frontiers.unwrap()
    }
}

fn acquisition(number: u64, name: &str) -> v1::AcquireReadHoldRequest {
    v1::AcquireReadHoldRequest {
        request_id: directory(number),
        name: name.to_owned(),
        tables: vec!["t".to_owned()],
        ..v1::AcquireReadHoldRequest::default()
    }
}

fn lag(lag_ms: u64) -> Policy {
    Policy::LagWriteFrontier(v1::LagWriteFrontier { lag_ms, granularity_ms: 0 })
}

fn refused<T: std::fmt::Debug>(result: Result<Response<T>, Status>) -> Refusal {
    Refusal::from_status(&result.unwrap_err())
}

#[tokio::test(flavor = "multi_thread")]
async fn first_hold_has_the_epoch_that_regions_report() {
    let cluster = TableCluster::start().await;
    let before = cluster.frontiers().await;
    assert_eq!((before.holds, before.policy), (0, None));
    let acquired = cluster.client().await.acquire_read_hold(acquisition(20, "h")).await;
    let hold = acquired.unwrap().into_inner().hold.unwrap();
    assert_eq!((hold.epoch, &hold.table_ids[..]), (REPORTED[1], &[cluster.table.get()][..]));
    // All regions were altered and asked before.
    let state = cluster.running.group.view.read();
    assert!(state.table(cluster.table).unwrap().options.explicit_since);
    for region in &cluster.regions {
        let hosted = cluster.hosted.lock();
        assert!(hosted.changes.iter().any(|(changed, _)| changed == region), "{hosted:?}");
    }
    assert!(cluster.asked() > 0);
    let listed = cluster.listed().await;
    let [of] = &listed[..] else { panic!("{listed:?}") };
    assert_eq!((of.hold.as_ref(), &of.tables[..]), (Some(&hold), &["t".to_owned()][..]));
    assert!((1..=60_000).contains(&of.left_ms), "{of:?}");
    let held = cluster.frontiers().await;
    assert_eq!((held.since, held.holds), (REPORTED[1], 1));
    assert!(held.upper >= before.upper && held.upper > held.since, "{held:?}");
    assert_eq!(held.least.unwrap().name, "h");
    // The record has the history of the cluster.
    assert_eq!(held.policy.unwrap().policy, Some(lag(3_600_000)));
    until("barriers name the table", || cluster.named() == Some(REPORTED[1])).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn barriers_follow_a_hold_until_its_release() {
    let cluster = TableCluster::start().await;
    let mut client = cluster.client().await;
    let acquired = client.acquire_read_hold(acquisition(20, "h")).await.unwrap();
    let acquired = acquired.into_inner().hold.unwrap();
    // Without a history, the hold alone keeps epochs.
    assert_eq!(cluster.set_policy(lag(0)).await.since, REPORTED[1]);

    let time_ms = || cluster.running.group.view.read().header().time_ms;
    until("replicated time advances", || time_ms() > acquired.acquired_ms).await;
    let names = ["h", "gone"].map(str::to_owned).to_vec();
    let renewed = client.renew_read_holds(v1::RenewReadHoldsRequest { names }).await.unwrap();
    assert_eq!(renewed.into_inner().missing, ["gone"]);
    let renewed = cluster.listed().await.remove(0).hold.unwrap();
    assert!(renewed.lease_end_ms > acquired.lease_end_ms, "{renewed:?}");

    let later = cluster.frontiers().await.upper;
    let downgrade = |epoch| v1::DowngradeReadHoldRequest { name: "h".to_owned(), epoch };
    let moved = client.downgrade_read_hold(downgrade(later)).await.unwrap().into_inner();
    assert_eq!(moved.hold.unwrap().epoch, later);
    assert_eq!(cluster.frontiers().await.since, later);
    until("barriers name the later epoch", || cluster.named() == Some(later)).await;
    let back = refused(client.downgrade_read_hold(downgrade(later - 1)).await);
    assert_eq!(back.reason, Reason::InvalidArgument);

    for released in [1, 0] {
        let names = ["h", "h", "gone"].map(str::to_owned).to_vec();
        let request = v1::ReleaseReadHoldsRequest { names };
        let answer = client.release_read_holds(request).await.unwrap().into_inner();
        assert_eq!(answer.released, released);
    }
    assert_eq!(cluster.listed().await, []);
    until("barriers pass the hold", || cluster.named() > Some(later)).await;
    let gone = refused(client.downgrade_read_hold(downgrade(later)).await);
    assert_eq!(gone.reason, Reason::HoldNotFound);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leader_learns_the_epoch_of_a_truncated_table() {
    let cluster = TableCluster::start().await;
    assert_eq!(cluster.set_policy(Policy::NoPolicy(true)).await.since, REPORTED[1]);
    let truncate = v1::TruncateTableRequest { request_id: directory(21), name: "t".to_owned() };
    cluster.hosted.lock().unreported.insert(cluster.regions[0]);
    cluster.meta.admin(1).await.truncate_table(truncate).await.unwrap();
    let asked = cluster.asked();
    until("the leader asks the regions without a call", || cluster.asked() > asked + 1).await;
    // One region is not reported.
    assert_eq!(cluster.since(), None);
    let truncated_at = cluster.upper().get();
    {
        let mut hosted = cluster.hosted.lock();
        hosted.sinces.insert(cluster.regions[0], truncated_at);
        hosted.unreported.clear();
    }
    until("the epoch is learned", || cluster.since() == Some(truncated_at)).await;
    until("barriers name the table", || cluster.named() == Some(truncated_at)).await;
    let known = cluster.asked();
    let acquired = cluster.client().await.acquire_read_hold(acquisition(22, "h")).await.unwrap();
    assert_eq!(acquired.into_inner().hold.unwrap().epoch, truncated_at);
    assert_eq!(cluster.asked(), known, "no region is asked again");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn acquisition_waits_for_all_regions() {
    let cluster = TableCluster::start().await;
    let silent = cluster.regions[0];
    cluster.hosted.lock().unreported.insert(silent);
    let mut client = cluster.client().await;
    let waiting = tokio::spawn(async move { client.acquire_read_hold(acquisition(20, "h")).await });
    until("the regions are asked repeatedly", || cluster.asked() > 2).await;
    assert!(!waiting.is_finished());

    let impatient = cluster.meta.nodes[&1].meta.storage.clone();
    let impatient = impatient.with_prepared_within(Duration::from_secs(2));
    let request = Request::new(acquisition(21, "late"));
    let refusal = refused(impatient.acquire_read_hold(request).await);
    assert_eq!((refusal.reason, refusal.effect()), (Reason::TableBusy, Effect::None));
    let text = format!(
        "tables t were not prepared for the change within 2 s: the leader of region {silent} of table \
         \"t\" has not answered"
    );
    assert_eq!(refusal.message, text);
    let state = cluster.running.group.view.read();
    assert_eq!((state.holds().count(), state.collection(cluster.table)), (0, None));

    cluster.hosted.lock().unreported.clear();
    let hold = waiting.await.unwrap().unwrap().into_inner().hold.unwrap();
    assert_eq!(hold.epoch, REPORTED[1]);
    let names: Vec<_> =
        cluster.listed().await.into_iter().map(|of| of.hold.unwrap().name).collect();
    assert_eq!(names, ["h"]);
    cluster.stop().await;
}
