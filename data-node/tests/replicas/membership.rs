//! Replicas that join later, from a snapshot.

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

/// Decides on the membership that the leader has now, or on another one.
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
    let answer = leader.control.change_membership(Request::new(request)).await;
    answer.map(tonic::Response::into_inner).map_err(Refusal::from)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_is_brought_up_from_a_snapshot_promoted_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    let store = format!("file://{}", folder.path().join("store").display());
    let storage = Storage::open(&store).await.unwrap();
    let place = |id: u64| Place {
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
    let one = Node::start(&place(1)).await;
    one.start_group(&[one.member()], true).await;
    until("the node leads", async || one.open_region().await.is_ok()).await;
    one.write(write(1, 1, &[])).await.unwrap();
    for serial in 2..60 {
        let from = serial as i64 * 100;
        let ids: Vec<i64> = (from..from + 100).collect();
        one.write(write(1, serial, &ids)).await.unwrap();
    }
    let replica = one.groups.get(GroupId(GROUP)).unwrap();
    until("the log is purged", async || replica.purged().is_some()).await;

    let two = Node::start(&place(2)).await;
    two.start_group(&[], false).await;
    let stale = change(&one, Change::AddLearner(two.member()), Some((9, 9))).await.unwrap_err();
    assert_eq!(stale.reason, Reason::MembershipStale);
    let added = change(&one, Change::AddLearner(two.member()), None).await.unwrap();
    let now = replica.membership().log_id().map(|id| (id.leader_id.term, id.index)).unwrap();
    assert_eq!((added.membership_term, added.membership_index), now);
    until("the learner has caught up", async || !replica.caught_up(0).is_empty()).await;
    until("both have one digest", async || {
        let (a, b) = (one.info().await, two.info().await);
        matches!((a, b), (Some(a), Some(b)) if a.digest == b.digest && a.rows == b.rows)
    })
    .await;
    change(&one, Change::Promote(2), None).await.unwrap();
    one.write(write(1, 60, &[1])).await.unwrap();

    // A replica that leads is not stopped; one that was removed is, and forgets its log.
    let stop = |node: &Node, on: &ChangeMembershipResponse| StopReplicaRequest {
        header: node.header(),
        group_id: GROUP,
        membership_term: on.membership_term,
        membership_index: on.membership_index,
    };
    let refused = one.control.stop_replica(Request::new(stop(&one, &added))).await.unwrap_err();
    assert_eq!(Refusal::from(refused).reason, Reason::MembershipStale);
    // Nor is one that knows a later membership than the one on which that was decided.
    let refused = two.control.stop_replica(Request::new(stop(&two, &added))).await.unwrap_err();
    assert_eq!(Refusal::from(refused).reason, Reason::MembershipStale);
    let removed = change(&one, Change::Remove(2), None).await.unwrap();
    two.control.stop_replica(Request::new(stop(&two, &removed))).await.unwrap();
    assert!(two.groups.get(GroupId(GROUP)).is_err());
    assert!(!place(2).folder.join("snapshots").join(GROUP.to_string()).exists());
    one.write(write(1, 61, &[2])).await.unwrap();
    drop(replica);
    two.stop().await;
    one.stop().await;
}
