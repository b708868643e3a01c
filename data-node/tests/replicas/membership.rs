//! Tests of replicas that join from a snapshot.

use tidewater_common::ids::GroupId;
use tidewater_common::refusal::Refusal;
use tidewater_data_node::options::GroupOptions;
use tidewater_proto::v1::change_membership_request::Change;
use tidewater_proto::v1::group_control_server::GroupControl;
use tidewater_proto::v1::{
    ChangeMembershipRequest, ChangeMembershipResponse, Reason, StopReplicaRequest,
};
use tidewater_region_engine::storage::Storage;
use tonic::Request;

use super::cluster::*;

/// Changes the membership, based on the leader's current one or on the given one.
async fn change(
    leader: &Node,
    change: Change,
    on: Option<(u64, u64)>,
) -> Result<ChangeMembershipResponse, Refusal> {
    let replica = leader.groups.get(GroupId(GROUP)).unwrap();
    let now = replica.membership().log_id().map(|id| (id.leader_id.term, id.index)).unwrap();
    let (term, index) = on.unwrap_or(now);
    let request = ChangeMembershipRequest {
        header: leader.header(),
        group_id: GROUP,
        membership_term: term,
        membership_index: index,
        change: Some(change),
    };
    let reply = leader.control.change_membership(Request::new(request)).await;
    reply.map(tonic::Response::into_inner).map_err(Refusal::from)
}

#[tokio::test(flavor = "multi_thread")]
async fn replica_joins_from_a_snapshot_is_promoted_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    let store = format!("file://{}", folder.path().join("store").display());
    let storage = Storage::open(&store).await.unwrap();
    let config = |id: u64| NodeConfig {
        id,
        folder: folder.path().join(id.to_string()),
        storage: storage.clone(),
        options: GroupOptions {
            snapshot_bytes: 40_000,
            log_tail_bytes: 5_000,
            ..GroupOptions::default()
        },
        memory: 1 << 30,
        listen: "127.0.0.1:0".to_owned(),
        hooks: no_hooks(id),
    };
    let first = Node::start(&config(1)).await;
    first.start_group(&[first.member()], true).await;
    until("the node leads", async || first.open_region().await.is_ok()).await;
    first.write(write(1, 1, &[])).await.unwrap();
    for serial in 2..60 {
        let from = serial as i64 * 100;
        let ids: Vec<i64> = (from..from + 100).collect();
        first.write(write(1, serial, &ids)).await.unwrap();
    }
    let replica = first.groups.get(GroupId(GROUP)).unwrap();
    until("the log is purged", async || replica.purged().is_some()).await;

    let second = Node::start(&config(2)).await;
    second.start_group(&[], false).await;
    let stale =
        change(&first, Change::AddLearner(second.member()), Some((9, 9))).await.unwrap_err();
    assert_eq!(stale.reason, Reason::MembershipStale);
    let added = change(&first, Change::AddLearner(second.member()), None).await.unwrap();
    let now = replica.membership().log_id().map(|id| (id.leader_id.term, id.index)).unwrap();
    assert_eq!((added.membership_term, added.membership_index), now);
    until("the learner has caught up", async || !replica.caught_up(0).is_empty()).await;
    until("both nodes have the same digest", async || {
        let a = first.info().await;
        let b = second.info().await;
        matches!((a, b), (Some(a), Some(b)) if a.digest == b.digest && a.rows == b.rows)
    })
    .await;
    change(&first, Change::Promote(2), None).await.unwrap();
    first.write(write(1, 60, &[1])).await.unwrap();

    // A leading replica is not stopped; a removed one is, and deletes its log.
    let stop = |node: &Node, on: &ChangeMembershipResponse| StopReplicaRequest {
        header: node.header(),
        group_id: GROUP,
        membership_term: on.membership_term,
        membership_index: on.membership_index,
    };
    let refused = first.control.stop_replica(Request::new(stop(&first, &added))).await.unwrap_err();
    assert_eq!(Refusal::from(refused).reason, Reason::MembershipStale);
    // A replica with a later membership than the one decided on is not stopped either.
    let refused =
        second.control.stop_replica(Request::new(stop(&second, &added))).await.unwrap_err();
    assert_eq!(Refusal::from(refused).reason, Reason::MembershipStale);
    let removed = change(&first, Change::Remove(2), None).await.unwrap();
    second.control.stop_replica(Request::new(stop(&second, &removed))).await.unwrap();
    assert!(second.groups.get(GroupId(GROUP)).is_err());
    assert!(!config(2).folder.join("snapshots").join(GROUP.to_string()).exists());
    first.write(write(1, 61, &[2])).await.unwrap();
    drop(replica);
    second.stop().await;
    first.stop().await;
}
