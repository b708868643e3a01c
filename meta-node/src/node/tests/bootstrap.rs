//! Making a cluster, and what keeps two from being made.

use tidewater_common::ids::NodeId;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{self, Reason};
use tokio::time::timeout;

use super::cluster::{Cluster, LIMIT, free_address, serve};
use crate::{Bootstrap, MetaError};

#[tokio::test(flavor = "multi_thread")]
async fn peers_that_disagree_make_no_cluster() {
    let mut cluster = Cluster::new(2);
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
async fn two_nodes_that_bootstrap_both_give_up() {
    let mut cluster = Cluster::new(2);
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
