use tempfile::TempDir;
use uuid::Uuid;

use super::*;
use crate::log_store::{LogStore, LogStoreOptions};
use crate::testing::handler::FakeGroup;

const CLUSTER: ClusterId = ClusterId(Uuid::from_u128(1));

fn header(cluster_id: ClusterId, target_node: u64, group_id: u64) -> v1::RaftHeader {
    v1::RaftHeader {
        cluster_id: cluster_id.to_string(),
        source_node: 9,
        target_node,
        group_id,
        source_boot: 0,
    }
}

#[test]
fn messages_for_other_destinations_get_specific_errors() {
    let dir = TempDir::new().unwrap();
    let store = LogStore::open(dir.path(), LogStoreOptions::default()).unwrap();
    let service = RaftService::new();
    let refused = |header: &v1::RaftHeader| {
        service.destination(Some(header)).map(|_| ()).map_err(|refusal| refusal.reason)
    };
    assert_eq!(refused(&header(CLUSTER, 1, 5)), Err(Reason::WrongNode), "there is no node yet");

    let one = RaftHost::new(CLUSTER, NodeId(1), Arc::clone(&store));
    let two = RaftHost::new(CLUSTER, NodeId(2), Arc::clone(&store));
    one.add(GroupId(0), Arc::new(FakeGroup::Silent), dir.path());
    two.add(GroupId(5), Arc::new(FakeGroup::Silent), dir.path());
    service.add_host(Arc::clone(&one));
    service.add_host(two);

    let other = ClusterId(Uuid::from_u128(2));
    assert_eq!(refused(&header(CLUSTER, 1, 0)), Ok(()));
    assert_eq!(refused(&header(CLUSTER, 2, 5)), Ok(()));
    assert_eq!(refused(&header(CLUSTER, 1, 5)), Err(Reason::GroupNotHosted));
    assert_eq!(refused(&header(CLUSTER, 3, 5)), Err(Reason::WrongNode));
    assert_eq!(refused(&header(other, 1, 0)), Err(Reason::WrongCluster));
    assert_eq!(refused(&header(other, 3, 0)), Err(Reason::WrongCluster));
    let garbled = v1::RaftHeader { cluster_id: "x".into(), ..header(CLUSTER, 1, 0) };
    assert_eq!(refused(&garbled), Err(Reason::WrongCluster));
    assert_eq!(service.destination(None).map(|_| ()).unwrap_err().reason, Reason::InvalidArgument);

    // A process may run nodes of two clusters: neither answers for the other's.
    let stranger = RaftHost::new(other, NodeId(3), Arc::clone(&store));
    stranger.add(GroupId(5), Arc::new(FakeGroup::Silent), dir.path());
    service.add_host(stranger);
    assert_eq!(refused(&header(other, 3, 5)), Ok(()));
    assert_eq!(refused(&header(other, 2, 5)), Err(Reason::WrongCluster));
    assert_eq!(refused(&header(CLUSTER, 3, 5)), Err(Reason::WrongCluster));

    one.remove(GroupId(0));
    assert_eq!(refused(&header(CLUSTER, 1, 0)), Err(Reason::GroupNotHosted));
    service.remove_host(NodeId(1));
    assert_eq!(refused(&header(CLUSTER, 1, 0)), Err(Reason::WrongNode));
}
