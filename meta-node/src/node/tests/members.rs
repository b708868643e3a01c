//! Group 0 changes its members, and who leads it.

use tidewater_common::ids::NodeId;
use tidewater_proto::v1::{self, NodeState, Reason};

use super::cluster::{Cluster, free_address};
use crate::Bootstrap;

#[tokio::test(flavor = "multi_thread")]
async fn group_0_changes_its_members_and_its_leader() {
    let mut cluster = Cluster::bootstrapped(1).await;
    let four = NodeId(4);
    cluster.peers.insert(four, free_address());
    cluster.start(4, Bootstrap::Never).await;
    let change = |change| v1::ChangeMetaMemberRequest {
        membership_term: 0,
        membership_index: 0,
        change: Some(change),
    };
    use v1::change_meta_member_request::Change;
    let member = v1::MetaMember {
        node_id: 4,
        address: cluster.peers[&four].clone(),
        ..v1::MetaMember::default()
    };
    let ask = async |request: v1::ChangeMetaMemberRequest| {
        let cluster = &cluster;
        cluster
            .retry(|leader| {
                let request = request.clone();
                async move { cluster.admin(leader).await.change_meta_member(request).await }
            })
            .await
    };
    let stale = v1::ChangeMetaMemberRequest {
        membership_term: 7,
        membership_index: 7,
        ..change(Change::Promote(4))
    };
    assert_eq!(ask(stale).await.unwrap_err().reason, Reason::MembershipStale);
    ask(change(Change::AddLearner(member))).await.unwrap();
    let promoted = ask(change(Change::Promote(4))).await.unwrap();
    assert!(promoted.members.iter().any(|member| member.node_id == 4 && member.voter));
    cluster.wait_equal().await;

    let transfer = v1::TransferGroupLeaderRequest { group_id: 0, to_node: 4 };
    cluster.admin(1).await.transfer_group_leader(transfer).await.unwrap();
    assert_eq!(cluster.leader().await, 4);
    ask(change(Change::Remove(1))).await.unwrap();
    cluster.nodes.remove(&1).unwrap().stop().await;
    let catalog = cluster.catalog().await;
    let one = catalog.nodes.iter().find(|node| node.node_id == 1).unwrap();
    assert_eq!(one.state, i32::from(NodeState::Removed));
    cluster.nodes.remove(&4).unwrap().stop().await;
}
