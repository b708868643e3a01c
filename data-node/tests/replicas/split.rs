//! Splits of a region: reads and writes by both routes, failover, repeats, end, abandonment.

use std::time::Duration;

use futures::StreamExt;
use tidewater_common::feature_level::FeatureLevel;
use tidewater_common::ids::{FileId, GroupId, RegionId};
use tidewater_common::keys::KeyCodec;
use tidewater_common::refusal::Refusal;
use tidewater_common::rows::decode_batch;
use tidewater_common::schema::TableOptions;
use tidewater_data_node::group::entry;
use tidewater_data_node::group::hosted::HostedRegion;
use tidewater_data_node::leadership::held_regions::HoldLimits;
use tidewater_data_node::options::GroupOptions;
use tidewater_proto::v1::data_server::Data;
use tidewater_proto::v1::group_control_server::GroupControl;
use tidewater_proto::v1::{self, Reason, WriteRequest};
use tidewater_region_engine::manifest::AreaId;
use tidewater_region_engine::region::Phase;
use tonic::Request;
use uuid::Uuid;

use super::areas::{adoption, area};
use super::cluster::*;
use super::three::ThreeNodes;

pub(super) const LEFT: u64 = 8;
pub(super) const RIGHT: u64 = 9;
/// First id of the right child.
pub(super) const SPLIT_AT: i64 = 10;

pub(super) fn key(id: i64) -> bytes::Bytes {
    let options = TableOptions::try_from(&region().options.unwrap()).unwrap();
    let codec = KeyCodec::new(&schema(), &options).unwrap();
    let id: arrow::array::ArrayRef = std::sync::Arc::new(arrow::array::Int64Array::from(vec![id]));
    codec.row_key(&[id], 0).unwrap().into()
}

/// A step of the split, procedure 2.
fn step(step: u32) -> Option<v1::ProcedureStep> {
    Some(v1::ProcedureStep { number: 2, step })
}

/// Lets all nodes know that the catalog splits the region.
pub(super) fn know_split(three: &ThreeNodes, abandoning: bool) {
    let change = v1::RouteChange {
        number: 2,
        route_id: REGION,
        child_ids: vec![LEFT, RIGHT],
        split_keys: vec![key(SPLIT_AT)],
        abandoning,
        successor_id: 0,
        target_group_id: 0,
    };
    for node in three.running() {
        node.know_changes(vec![change.clone()]);
    }
}

pub(super) async fn raise_level(node: &Node) {
    let replica = node.groups.get(GroupId(GROUP)).unwrap();
    for level in 2..=FeatureLevel::HIGHEST.get() {
        replica.propose(entry::level_raised(FeatureLevel::new(level)), LIMIT).await.unwrap();
    }
}

pub(super) async fn hold(node: &Node, held: bool) -> Result<(), Refusal> {
    let request = v1::HoldRegionRequest {
        header: node.header(),
        group_id: GROUP,
        region_id: REGION,
        held,
        step: step(if held { 1 } else { 3 }),
        mode: v1::HoldMode::Sealed.into(),
        target_group_id: 0,
    };
    node.control.hold_region(Request::new(request)).await?;
    Ok(())
}

pub(super) async fn split(node: &Node) -> Result<(), Refusal> {
    let children = vec![
        v1::SplitChild { region_id: LEFT, start: bytes::Bytes::new(), end: Some(key(SPLIT_AT)) },
        v1::SplitChild { region_id: RIGHT, start: key(SPLIT_AT), end: None },
    ];
    let request = v1::SplitRegionRequest {
        header: node.header(),
        group_id: GROUP,
        region_id: REGION,
        children,
        step: step(2),
    };
    node.control.split_region(Request::new(request)).await?;
    Ok(())
}

