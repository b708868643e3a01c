//! Tests of replicas that join from a snapshot.

use std::sync::Arc;

use tidewater_common::ids::GroupId;
use tidewater_common::refusal::Refusal;
use tidewater_data_node::groups::set_aside::read_log;
use tidewater_data_node::options::GroupOptions;
use tidewater_events::NoRecorder;
use tidewater_proto::v1::change_membership_request::Change;
use tidewater_proto::v1::group_control_server::GroupControl;
use tidewater_proto::v1::{
    ChangeMembershipRequest, ChangeMembershipResponse, Group, GroupMember, GroupState, Reason,
    StopReplicaRequest,
};
use tidewater_region_engine::compaction::CompactionOptions;
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
        compaction: CompactionOptions::default(),
        listen: "127.0.0.1:0".to_owned(),
        hooks: no_hooks(id),
        recorder: Arc::new(NoRecorder),
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
    second.start_group(&[first.member()], false).await;
    let unknown = change(&first, Change::AddLearner(second.member()), None).await.unwrap_err();
    assert_eq!(unknown.reason, Reason::InvalidArgument, "the catalog has no such node");
    let elsewhere = GroupMember { address: "127.0.0.1:1".to_owned(), ..second.member() };
    first.know(&[elsewhere]);
    let moved = change(&first, Change::AddLearner(second.member()), None).await.unwrap_err();
    assert_eq!(moved.reason, Reason::InvalidArgument, "the catalog has another address");
    let silent = GroupMember { node_id: 9, address: "127.0.0.1:1".to_owned() };
    first.know(&[second.member(), silent.clone()]);
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
    // A learner that has never answered is not promoted.
    change(&first, Change::AddLearner(silent), None).await.unwrap();
    until("the leader shows the new learner", async || {
        let membership = replica.membership();
        membership.membership().get_node(&9).is_some()
    })
    .await;
    let early = change(&first, Change::Promote(9), None).await.unwrap_err();
    assert_eq!(early.reason, Reason::MembershipBusy);
    change(&first, Change::Remove(9), None).await.unwrap();
    change(&first, Change::Promote(2), None).await.unwrap();
    first.write(write(1, 60, &[1])).await.unwrap();

    // Only the meta group's record counts, whatever the caller names.
    let stop = |node: &Node, index| StopReplicaRequest {
        header: node.header(),
        group_id: GROUP,
        membership_term: 1,
        membership_index: index,
    };
    let record = |voters: &[u64], at: (u64, u64)| Group {
        group_id: GROUP,
        state: GroupState::Active.into(),
        voters: voters.to_vec(),
        leader: 1,
        membership_term: at.0,
        membership_index: at.1,
        ..Group::default()
    };
    let stop_reason = async |node: &Node, index| {
        let reply = node.control.stop_replica(Request::new(stop(node, index))).await;
        assert!(node.groups.get(GroupId(GROUP)).is_ok());
        Refusal::from(reply.unwrap_err()).reason
    };
    let refused = async |node: &Node, index| {
        assert_eq!(stop_reason(node, index).await, Reason::MembershipStale);
    };
    refused(&second, u64::MAX).await;
    let known = replica.membership().log_id().map(|id| (id.leader_id.term, id.index)).unwrap();
    *second.records.0.lock().unwrap() = Some(record(&[1, 2], known));
    refused(&second, u64::MAX).await;
    // A record that is older than the replica's membership, and one of the leader.
    *second.records.0.lock().unwrap() =
        Some(record(&[1], (added.membership_term, added.membership_index)));
    refused(&second, 0).await;
    *first.records.0.lock().unwrap() = Some(record(&[2], (9, 99)));
    refused(&first, 0).await;
    // The record follows heartbeats: the leader itself must have removed the replica.
    *second.records.0.lock().unwrap() = Some(record(&[1], (9, 99)));
    refused(&second, 0).await;
    let silent = Group { leader: 9, ..record(&[1], (9, 99)) };
    *second.records.0.lock().unwrap() = Some(silent);
    assert_eq!(stop_reason(&second, 0).await, Reason::Unavailable);
    let needed = change(&first, Change::Remove(2), None).await.unwrap_err();
    assert_eq!(needed.reason, Reason::InvalidArgument, "the node is up");
    first.know(&[]);
    let removed = change(&first, Change::Remove(2), None).await.unwrap();
    let at = (removed.membership_term, removed.membership_index);
    *second.records.0.lock().unwrap() = Some(record(&[1], at));
    second.control.stop_replica(Request::new(stop(&second, at.1))).await.unwrap();
    assert!(second.groups.get(GroupId(GROUP)).is_err());
    assert!(!config(2).folder.join("snapshots").join(GROUP.to_string()).exists());
    // The log was set aside, with its snapshot.
    let removed = config(2).folder.join("removed");
    let aside = std::fs::read_dir(&removed).unwrap().next().unwrap().unwrap().path();
    assert!(!read_log(&aside).unwrap().is_empty());
    let names = std::fs::read_dir(&aside).unwrap().map(|file| file.unwrap().path());
    assert_eq!(names.filter(|path| path.extension().is_some()).count(), 1, "{aside:?}");
    second.groups.delete_expired_logs().await;
    assert!(aside.exists(), "it is kept for a day");
    first.write(write(1, 61, &[2])).await.unwrap();
    drop(replica);
    second.stop().await;
    first.stop().await;
}
