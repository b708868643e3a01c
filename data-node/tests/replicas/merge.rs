//! Merges of two regions: reads and writes by old and new routes, failover, repeats, end, abandonment.

use std::time::Duration;

use bytes::Bytes;
use tidewater_common::ids::{GroupId, RegionId};
use tidewater_common::refusal::Refusal;
use tidewater_data_node::options::GroupOptions;
use tidewater_proto::v1::group_control_server::GroupControl;
use tidewater_proto::v1::{self, HoldMode, Reason, WriteRequest};
use tidewater_region_engine::region::Phase;
use tonic::Request;

use super::cluster::*;
use super::split::{self, LEFT, RIGHT, SPLIT_AT, key, raise_level, reason};
use super::three::ThreeNodes;

const CHILD: u64 = 10;

/// A step of the merge, procedure 3.
fn step(step: u32) -> Option<v1::ProcedureStep> {
    Some(v1::ProcedureStep { number: 3, step })
}

/// Lets all nodes know that the catalog merges the regions.
fn know_merge(three: &ThreeNodes, abandoning: bool) {
    let change = v1::RouteChange {
        number: 3,
        route_id: LEFT,
        child_ids: vec![CHILD],
        split_keys: Vec::new(),
        abandoning,
        successor_id: RIGHT,
        target_group_id: 0,
    };
    for node in three.running() {
        node.know_changes(vec![change.clone()]);
    }
}

/// Lets all nodes know that the child has replaced the routes.
fn swap(three: &ThreeNodes) {
    for node in three.running() {
        node.swap_routes(&[LEFT, RIGHT], &[(CHILD, Bytes::new(), None)]);
    }
}

async fn hold(node: &Node, held: bool, mode: HoldMode, at: u32) -> Result<(), Refusal> {
    for region_id in [LEFT, RIGHT] {
        let request = v1::HoldRegionRequest {
            header: node.header(),
            group_id: GROUP,
            region_id,
            held,
            step: step(at),
            mode: mode.into(),
            target_group_id: 0,
        };
        node.control.hold_region(Request::new(request)).await?;
    }
    Ok(())
}

async fn open(node: &Node) -> Result<(), Refusal> {
    hold(node, true, HoldMode::Open, 1).await
}

async fn fence(node: &Node) -> Result<(), Refusal> {
    hold(node, true, HoldMode::Fenced, 2).await
}

async fn abandon(node: &Node) -> Result<(), Refusal> {
    hold(node, false, HoldMode::Sealed, 4).await
}

async fn merge(node: &Node) -> Result<(), Refusal> {
    let request = v1::MergeRegionsRequest {
        header: node.header(),
        group_id: GROUP,
        region_id: LEFT,
        successor_id: RIGHT,
        child: Some(v1::SplitChild { region_id: CHILD, start: Bytes::new(), end: None }),
        step: step(3),
    };
    node.control.merge_regions(Request::new(request)).await?;
    Ok(())
}

async fn close(node: &Node) -> Result<(), Refusal> {
    for region_id in [LEFT, RIGHT] {
        let request = v1::CloseRegionRequest {
            header: node.header(),
            group_id: GROUP,
            region_id,
            step: step(5),
        };
        node.control.close_region(Request::new(request)).await?;
    }
    Ok(())
}

/// A write that names a region, also as its origin.
fn to(region_id: u64, write: WriteRequest) -> WriteRequest {
    WriteRequest { region_id, origin_region_id: region_id, ..write }
}

/// A write that names the child, of a producer that has written to another region.
fn by_child(origin: u64, write: WriteRequest) -> WriteRequest {
    WriteRequest { region_id: CHILD, origin_region_id: origin, ..write }
}

/// Three nodes and their leader, with the children of a split: ids below 10, and the others. Producer 1 has written to
/// the first one, producer 2 to the second.
async fn with_two_regions() -> (ThreeNodes, usize) {
    with_options(GroupOptions::default()).await
}

