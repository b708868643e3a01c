//! A region that the log replaces by its children: reads and writes by both routes, failover, flushes, end.

use tidewater_common::feature_level::FeatureLevel;
use tidewater_common::ids::{GroupId, RegionId};
use tidewater_common::keys::{KeyCodec, KeyRange};
use tidewater_common::schema::TableOptions;
use tidewater_data_node::group::entry::{self, EncodedEntry, EntryOutcome};
use tidewater_data_node::options::GroupOptions;
use tidewater_proto::v1::{self, Reason, WriteRequest};

use super::cluster::*;
use super::three::ThreeNodes;

const LEFT: u64 = 8;
const RIGHT: u64 = 9;
/// First id of the right child.
const SPLIT_AT: i64 = 10;

fn key(id: i64) -> bytes::Bytes {
    let options = TableOptions::try_from(&region().options.unwrap()).unwrap();
    let codec = KeyCodec::new(&schema(), &options).unwrap();
    let id: arrow::array::ArrayRef = std::sync::Arc::new(arrow::array::Int64Array::from(vec![id]));
    codec.row_key(&[id], 0).unwrap().into()
}

fn step(step: u32) -> Option<v1::ProcedureStep> {
    Some(v1::ProcedureStep { number: 2, step })
}

async fn propose(node: &Node, entry: EncodedEntry) -> EntryOutcome {
    let replica = node.groups.get(GroupId(GROUP)).unwrap();
    replica.propose(entry, LIMIT).await.unwrap()
}

fn region_of(node: &Node, id: u64) -> std::sync::Arc<tidewater_region_engine::Region> {
    let replica = node.groups.get(GroupId(GROUP)).unwrap();
    replica.region(RegionId(id)).unwrap().region
}

/// Holds and seals the region, and replaces it by two children.
async fn split(node: &Node) {
    for level in 2..=FeatureLevel::HIGHEST.get() {
        propose(node, entry::level_raised(FeatureLevel::new(level))).await;
    }
    let held = v1::RegionHeld { region_id: REGION, held: true, step: step(1) };
    let outcome = propose(node, entry::held(held)).await;
    assert!(matches!(outcome, EntryOutcome::Done { .. }), "{outcome:?}");
    let sealed = KeyRange { start: Vec::new(), end: Some(Vec::new()) };
    let sealed = region_of(node, REGION).set_range(sealed, None).await.unwrap();
    let children = vec![
        v1::SplitChild { region_id: LEFT, start: bytes::Bytes::new(), end: Some(key(SPLIT_AT)) },
        v1::SplitChild { region_id: RIGHT, start: key(SPLIT_AT), end: None },
    ];
    let split = v1::RegionSplit {
        region_id: REGION,
        sealed_version: sealed.get(),
        children,
        step: step(2),
    };
    let outcome = propose(node, entry::split(split)).await;
    assert!(matches!(outcome, EntryOutcome::Done { .. }), "{outcome:?}");
}

/// A write that names a child, of a producer that has written to the region.
fn to_child(child: u64, write: WriteRequest) -> WriteRequest {
    WriteRequest { region_id: child, origin_region_id: REGION, ..write }
}

/// Waits until reads by the old route show these rows, and each child shows its part.
async fn expect_rows(node: &Node, expected: &[i64]) {
    until("the children serve all rows", async || {
        node.scan().await.is_ok_and(|ids| ids == expected)
    })
    .await;
    assert_eq!(node.get(expected).await.unwrap(), expected);
    assert_eq!(node.count(REGION).await, Some(expected.len() as u64));
    let left = expected.iter().filter(|id| **id < SPLIT_AT).count() as u64;
    assert_eq!(node.count(LEFT).await, Some(left));
    assert_eq!(node.count(RIGHT).await, Some(expected.len() as u64 - left));
}

/// Truncates the region, by a procedure before that of the split.
async fn truncate(node: &Node) {
    use tidewater_proto::v1::group_control_server::GroupControl;
    let request = v1::TruncateRegionRequest {
        header: node.header(),
        group_id: GROUP,
        region_id: REGION,
        step: Some(v1::ProcedureStep { number: 1, step: 1 }),
    };
    node.control.truncate_region(tonic::Request::new(request)).await.unwrap();
}

async fn flush(node: &Node, region_id: u64) {
    use tidewater_proto::v1::region_admin_server::RegionAdmin;
    until("the child is flushed", async || {
        let request = v1::FlushRegionRequest { group_id: GROUP, region_id };
        node.admin.flush_region(tonic::Request::new(request)).await.is_ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn children_serve_the_rows_of_a_split_region() {
    let mut three = ThreeNodes::start(GroupOptions::default()).await;
    let leader = three.leader().await;
    let node = three.node(leader);
    node.write(write(1, 1, &[])).await.unwrap();
    truncate(node).await;
    node.write(write(1, 2, &[1, 2, 11])).await.unwrap();
    node.flush().await.unwrap();
    node.write(write(1, 3, &[3, 12])).await.unwrap();
    split(node).await;
    expect_rows(node, &[1, 2, 3, 11, 12]).await;

    // By the old route, to both children; a repeat is recognized by both routes.
    node.write(write(1, 4, &[4, 13])).await.unwrap();
    assert!(node.write(write(1, 4, &[4, 13])).await.unwrap().repeated);
    assert!(node.write(to_child(RIGHT, write(1, 4, &[13]))).await.unwrap().repeated);
    node.write(to_child(LEFT, write(1, 5, &[5]))).await.unwrap();
    expect_rows(node, &[1, 2, 3, 4, 5, 11, 12, 13]).await;
    three.agree().await;

    // The next leader has the children with their rows, and one of them with its manifest.
    flush(three.node(leader), RIGHT).await;
    three.nodes[leader].take().unwrap().stop().await;
    let next = three.leader().await;
    expect_rows(three.node(next), &[1, 2, 3, 4, 5, 11, 12, 13]).await;
    flush(three.node(next), LEFT).await;
    flush(three.node(next), RIGHT).await;
    expect_rows(three.node(next), &[1, 2, 3, 4, 5, 11, 12, 13]).await;

    let closed = v1::RegionClosed { region_id: REGION, step: step(3) };
    propose(three.node(next), entry::closed(closed)).await;
    let node = three.node(next);
    assert_eq!(node.scan().await.unwrap_err().reason, Reason::RegionNotFound);
    assert_eq!((node.count(LEFT).await, node.count(RIGHT).await), (Some(5), Some(3)));
    three.stop().await;
}