pub(super) async fn close(node: &Node) -> Result<(), Refusal> {
    let request = v1::CloseRegionRequest {
        header: node.header(),
        group_id: GROUP,
        region_id: REGION,
        step: step(4),
    };
    node.control.close_region(Request::new(request)).await?;
    Ok(())
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

/// Truncates the region, by a procedure with this number.
async fn truncate(node: &Node, number: u64) -> Result<(), Refusal> {
    let request = v1::TruncateRegionRequest {
        header: node.header(),
        group_id: GROUP,
        region_id: REGION,
        step: Some(v1::ProcedureStep { number, step: 1 }),
    };
    node.control.truncate_region(Request::new(request)).await?;
    Ok(())
}

pub(super) fn hosted(node: &Node) -> HostedRegion {
    node.groups.get(GroupId(GROUP)).unwrap().region(RegionId(REGION)).unwrap()
}

/// Options of a group that waits for the next step of a split or merge for a short time.
pub(super) fn impatient() -> GroupOptions {
    let short = Duration::from_secs(3);
    let hold_limits = HoldLimits { fence: short, seal: short };
    GroupOptions { hold_limits, ..GroupOptions::default() }
}

pub(super) fn reason(answer: Result<(), Refusal>) -> Option<Reason> {
    answer.err().map(|refusal| refusal.reason)
}

#[tokio::test(flavor = "multi_thread")]
async fn children_serve_the_rows_of_a_split_region() {
    let mut three = ThreeNodes::start(GroupOptions::default()).await;
    let leader = three.leader().await;
    let node = three.node(leader);
    node.write(write(1, 1, &[])).await.unwrap();
    truncate(node, 1).await.unwrap();
    raise_level(node).await;
    node.write(write(1, 2, &[1, 2, 11])).await.unwrap();
    node.flush().await.unwrap();
    node.write(write(1, 3, &[3, 12])).await.unwrap();
    // The catalog decides: without it, nothing is held or split.
    assert_eq!(reason(hold(node, true).await), Some(Reason::InvalidArgument));
    know_split(&three, false);
    assert_eq!(reason(hold(node, false).await), Some(Reason::InvalidArgument));
    assert_eq!(reason(split(node).await), Some(Reason::RouteBusy));
    hold(node, true).await.unwrap();
    node.write(write(1, 4, &[13])).await.unwrap();
    hold(node, true).await.unwrap();
    split(node).await.unwrap();
    expect_rows(node, &[1, 2, 3, 11, 12, 13]).await;
    // A flush by the old route is one of the children, which have the row of the last write in memory.
    assert_eq!(node.flush().await.unwrap().rows, 1);
    expect_rows(node, &[1, 2, 3, 11, 12, 13]).await;
    // The children wait for the swap: the catalog has the region's route.
    assert_eq!(reason(close(node).await), Some(Reason::InvalidArgument));

    // By the old route, to both children; a repeat is recognized by both routes.
    node.write(write(1, 5, &[4, 14])).await.unwrap();
    assert!(node.write(write(1, 5, &[4, 14])).await.unwrap().repeated);
    assert!(node.write(to_child(RIGHT, write(1, 5, &[14]))).await.unwrap().repeated);
    node.write(to_child(LEFT, write(1, 6, &[5]))).await.unwrap();
    expect_rows(node, &[1, 2, 3, 4, 5, 11, 12, 13, 14]).await;
    for child in [LEFT, RIGHT] {
        three.agree_on(child).await;
    }
    assert_eq!(node.info().await.unwrap().state, "replaced");

    three.nodes[leader].take().unwrap().stop().await;
    let next = three.leader().await;
    let node = three.node(next);
    let all = [1, 2, 3, 4, 5, 11, 12, 13, 14];
    expect_rows(node, &all).await;

    // Every step can be repeated on the next leader, which closes the region.
    assert_eq!(reason(hold(node, true).await), Some(Reason::ProcedureSuperseded));
    split(node).await.unwrap();
    for node in three.running() {
        node.forget_region();
    }
    close(node).await.unwrap();
    close(node).await.unwrap();
    assert_eq!(node.scan().await.unwrap_err().reason, Reason::RegionNotFound);
    assert_eq!((node.count(LEFT).await, node.count(RIGHT).await), (Some(5), Some(4)));
    // The rows in memory were flushed before: a replica that begins with the files alone has all of them.
    for child in [LEFT, RIGHT] {
        let stats = node.groups.get(GroupId(GROUP)).unwrap().region(RegionId(child)).unwrap();
        assert_eq!(stats.region.stats().memtable_rows, 0);
    }
    three.stop().await;
}

// Each child alone has fewer rows than the limit.
#[tokio::test(flavor = "multi_thread")]
async fn children_share_the_limit_of_a_read() {
    let three = ThreeNodes::start(GroupOptions::default()).await;
    let node = three.node(three.leader().await);
    raise_level(node).await;
    node.write(write(1, 1, &[])).await.unwrap();
    node.write(write(1, 2, &[1, 2, 3, 11, 12])).await.unwrap();
    know_split(&three, false);
    hold(node, true).await.unwrap();
    split(node).await.unwrap();
    expect_rows(node, &[1, 2, 3, 11, 12]).await;
    let limited = |count_only| v1::ScanRequest {
        group_id: GROUP,
        region_id: REGION,
        schema_version: 1,
        projection: vec![1, 2],
        limit: Some(4),
        count_only,
        ..Default::default()
    };
    for count_only in [false, true] {
        let messages = node.data.scan(Request::new(limited(count_only))).await.unwrap();
        let messages: Vec<_> = messages.into_inner().map(Result::unwrap).collect().await;
        let with_rows = messages.iter().filter(|message| !message.rows.is_empty());
        let rows = with_rows.map(|message| decode_batch(&message.rows, &schema().arrow()).unwrap());
        let read: usize = rows.map(|rows| rows.num_rows()).sum();
        let counted: u64 = messages.iter().map(|message| message.row_count).sum();
        assert_eq!((read, counted), (if count_only { 0 } else { 4 }, 4));
    }
    three.stop().await;
}

// It applies the split after the region has been removed: its files are no longer the region's.
#[tokio::test(flavor = "multi_thread")]
async fn late_replica_has_the_rows_of_the_children() {
    let mut three = ThreeNodes::start(GroupOptions::default()).await;
    let leader = three.leader().await;
    let late = (leader + 1) % 3;
    let node = three.node(leader);
    raise_level(node).await;
    node.write(write(1, 1, &[])).await.unwrap();
    three.agree().await;
    let address = three.node(late).address.clone();
    three.nodes[late].take().unwrap().stop().await;
    let node = three.node(leader);
    node.write(write(1, 2, &[1, 2, 11])).await.unwrap();
    know_split(&three, false);
    hold(node, true).await.unwrap();
    node.write(write(1, 3, &[3, 12])).await.unwrap();
    split(node).await.unwrap();
    node.write(write(1, 4, &[13])).await.unwrap();
    for node in three.running() {
        node.forget_region();
    }
    close(node).await.unwrap();
    assert_eq!((node.count(LEFT).await, node.count(RIGHT).await), (Some(3), Some(3)));
    let is_removed = async |node: &Node| hosted(node).region.stats().phase == Phase::Removed;
    three.restart_ahead(late, &address, "it finds the region removed", is_removed).await;
    for child in [LEFT, RIGHT] {
        three.agree_on(child).await;
    }
    three.transfer(late).await;
    for child in [LEFT, RIGHT] {
        until("the late replica serves all rows", async || {
            three.node(late).count(child).await == Some(3)
        })
        .await;
    }
    three.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn region_with_unpublished_files_is_not_held() {
    let three = ThreeNodes::start(GroupOptions::default()).await;
    let node = three.node(three.leader().await);
    raise_level(node).await;
    node.write(write(1, 1, &[])).await.unwrap();
    node.write(write(1, 2, &[1])).await.unwrap();
    // It owns the region then.
    node.flush().await.unwrap();
    know_split(&three, false);
    let files = node.write_files(&[3]).await;
    let files: Vec<_> = files.iter().map(|id| FileId::from_slice(id).unwrap()).collect();
    let staged = AreaId(Uuid::from_u128(1));
    hosted(node).region.adopt(staged, &files, 4_000_000_000_000).await.unwrap();
    assert_eq!(reason(hold(node, true).await), Some(Reason::RouteBusy));
    // It was not held before that: it takes decisions.
    truncate(node, 1).await.unwrap();
    three.stop().await;
}

// R11.
#[tokio::test(flavor = "multi_thread")]
async fn abandoned_split_leaves_the_region_as_it_was() {
    let mut three = ThreeNodes::start(GroupOptions::default()).await;
    let leader = three.leader().await;
    let node = three.node(leader);
    raise_level(node).await;
    node.write(write(1, 1, &[])).await.unwrap();
    node.write(write(1, 2, &[1, 11])).await.unwrap();
    know_split(&three, false);
    hold(node, true).await.unwrap();
    node.write(write(1, 3, &[2])).await.unwrap();
    assert_eq!(reason(truncate(node, 3).await), Some(Reason::RouteBusy));
    // Files are refused before they are staged.
    let load = adoption(area(1), node.write_files(&[3]).await, false);
    assert_eq!(node.adopt(&load).await.unwrap_err().reason, Reason::RouteBusy);
    assert!(hosted(node).region.staging_areas().is_empty());

    // The next leader abandons it.
    three.nodes[leader].take().unwrap().stop().await;
    let next = three.leader().await;
    let node = three.node(next);
    know_split(&three, true);
    assert_eq!(reason(split(node).await), Some(Reason::InvalidArgument));
    hold(node, false).await.unwrap();
    hold(node, false).await.unwrap();
    // Calls of the time before are delayed.
    know_split(&three, false);
    assert_eq!(reason(hold(node, true).await), Some(Reason::ProcedureSuperseded));
    assert_eq!(reason(split(node).await), Some(Reason::ProcedureSuperseded));

    node.write(write(1, 4, &[12])).await.unwrap();
    node.flush().await.unwrap();
    assert_eq!(node.scan().await.unwrap(), [1, 2, 11, 12]);
    truncate(node, 3).await.unwrap();
    assert_eq!(node.scan().await.unwrap(), Vec::<i64>::new());
    three.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn group_abandons_a_split_that_does_not_follow() {
    let three = ThreeNodes::start(impatient()).await;
    let node = three.node(three.leader().await);
    raise_level(node).await;
    node.write(write(1, 1, &[])).await.unwrap();
    node.write(write(1, 2, &[1, 11])).await.unwrap();
    know_split(&three, false);
    // On a busy machine, the leader changes.
    until("the leader holds the region", async || {
        hold(three.node(three.leader().await), true).await.is_ok()
    })
    .await;
    let node = three.node(three.leader().await);
    until("the group has restored the region", async || !hosted(node).region.is_sealed()).await;
    // Calls of the meta leader come too late, and its abandonment has nothing left to do.
    let superseded = Some(Reason::ProcedureSuperseded);
    until("late calls are refused", async || {
        let node = three.node(three.leader().await);
        [reason(hold(node, true).await), reason(split(node).await)] == [superseded; 2]
    })
    .await;
    let node = three.node(three.leader().await);
    know_split(&three, true);
    hold(node, false).await.unwrap();
    node.write(write(1, 3, &[2])).await.unwrap();
    assert_eq!(node.flush().await.unwrap().rows, 1);
    assert_eq!(node.scan().await.unwrap(), [1, 2, 11]);
    three.stop().await;
}