async fn with_options(options: GroupOptions) -> (ThreeNodes, usize) {
    let three = ThreeNodes::start(options).await;
    let leader = three.leader().await;
    let node = three.node(leader);
    raise_level(node).await;
    node.write(write(9, 1, &[])).await.unwrap();
    node.write(write(9, 2, &[1, 11])).await.unwrap();
    split::know_split(&three, false);
    split::hold(node, true).await.unwrap();
    split::split(node).await.unwrap();
    let children = [(LEFT, Bytes::new(), Some(key(SPLIT_AT))), (RIGHT, key(SPLIT_AT), None)];
    for node in three.running() {
        node.swap_routes(&[REGION], &children);
    }
    split::close(node).await.unwrap();
    for (region, producer, id) in [(LEFT, 1, 2), (RIGHT, 2, 12)] {
        node.write(to(region, write(producer, 1, &[]))).await.unwrap();
        node.write(to(region, write(producer, 2, &[id]))).await.unwrap();
    }
    (three, leader)
}

/// Waits until reads by the old routes show these rows, each its part.
async fn expect_rows(node: &Node, expected: &[i64]) {
    let is_left = |id: &&i64| **id < SPLIT_AT;
    let left: Vec<i64> = expected.iter().filter(is_left).copied().collect();
    let right: Vec<i64> = expected.iter().filter(|id| !is_left(id)).copied().collect();
    for (region, part) in [(LEFT, &left[..]), (RIGHT, &right[..])] {
        until("the child serves all rows", async || {
            node.scan_of(region).await.is_ok_and(|ids| ids == part)
        })
        .await;
        assert_eq!(node.get_of(region, part).await.unwrap(), part);
        assert_eq!(node.count(region).await, Some(part.len() as u64));
    }
    assert_eq!(node.scan_of(CHILD).await.unwrap(), expected);
    assert_eq!(node.get_of(CHILD, expected).await.unwrap(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn child_serves_the_rows_of_merged_regions() {
    let (mut three, leader) = with_two_regions().await;
    let node = three.node(leader);
    // The catalog decides: without it, nothing is held or merged.
    for refused in [open(node).await, fence(node).await, merge(node).await] {
        assert_eq!(reason(refused), Some(Reason::InvalidArgument));
    }
    know_merge(&three, false);
    assert_eq!(reason(merge(node).await), Some(Reason::RouteBusy));
    open(node).await.unwrap();
    node.write(to(LEFT, write(1, 3, &[3]))).await.unwrap();
    assert_eq!(reason(merge(node).await), Some(Reason::RouteBusy));
    fence(node).await.unwrap();
    let fenced = node.write(to(LEFT, write(1, 4, &[4]))).await.unwrap_err();
    assert_eq!(fenced.reason, Reason::RouteWriteFenced);
    assert!(fenced.retry_after.is_some_and(|after| after <= Duration::from_millis(100)));
    // R12.
    let replica = node.groups.get(GroupId(GROUP)).unwrap();
    for region in [LEFT, RIGHT] {
        let stats = replica.region(RegionId(region)).unwrap().region.stats();
        assert_eq!(stats.memtable_rows, 0, "region {region}");
    }
    assert_eq!(node.scan_of(LEFT).await.unwrap(), [1, 2, 3]);
    fence(node).await.unwrap();
    merge(node).await.unwrap();
    expect_rows(node, &[1, 2, 3, 11, 12]).await;
    assert_eq!(reason(close(node).await), Some(Reason::InvalidArgument), "before the swap");

    // By the old routes and the new one; repeats are recognized by both.
    node.write(to(LEFT, write(1, 4, &[4]))).await.unwrap();
    node.write(to(RIGHT, write(2, 3, &[13]))).await.unwrap();
    for write in [to(LEFT, write(1, 4, &[4])), by_child(LEFT, write(1, 4, &[4]))] {
        assert!(node.write(write).await.unwrap().repeated);
    }
    node.write(by_child(RIGHT, write(2, 4, &[14]))).await.unwrap();
    node.write(to(CHILD, write(3, 1, &[]))).await.unwrap();
    node.write(to(CHILD, write(3, 2, &[5, 15]))).await.unwrap();
    let all = [1, 2, 3, 4, 5, 11, 12, 13, 14, 15];
    expect_rows(node, &all).await;
    three.agree_on(CHILD).await;

    three.nodes[leader].take().unwrap().stop().await;
    let next = three.leader_of(CHILD).await;
    let node = three.node(next);
    expect_rows(node, &all).await;
    // Every step can be repeated on the next leader, which closes the regions.
    assert_eq!(reason(fence(node).await), Some(Reason::ProcedureSuperseded));
    merge(node).await.unwrap();
    swap(&three);
    close(node).await.unwrap();
    close(node).await.unwrap();
    for region in [LEFT, RIGHT] {
        assert_eq!(node.scan_of(region).await.unwrap_err().reason, Reason::RegionNotFound);
    }
    assert_eq!(node.scan_of(CHILD).await.unwrap(), all);
    three.stop().await;
}

// R12. Writes arrive until the fence.
#[tokio::test(flavor = "multi_thread")]
async fn fenced_region_has_no_rows_in_memory() {
    let (three, leader) = with_two_regions().await;
    let node = three.node(leader);
    know_merge(&three, false);
    open(node).await.unwrap();
    let until_refused = async {
        let mut written = Vec::new();
        for (serial, id) in (3..).zip((i64::MIN..0).rev()) {
            match node.write(to(LEFT, write(1, serial, &[id]))).await {
                Ok(_) => written.push(id),
                Err(refused) => return (refused.reason, written),
            }
        }
        panic!("no write was refused")
    };
    let (fenced, (refused, written)) = tokio::join!(fence(node), until_refused);
    fenced.unwrap();
    assert_eq!(refused, Reason::RouteWriteFenced);
    let region = node.groups.get(GroupId(GROUP)).unwrap().region(RegionId(LEFT)).unwrap();
    assert_eq!(region.region.stats().memtable_rows, 0);
    merge(node).await.unwrap();
    let expected: Vec<i64> = written.into_iter().rev().chain([1, 2, 11, 12]).collect();
    expect_rows(node, &expected).await;
    three.stop().await;
}

// The child has rows of both regions.
#[tokio::test(flavor = "multi_thread")]
async fn point_read_by_an_old_route_keeps_its_range() {
    let (three, leader) = with_two_regions().await;
    let node = three.node(leader);
    know_merge(&three, false);
    open(node).await.unwrap();
    fence(node).await.unwrap();
    merge(node).await.unwrap();
    expect_rows(node, &[1, 2, 11, 12]).await;
    for (region, ids) in [(LEFT, [2, 12]), (RIGHT, [2, 12])] {
        let refused = node.get_of(region, &ids).await.unwrap_err();
        assert_eq!(refused.reason, Reason::KeyOutsideRegion, "region {region}");
    }
    three.stop().await;
}

// The regions of a clone begin far above the sequences of their source, of which a region without rows has none.
#[tokio::test(flavor = "multi_thread")]
async fn region_without_rows_above_its_base_is_merged() {
    let three = ThreeNodes::start(GroupOptions::default()).await;
    let leader = three.leader().await;
    let node = three.node(leader);
    raise_level(node).await;
    let parts = [(LEFT, Bytes::new(), Some(key(SPLIT_AT))), (RIGHT, key(SPLIT_AT), None)];
    for node in three.running() {
        node.swap_routes(&[REGION], &parts);
    }
    for (region_id, start, end) in parts {
        let opened = v1::OpenRegionRequest {
            header: node.header(),
            group_id: GROUP,
            region: Some(v1::RegionDescriptor { region_id, start, end, ..region() }),
            base: 1 << 44,
        };
        node.control.open_region(Request::new(opened)).await.unwrap();
    }
    node.write(to(RIGHT, write(2, 1, &[]))).await.unwrap();
    node.write(to(RIGHT, write(2, 2, &[12]))).await.unwrap();
    know_merge(&three, false);
    open(node).await.unwrap();
    fence(node).await.unwrap();
    merge(node).await.unwrap();
    expect_rows(node, &[12]).await;
    swap(&three);
    close(node).await.unwrap();
    node.write(to(CHILD, write(3, 1, &[]))).await.unwrap();
    node.write(to(CHILD, write(3, 2, &[2, 13]))).await.unwrap();
    assert_eq!(node.scan_of(CHILD).await.unwrap(), [2, 12, 13]);
    three.stop().await;
}

// It applies the merge after one of the regions, or both, have been removed.
#[tokio::test(flavor = "multi_thread")]
async fn late_replica_has_the_rows_of_the_child() {
    let (mut three, leader) = with_two_regions().await;
    let late = (leader + 1) % 3;
    three.agree_on(LEFT).await;
    three.agree_on(RIGHT).await;
    let address = three.node(late).address.clone();
    three.nodes[late].take().unwrap().stop().await;
    let node = three.node(leader);
    node.write(to(LEFT, write(1, 3, &[3]))).await.unwrap();
    know_merge(&three, false);
    open(node).await.unwrap();
    fence(node).await.unwrap();
    merge(node).await.unwrap();
    node.write(to(LEFT, write(1, 4, &[4]))).await.unwrap();
    swap(&three);
    close(node).await.unwrap();
    let are_removed = async |node: &Node| {
        let replica = node.groups.get(GroupId(GROUP)).unwrap();
        [LEFT, RIGHT].iter().all(|id| {
            let hosted = replica.region(RegionId(*id));
            hosted.is_ok_and(|hosted| hosted.region.stats().phase == Phase::Removed)
        })
    };
    three.restart_ahead(late, &address, "it finds the regions removed", are_removed).await;
    three.agree_on(CHILD).await;
    three.transfer(late).await;
    until("the late replica serves all rows", async || {
        three.node(late).scan_of(CHILD).await.is_ok_and(|ids| ids == [1, 2, 3, 4, 11, 12])
    })
    .await;
    three.stop().await;
}

// R11.
#[tokio::test(flavor = "multi_thread")]
async fn abandoned_merge_leaves_the_regions_as_they_were() {
    let (mut three, leader) = with_two_regions().await;
    let node = three.node(leader);
    know_merge(&three, false);
    open(node).await.unwrap();
    fence(node).await.unwrap();
    // The next leader abandons it.
    three.nodes[leader].take().unwrap().stop().await;
    let next = three.leader_of(LEFT).await;
    let node = three.node(next);
    know_merge(&three, true);
    assert_eq!(reason(merge(node).await), Some(Reason::InvalidArgument));
    abandon(node).await.unwrap();
    abandon(node).await.unwrap();
    // Calls of the time before are delayed.
    know_merge(&three, false);
    for late in [open(node).await, fence(node).await, merge(node).await] {
        assert_eq!(reason(late), Some(Reason::ProcedureSuperseded));
    }
    node.write(to(LEFT, write(1, 3, &[3]))).await.unwrap();
    let flushed = v1::FlushRegionRequest { group_id: GROUP, region_id: LEFT, by_node: false };
    let flushed =
        v1::region_admin_server::RegionAdmin::flush_region(&node.admin, Request::new(flushed));
    assert_eq!(flushed.await.unwrap().into_inner().rows, 1);
    assert_eq!(node.scan_of(LEFT).await.unwrap(), [1, 2, 3]);
    assert_eq!(node.scan_of(RIGHT).await.unwrap(), [11, 12]);
    three.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn group_ends_a_fence_that_lasts_too_long() {
    let (three, leader) = with_options(split::impatient()).await;
    let node = three.node(leader);
    know_merge(&three, false);
    open(node).await.unwrap();
    fence(node).await.unwrap();
    for (region, producer, id) in [(LEFT, 1, 3), (RIGHT, 2, 13)] {
        until("the region takes writes again", async || {
            node.write(to(region, write(producer, 3, &[id]))).await.is_ok()
        })
        .await;
    }
    // A merge that comes later has no effect.
    for late in [fence(node).await, merge(node).await] {
        assert_eq!(reason(late), Some(Reason::ProcedureSuperseded));
    }
    let replica = node.groups.get(GroupId(GROUP)).unwrap();
    for region in [LEFT, RIGHT] {
        let region = replica.region(RegionId(region)).unwrap().region;
        until("the manifest is restored", async || !region.is_sealed()).await;
    }
    assert_eq!(node.scan_of(LEFT).await.unwrap(), [1, 2, 3]);
    three.stop().await;
}
