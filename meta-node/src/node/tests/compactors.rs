//! Compactors that data nodes may offload to.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidewater_proto::v1::{self, NodeRole};
use tokio::time::{Instant, sleep};

use super::cluster::{LIMIT, MetaCluster};
use super::data_nodes::{FakeDataNode, FakeDataNodes, own_release, register_request};

#[tokio::test(flavor = "multi_thread")]
async fn data_node_heartbeat_returns_compactors_and_their_load() {
    let mut cluster = MetaCluster::bootstrapped(1).await;
    let hosted = Arc::new(Mutex::new(FakeDataNodes::default()));
    let data = FakeDataNode::start(&cluster, 1, &hosted).await;
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
        release: own_release(),
        ..v1::HeartbeatRequest::default()
    };
    let response = meta.heartbeat(beat(data.node_id, None)).await.unwrap().into_inner();
    assert!(response.compactors.is_empty(), "the compactor has not reported its load");
    let load = v1::CompactorLoad { slots: 3, jobs: 1, ..v1::CompactorLoad::default() };
    let own = meta.heartbeat(beat(compactor, Some(load.clone()))).await.unwrap().into_inner();
    assert!(own.compactors.is_empty());
    let address = "compactor:1".to_owned();
    let expected = v1::CompactorInfo { node_id: compactor, address, load: Some(load) };
    // Responses repeat facts of the last moments.
    let deadline = Instant::now() + LIMIT;
    loop {
        let response = meta.heartbeat(beat(data.node_id, None)).await.unwrap().into_inner();
        if response.compactors == [expected.clone()] {
            break;
        }
        assert!(Instant::now() < deadline, "{:?}", response.compactors);
        sleep(Duration::from_millis(20)).await;
    }
    data.stop().await;
    cluster.nodes.remove(&1).unwrap().stop().await;
}
