//! Nodes that refuse changes of collections.

use tidewater_common::feature_level::FeatureLevel;
use tidewater_common::ids::NodeId;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::storage_admin_client::StorageAdminClient;
use tidewater_proto::v1::{self, Reason};
use tonic::transport::Channel;

use super::{acquisition, refused};
use crate::node::tests::cluster::{MetaCluster, serve, until};
use crate::{Bootstrap, MetaOptions};

/// The answers of a node to each call that changes collections.
async fn refused_changes(client: &mut StorageAdminClient<Channel>) -> Vec<Refusal> {
    let names = || vec!["h".to_owned()];
    let downgrade = v1::DowngradeReadHoldRequest { name: "h".to_owned(), epoch: 1 };
    let policy = v1::SetReadPolicyRequest { table: "t".to_owned(), policy: None };
    let capabilities = v1::UpdateReadCapabilitiesRequest::default();
    vec![
        refused(client.acquire_read_hold(acquisition(20, "h")).await),
        refused(client.renew_read_holds(v1::RenewReadHoldsRequest { names: names() }).await),
        refused(client.downgrade_read_hold(downgrade).await),
        refused(client.release_read_holds(v1::ReleaseReadHoldsRequest { names: names() }).await),
        refused(client.set_read_policy(policy).await),
        refused(client.update_read_capabilities(capabilities).await),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn clusters_below_the_level_of_holds_refuse_them() {
    let below = FeatureLevel::COLLECTIONS.previous();
    let mut cluster = MetaCluster::new(1);
    let options = MetaOptions { max_level: Some(below), ..cluster.options(1, Bootstrap::Once) };
    let node = serve(options, &cluster.peers[&NodeId(1)]).await.unwrap();
    cluster.nodes.insert(1, node);
    cluster.raise_to(below).await;
    let mut client = StorageAdminClient::new(cluster.channel(1).await);
    let text = format!(
        "the command needs feature level {}, and the cluster is at level {below}",
        FeatureLevel::COLLECTIONS
    );
    for refusal in refused_changes(&mut client).await {
        assert_eq!(refusal.reason, Reason::Unsupported);
        assert!(refusal.message.starts_with(&text), "{refusal}");
    }
    cluster.nodes.remove(&1).unwrap().stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn followers_refer_calls_of_holds_to_the_leader() {
    let mut cluster = MetaCluster::bootstrapped(3).await;
    cluster.raise_to(FeatureLevel::HIGHEST).await;
    let leader = cluster.leader().await;
    let follower = (1..=3).find(|id| *id != leader).unwrap();
    let group = cluster.nodes[&follower].meta.slot().get().unwrap().group;
    until("the follower has applied the raises", || {
        group.view.read().header().feature_level == FeatureLevel::HIGHEST
    })
    .await;
    let mut client = StorageAdminClient::new(cluster.channel(follower).await);
    let mut refusals = refused_changes(&mut client).await;
    let all = v1::GetCollectionFrontiersRequest::default();
    refusals.push(refused(client.get_collection_frontiers(all).await));
    refusals.push(refused(client.list_read_holds(v1::ListReadHoldsRequest::default()).await));
    for refusal in refusals {
        assert_eq!(refusal.reason, Reason::NotLeader, "{refusal}");
        assert_eq!(refusal.leader.map(|hint| hint.node_id), Some(NodeId(leader)));
    }
    drop(group);
    for (_, node) in std::mem::take(&mut cluster.nodes) {
        node.stop().await;
    }
}
