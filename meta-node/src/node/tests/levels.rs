//! The feature level of a cluster with nodes of several releases. Messages without a release are those of
//! releases without levels.

use std::sync::Arc;

use parking_lot::Mutex;
use tidewater_common::feature_level::FeatureLevel;
use tidewater_common::ids::{NodeId, Term};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::meta_members_client::MetaMembersClient;
use tidewater_proto::v1::{self, NodeRole, Reason, meta_command::Kind};
use tokio::time::{Duration, Instant, sleep};
use tonic::Status;

use super::cluster::{LIMIT, MetaCluster, serve};
use super::data_nodes::{FakeDataNode, FakeDataNodes, own_release, register_request, voters};
use crate::commands::testing::directory;
use crate::{Bootstrap, MetaOptions};

fn reason<T: std::fmt::Debug>(result: Result<T, Status>) -> Reason {
    Refusal::from_status(&result.unwrap_err()).reason
}

/// Waits until the status fits.
async fn wait_for_status(
    cluster: &MetaCluster,
    what: &str,
    fits: impl Fn(&v1::ClusterStatusResponse) -> bool,
) -> v1::ClusterStatusResponse {
    let deadline = Instant::now() + LIMIT;
    loop {
        let status = cluster.status().await;
        if fits(&status) {
            return status;
        }
        assert!(Instant::now() < deadline, "{what}: {status:#?}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// Nodes that hold back the level, with parts of their reasons.
fn is_held_by(status: &v1::ClusterStatusResponse, expected: &[(u64, &str)]) -> bool {
    let holders: Vec<_> =
        status.releases.iter().filter(|release| !release.holds_back.is_empty()).collect();
    holders.len() == expected.len()
        && holders.iter().zip(expected).all(|(holder, (node, reason))| {
            holder.node_id == *node && holder.holds_back.contains(reason)
        })
}

/// Starts a meta node that holds back levels above the first.
async fn start_limited(cluster: &mut MetaCluster, id: u64, bootstrap: Bootstrap) {
    let options =
        MetaOptions { max_level: Some(FeatureLevel::FIRST), ..cluster.options(id, bootstrap) };
    let node = serve(options, &cluster.peers[&NodeId(id)]).await.unwrap();
    cluster.nodes.insert(id, node);
}

#[tokio::test(flavor = "multi_thread")]
async fn level_is_raised_once_all_nodes_support_it() {
    let mut cluster = MetaCluster::new(3);
    cluster.start(1, Bootstrap::Once).await;
    cluster.start(2, Bootstrap::Never).await;
    start_limited(&mut cluster, 3, Bootstrap::Never).await;
    let hosted = Arc::new(Mutex::new(FakeDataNodes { without_levels: true, ..Default::default() }));
    let data = FakeDataNode::start(&cluster, 1, &hosted).await;
    let node = data.node_id;
    let limited = (3, "--max-feature-level 1");
    let held = wait_for_status(&cluster, "both nodes hold back the level", |status| {
        is_held_by(status, &[limited, (node, "an earlier release")])
    })
    .await;
    assert_eq!((held.feature_level, held.next_feature_level), (1, 2));
    assert_eq!(held.releases.iter().filter(|node| node.release.is_some()).count(), 4);

    // A member that was removed does not count.
    if cluster.leader().await == 3 {
        let transfer = v1::TransferGroupLeaderRequest { group_id: 0, to_node: 1 };
        cluster.admin(3).await.transfer_group_leader(transfer).await.unwrap();
    }
    let change = Some(v1::change_meta_member_request::Change::Remove(3));
    let remove = v1::ChangeMetaMemberRequest { change, ..v1::ChangeMetaMemberRequest::default() };
    cluster
        .retry(|leader| {
            let cluster = &cluster;
            let remove = remove.clone();
            async move { cluster.admin(leader).await.change_meta_member(remove).await }
        })
        .await
        .unwrap();
    cluster.nodes.remove(&3).unwrap().stop().await;
    wait_for_status(&cluster, "the data node holds back the level", |status| {
        is_held_by(status, &[(node, "an earlier release")])
    })
    .await;
    assert_eq!(cluster.status().await.feature_level, 1);
    hosted.lock().without_levels = false;
    wait_for_status(&cluster, "the level is raised", |status| {
        status.feature_level == FeatureLevel::HIGHEST.get()
    })
    .await;
    // On every replica.
    cluster.wait_equal().await;

    // A second leader, with another view, raises it again.
    let leader = cluster.leader().await;
    let group = cluster.nodes[&leader].meta.slot().get().unwrap().group;
    let before = group.view.read();
    for nodes in [Vec::new(), vec![v1::SupportingNode { node_id: 77, boot: 1 }]] {
        let again = v1::RaiseFeatureLevel { level: 2, nodes };
        group.propose(Kind::RaiseFeatureLevel(again)).await.unwrap();
    }
    assert_eq!(group.view.read().header().feature_level, before.header().feature_level);
    data.stop().await;
    for (_, node) in std::mem::take(&mut cluster.nodes) {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn level_stays_while_a_member_is_being_added() {
    let mut cluster = MetaCluster::bootstrapped(1).await;
    let hosted = Arc::new(Mutex::new(FakeDataNodes { without_levels: true, ..Default::default() }));
    let data = FakeDataNode::start(&cluster, 1, &hosted).await;
    let node = data.node_id;
    let held = |status: &v1::ClusterStatusResponse| is_held_by(status, &[(node, "an earlier")]);
    wait_for_status(&cluster, "the data node holds back the level", held).await;
    let group = cluster.nodes[&1].meta.slot().get().unwrap().group;
    let joining = group.joining.lock().await;
    hosted.lock().without_levels = false;
    wait_for_status(&cluster, "the raise is due", |status| is_held_by(status, &[])).await;
    // Longer than two decisions take.
    sleep(Duration::from_millis(2_500)).await;
    assert_eq!(cluster.status().await.feature_level, 1);
    drop(joining);
    wait_for_status(&cluster, "the level is raised", |status| {
        status.feature_level == FeatureLevel::HIGHEST.get()
    })
    .await;
    data.stop().await;
    for (_, node) in std::mem::take(&mut cluster.nodes) {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_cannot_run_at_the_level_are_refused() {
    let mut cluster = MetaCluster::bootstrapped(1).await;
    let hosted = Arc::new(Mutex::new(FakeDataNodes::default()));
    let data = FakeDataNode::start(&cluster, 1, &hosted).await;
    wait_for_status(&cluster, "the level is raised", |status| {
        status.feature_level == FeatureLevel::HIGHEST.get()
    })
    .await;
    let highest = FeatureLevel::HIGHEST.get();
    let info = |lowest_level, highest_level| {
        Some(v1::ReleaseInfo { release: "9".into(), lowest_level, highest_level })
    };
    let mut meta = cluster.meta(1).await;
    for (number, release, is_refused) in [
        (2, None, true),
        (3, info(1, 1), true),
        (4, info(highest + 1, highest + 1), true),
        (5, info(2, highest), false),
        // A node that is known, with an earlier release.
        (1, None, true),
    ] {
        let address = format!("127.0.0.1:{}", 7_100 + number);
        let request = v1::RegisterRequest { release, ..register_request(number, &address) };
        let result = meta.register(request).await;
        if is_refused {
            let refusal = Refusal::from_status(&result.unwrap_err());
            assert_eq!(refusal.reason, Reason::ReleaseUnsupported, "{number}");
            assert_eq!(refusal.retry_after, None);
            let level = format!("the cluster is at level {highest}");
            assert!(refusal.message.contains(&level), "{refusal}");
        } else {
            result.unwrap();
        }
    }
    // Apply refuses a registration that the leader has checked before the raise.
    let group = cluster.nodes[&1].meta.slot().get().unwrap().group;
    let late = v1::RegisterNode {
        directory_id: directory(9),
        role: NodeRole::Data.into(),
        address: "127.0.0.1:7109".into(),
        object_store_id: "store".into(),
        ..v1::RegisterNode::default()
    };
    let refused = group.propose(Kind::RegisterNode(late)).await.unwrap_err();
    assert_eq!(refused.reason, Reason::ReleaseUnsupported);
    // A process that was frozen during the raise.
    let heartbeat = v1::HeartbeatRequest {
        cluster_id: group.cluster_id.to_string(),
        node_id: data.node_id,
        ..v1::HeartbeatRequest::default()
    };
    assert_eq!(reason(meta.heartbeat(heartbeat.clone()).await), Reason::ReleaseUnsupported);
    let supported = v1::HeartbeatRequest { release: own_release(), ..heartbeat };
    let answer = meta.heartbeat(supported).await.unwrap().into_inner();
    assert_eq!(answer.feature_level, highest);
    data.stop().await;
    cluster.nodes.remove(&1).unwrap().stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn command_above_the_level_is_not_proposed() {
    let mut cluster = MetaCluster::new(1);
    start_limited(&mut cluster, 1, Bootstrap::Once).await;
    cluster.leader().await;
    let group = cluster.nodes[&1].meta.slot().get().unwrap().group;
    // A raise to the third level needs the second.
    let skipping = v1::RaiseFeatureLevel { level: 3, nodes: Vec::new() };
    let refused = group.propose_in(Term(0), Kind::RaiseFeatureLevel(skipping)).await.unwrap_err();
    assert_eq!(refused.reason, Reason::Unsupported);
    assert!(refused.message.contains("cluster status"), "{refused}");
    // A leader whose view is old: the node is not among those that it has asked.
    let unasked = v1::RaiseFeatureLevel { level: 2, nodes: Vec::new() };
    let refused = group.propose_in(Term(0), Kind::RaiseFeatureLevel(unasked)).await.unwrap_err();
    assert_eq!(refused.reason, Reason::ReleaseUnsupported);
    assert_eq!(group.view.read().header().feature_level, FeatureLevel::FIRST);
    // The members describe themselves to nodes that address them.
    let mut member = MetaMembersClient::new(cluster.channel(1).await);
    let ask = |target_node| v1::DescribeMemberRequest { target_node };
    let described = member.describe_member(ask(1)).await.unwrap().into_inner();
    assert_eq!((described.node_id, described.max_level), (1, 1));
    assert_eq!(reason(member.describe_member(ask(2)).await), Reason::WrongNode);
    cluster.nodes.remove(&1).unwrap().stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_heartbeat_does_not_raise_the_level() {
    let mut cluster = loop {
        let cluster = MetaCluster::bootstrapped(1).await;
        let register = register_request(1, "127.0.0.1:1");
        let register = v1::RegisterRequest { release: None, ..register };
        // Refused if the level has risen before: a cluster without data nodes holds nothing back.
        if cluster.meta(1).await.register(register).await.is_ok() {
            break cluster;
        }
    };
    let hosted = Arc::new(Mutex::new(FakeDataNodes { without_levels: true, ..Default::default() }));
    let data = FakeDataNode::start(&cluster, 1, &hosted).await;
    let node_id = data.node_id;
    let held = |status: &v1::ClusterStatusResponse| is_held_by(status, &[(node_id, "upgrade it")]);
    let status = wait_for_status(&cluster, "the node holds back the level", held).await;
    // With a replica, it counts also while it is down.
    cluster.wait_for("a group", |catalog| voters(catalog, 1) == 1).await;
    // From here on, only these heartbeats.
    data.stop().await;
    let mut meta = cluster.meta(1).await;
    let info = |lowest_level, highest_level, release: &str| {
        Some(v1::ReleaseInfo { release: release.to_owned(), lowest_level, highest_level })
    };
    let genuine = v1::HeartbeatRequest {
        cluster_id: status.cluster_id.clone(),
        node_id,
        release: own_release(),
        ..v1::HeartbeatRequest::default()
    };
    let elsewhere = "127.0.0.1:1".to_owned();
    let long = "9".repeat(10_000);
    for (what, forged, expected) in [
        (
            "a node that is not registered",
            v1::HeartbeatRequest { node_id: node_id + 50, ..genuine.clone() },
            Some(Reason::NodeNotFound),
        ),
        (
            "a member of the meta group",
            v1::HeartbeatRequest { node_id: 1, ..genuine.clone() },
            Some(Reason::NodeNotFound),
        ),
        (
            "a node of another cluster",
            v1::HeartbeatRequest { cluster_id: directory(8), ..genuine.clone() },
            Some(Reason::WrongCluster),
        ),
        (
            "the node at another address",
            v1::HeartbeatRequest { address: elsewhere, ..genuine.clone() },
            Some(Reason::WrongNode),
        ),
        (
            "the node with another role",
            v1::HeartbeatRequest { role: NodeRole::Compactor.into(), ..genuine.clone() },
            Some(Reason::RoleMismatch),
        ),
        ("another start", v1::HeartbeatRequest { boot: 7, ..genuine.clone() }, None),
        (
            "a release of later levels only",
            v1::HeartbeatRequest { release: info(3, u32::MAX, "9"), ..genuine.clone() },
            Some(Reason::ReleaseUnsupported),
        ),
        (
            "an empty range",
            v1::HeartbeatRequest { release: info(9, 1, "9"), ..genuine.clone() },
            Some(Reason::ReleaseUnsupported),
        ),
        (
            "level 0, and a long version",
            v1::HeartbeatRequest { release: info(0, 0, &long), ..genuine.clone() },
            None,
        ),
    ] {
        // The node is up, and only its release holds back the level.
        let deadline = Instant::now() + LIMIT;
        loop {
            let earlier = v1::HeartbeatRequest { release: None, ..genuine.clone() };
            meta.heartbeat(earlier).await.unwrap();
            if is_held_by(&cluster.status().await, &[(node_id, "upgrade it")]) {
                break;
            }
            assert!(Instant::now() < deadline, "{what}: {:?}", cluster.status().await);
            sleep(Duration::from_millis(50)).await;
        }
        let answer = meta.heartbeat(forged).await;
        let found = answer.err().map(|status| Refusal::from_status(&status).reason);
        assert_eq!(found, expected, "{what}");
        if expected.is_none() {
            // Longer than the interval of the leader's decisions.
            sleep(Duration::from_millis(1_200)).await;
        }
        let status = cluster.status().await;
        assert_eq!(status.feature_level, 1, "{what}: {status:?}");
        let holds = |node: &v1::NodeRelease| node.node_id == node_id && !node.holds_back.is_empty();
        assert!(status.releases.iter().any(holds), "{what}: {status:?}");
        assert!(status.releases.iter().all(|node| {
            node.release.as_ref().is_none_or(|release| release.release.len() <= 64)
        }));
    }
    // A range that goes beyond the cluster's releases raises it to theirs.
    let later = v1::HeartbeatRequest { release: info(1, u32::MAX, "9"), ..genuine };
    let deadline = Instant::now() + LIMIT;
    while meta.heartbeat(later.clone()).await.unwrap().into_inner().feature_level < 2 {
        assert!(Instant::now() < deadline, "{:#?}", cluster.status().await);
        sleep(Duration::from_millis(50)).await;
    }
    cluster.nodes.remove(&1).unwrap().stop().await;
}
