//! Changes of the members and the leader of group 0.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::async_runtime::WatchReceiver;
use tidewater_common::ids::NodeId;
use tidewater_common::problem::Problem;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{self, NodeState, ProblemKind, Reason};
use tidewater_raft_store::Member;
use tidewater_raft_store::membership::is_joint;
use tidewater_raft_store::types::{EntryPayload, Membership};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout};

use super::cluster::{LIMIT, MetaCluster, free_address, serve};
use crate::{Bootstrap, join};

#[tokio::test(flavor = "multi_thread")]
async fn meta_group_changes_its_members_and_leader() {
    let mut cluster = MetaCluster::bootstrapped(1).await;
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

#[tokio::test(flavor = "multi_thread")]
async fn leader_finishes_an_interrupted_membership_change() {
    let mut cluster = MetaCluster::bootstrapped(1).await;
    let group = cluster.nodes[&1].meta.slot().get().unwrap().group;
    // The membership after the first step of a change; these voters are a quorum without other members.
    let one = BTreeSet::from([1]);
    let member = Member::new(cluster.peers[&NodeId(1)].clone());
    let joint = Membership::new(vec![one.clone(), one], BTreeMap::from([(1, member)])).unwrap();
    let payload = EntryPayload::Blank;
    let left = group.raft.append_membership(joint, payload, []).await.unwrap().log_id;
    let metrics = group.raft.server_metrics();
    let finished = || {
        let stored = metrics.borrow_watched().committed_membership_config.clone();
        *stored.log_id() > Some(left) && !is_joint(stored.membership())
    };
    let deadline = Instant::now() + LIMIT;
    while !finished() {
        assert!(Instant::now() < deadline, "the membership stays joint");
        sleep(Duration::from_millis(20)).await;
    }
    cluster.nodes.remove(&1).unwrap().stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn membership_change_fails_on_changed_members() {
    let mut cluster = MetaCluster::bootstrapped(1).await;
    let group = cluster.nodes[&1].meta.slot().get().unwrap().group;
    // The leader reaches the joiner through a proxy that this test controls.
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let five = NodeId(5);
    let joiner_address = free_address();
    cluster.peers.insert(five, proxy.local_addr().unwrap().to_string());
    let joiner = serve(cluster.options(5, Bootstrap::Never), &joiner_address).await.unwrap();
    let join_request = v1::JoinClusterRequest {
        cluster_id: group.cluster_id.to_string(),
        source_node: 1,
        target_node: 5,
        peers: join::peers_to_wire(&cluster.peers),
        bootstrap: false,
        check_only: false,
        feature_level: 1,
    };
    // Join before the membership change, so that the joiner answers the leader immediately.
    let deadline = Instant::now() + LIMIT;
    while let Err(refusal) = join::request_join(&joiner_address, join_request.clone()).await {
        assert!(Instant::now() < deadline, "{refusal}");
        sleep(Duration::from_millis(50)).await;
    }

    let member = v1::MetaMember {
        node_id: 5,
        address: cluster.peers[&five].clone(),
        ..v1::MetaMember::default()
    };
    let add = v1::ChangeMetaMemberRequest {
        membership_term: 0,
        membership_index: 0,
        change: Some(v1::change_meta_member_request::Change::AddLearner(member)),
    };
    let mut admin = cluster.admin(1).await;
    let adding = tokio::spawn(async move { admin.change_meta_member(add).await });
    let (mut outside, _) = timeout(LIMIT, proxy.accept()).await.unwrap().unwrap();
    let other = BTreeMap::from([(9, Member::new(free_address()))]);
    group.raft.change_membership(ChangeMembers::AddNodes(other), false).await.unwrap();
    tokio::spawn(async move {
        let mut inside = TcpStream::connect(joiner_address).await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
    });
    let refused = timeout(LIMIT, adding).await.unwrap().unwrap().unwrap_err();
    assert_eq!(Refusal::from_status(&refused).reason, Reason::MembershipStale);
    joiner.stop().await;
    cluster.nodes.remove(&1).unwrap().stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn follower_with_another_state_is_reported_in_the_status() {
    let mut cluster = MetaCluster::bootstrapped(3).await;
    let leader = cluster.leader().await;
    let follower = (1..=3).find(|id| *id != leader).unwrap();
    let group = cluster.nodes[&follower].meta.slot().get().unwrap().group;
    let mut admin = cluster.admin(leader).await;
    let mut differing = async || {
        let status = admin.cluster_status(v1::ClusterStatusRequest {}).await.unwrap().into_inner();
        let is_difference = |problem: &v1::Problem| problem.kind() == ProblemKind::MetaStateDiffers;
        let problems = status.problem_details.into_iter().filter(is_difference);
        problems.map(|problem| problem.subject.unwrap_or_default().node_id).collect::<Vec<_>>()
    };
    let deadline = Instant::now() + LIMIT;
    // The next right digests end the difference.
    while differing().await != [follower] {
        assert!(Instant::now() < deadline, "the leader does not report the difference");
        group.comparison.falsify();
        sleep(Duration::from_millis(20)).await;
    }
    // The digests of later ticks are right.
    while group.state_difference().is_some() || !differing().await.is_empty() {
        assert!(Instant::now() < deadline, "the states are equal");
        sleep(Duration::from_millis(20)).await;
    }
    for id in 1..=3 {
        cluster.nodes.remove(&id).unwrap().stop().await;
    }
}

/// Waits until the status lists these problems of refused connections: their nodes and details.
async fn wait_for_refused_connections(cluster: &MetaCluster, expected: &[(u64, String)]) {
    let deadline = Instant::now() + LIMIT;
    loop {
        let listed = cluster.status().await.problem_details.into_iter();
        let refused = listed.filter(|problem| problem.kind() == ProblemKind::ConnectionsRefused);
        let found = refused.map(|problem| {
            let subject = problem.subject.unwrap_or_default();
            (subject.node_id, problem.detail)
        });
        let found: Vec<(u64, String)> = found.collect();
        if found == expected {
            return;
        }
        assert!(Instant::now() < deadline, "{found:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn problem_of_a_followers_process_is_in_the_status() {
    let mut cluster = MetaCluster::bootstrapped(3).await;
    let leader = cluster.leader().await;
    let follower = (1..=3).find(|id| *id != leader).unwrap();
    let problems = cluster.nodes[&follower].meta.slot().get().unwrap().problems;
    let process = problems.of_process.clone();
    drop(problems);
    let refused = || Problem::new(ProblemKind::ConnectionsRefused, "it refuses connections");
    let expected = [(follower, format!("node {follower}: it refuses connections"))];
    wait_for_refused_connections(&cluster, &[]).await;
    process.set("connections", Some(refused()));
    wait_for_refused_connections(&cluster, &expected).await;
    process.set("connections", None);
    wait_for_refused_connections(&cluster, &[]).await;
    process.set("connections", Some(refused()));
    wait_for_refused_connections(&cluster, &expected).await;
    // A node that does not answer may have none.
    cluster.nodes.remove(&follower).unwrap().kill().await;
    wait_for_refused_connections(&cluster, &[]).await;
    for (_, node) in std::mem::take(&mut cluster.nodes) {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn leader_continues_a_replacement() {
    let mut cluster = MetaCluster::bootstrapped(3).await;
    cluster.peers.insert(NodeId(4), free_address());
    let request = v1::ReplaceMetaMemberRequest {
        old_node_id: cluster.leader().await,
        new_node_id: 4,
        address: cluster.peers[&NodeId(4)].clone(),
        cancel: false,
    };
    let old = request.old_node_id;
    let begin = |leader| {
        let request = request.clone();
        let cluster = &cluster;
        async move { cluster.admin(leader).await.replace_meta_member(request).await }
    };
    // The members have yet to raise the level.
    let until = Instant::now() + LIMIT;
    while let Err(refusal) = cluster.retry(begin).await {
        assert!(refusal.reason == Reason::Unsupported && Instant::now() < until, "{refusal}");
        sleep(Duration::from_millis(100)).await;
    }
    let listed = async |cluster: &MetaCluster| {
        let ask = |leader| async move {
            cluster.admin(leader).await.list_meta_members(v1::ListMetaMembersRequest {}).await
        };
        cluster.retry(ask).await.unwrap()
    };
    let known = listed(&cluster).await.replacement.unwrap();
    assert_eq!((known.old_node_id, known.new_node_id), (old, 4));
    // Steps of operators would race with those of the leader.
    let remove = v1::ChangeMetaMemberRequest {
        change: Some(v1::change_meta_member_request::Change::Remove(old)),
        ..v1::ChangeMetaMemberRequest::default()
    };
    let ask = |leader| {
        let (cluster, remove) = (&cluster, remove.clone());
        async move { cluster.admin(leader).await.change_meta_member(remove).await }
    };
    assert_eq!(cluster.retry(ask).await.unwrap_err().reason, Reason::MembershipBusy);
    // The node to remove leads, and dies; the next leader finds the new node later.
    cluster.nodes.remove(&old).unwrap().kill().await;
    cluster.start(4, Bootstrap::Never).await;
    let until = Instant::now() + LIMIT;
    loop {
        let listed = listed(&cluster).await;
        if listed.replacement.is_none() {
            let voters = listed.members.iter().filter(|member| member.voter);
            let voters: Vec<u64> = voters.map(|member| member.node_id).collect();
            let expected: Vec<u64> = (1..=4).filter(|id| *id != old).collect();
            assert_eq!((voters, listed.members.len()), (expected, 3));
            break;
        }
        assert!(Instant::now() < until, "{listed:?}");
        sleep(Duration::from_millis(100)).await;
    }
    for (_, node) in std::mem::take(&mut cluster.nodes) {
        node.stop().await;
    }
}
