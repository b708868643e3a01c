//! Creation of a cluster, and protection against creating two.

use tidewater_common::ids::NodeId;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{self, Reason};
use tokio::time::timeout;

use super::cluster::{LIMIT, MetaCluster, free_address, serve};
use crate::{Bootstrap, MetaError};

#[tokio::test(flavor = "multi_thread")]
async fn peers_with_different_lists_create_no_cluster() {
    let mut cluster = MetaCluster::new(2);
    cluster.start(1, Bootstrap::Once).await;
    let mut options = cluster.options(2, Bootstrap::Never);
    options.peers.insert(NodeId(3), free_address());
    let second = serve(options, &cluster.peers[&NodeId(2)]).await.unwrap();
    let failed = timeout(LIMIT, cluster.nodes[&1].meta.failed()).await.unwrap();
    let MetaError::PeerRefused { refusal, .. } = failed.as_ref() else { panic!("{failed}") };
    assert_eq!(refusal.reason, Reason::PeersMismatch);
    // Nothing was written: both can be started again with the right peers.
    second.stop().await;
    cluster.nodes.remove(&1).unwrap().stop().await;
    cluster.start(1, Bootstrap::Once).await;
    cluster.start(2, Bootstrap::Never).await;
    cluster.leader().await;
    for (_, node) in std::mem::take(&mut cluster.nodes) {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_bootstrapping_nodes_both_fail() {
    let mut cluster = MetaCluster::new(2);
    cluster.start(1, Bootstrap::Once).await;
    cluster.start(2, Bootstrap::Once).await;
    let failed = timeout(LIMIT, cluster.nodes[&1].meta.failed()).await.unwrap();
    let MetaError::PeerRefused { refusal, .. } = failed.as_ref() else { panic!("{failed}") };
    assert_eq!(refusal.reason, Reason::AlreadyBootstrapped);
    let early = cluster.meta(1).await.get_catalog(v1::GetCatalogRequest {}).await.unwrap_err();
    assert_eq!(Refusal::from_status(&early).reason, Reason::NotBootstrapped);
    for (_, node) in std::mem::take(&mut cluster.nodes) {
        node.stop().await;
    }
}
