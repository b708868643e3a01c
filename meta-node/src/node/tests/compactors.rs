//! Whom data nodes may give work to.

use std::sync::Arc;

use parking_lot::Mutex;
use tidewater_proto::v1::{self, NodeRole};

use super::cluster::Cluster;
use super::data_nodes::{DataNode, Hosted, register_request};

#[tokio::test(flavor = "multi_thread")]
async fn data_nodes_hear_of_compactors_and_their_load() {
    let mut cluster = Cluster::bootstrapped(1).await;
    let hosted = Arc::new(Mutex::new(Hosted::default()));
    let data = DataNode::start(&cluster, 1, &hosted).await;
    let cluster_id = cluster.catalog().await.cluster_id;
    let mut meta = cluster.meta(1).await;
    let compactor = v1::RegisterRequest {
        role: NodeRole::Compactor.into(),
        ..register_request(9, "compactor:1")
    };
    let compactor = meta.register(compactor).await.unwrap().into_inner().node_id;
    let beat = |node_id, compactor| v1::HeartbeatRequest {
        cluster_id: cluster_id.clone(),
        node_id,
        compactor,
        ..v1::HeartbeatRequest::default()
    };
    let heard = meta.heartbeat(beat(data.node_id, None)).await.unwrap().into_inner();
    assert!(heard.compactors.is_empty(), "it has not said what it has");
    let load = v1::CompactorLoad { slots: 3, jobs: 1, ..v1::CompactorLoad::default() };
    let itself = meta.heartbeat(beat(compactor, Some(load.clone()))).await.unwrap().into_inner();
    assert!(itself.compactors.is_empty());
    let heard = meta.heartbeat(beat(data.node_id, None)).await.unwrap().into_inner();
    let address = "compactor:1".to_owned();
    let expected = v1::CompactorInfo { node_id: compactor, address, load: Some(load) };
    assert_eq!(heard.compactors, [expected]);
    data.stop().await;
    cluster.nodes.remove(&1).unwrap().stop().await;
}
