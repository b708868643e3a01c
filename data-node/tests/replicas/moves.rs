//! Moves of a region between two groups of one node, step by step.

use bytes::Bytes;
use tidewater_common::feature_level::FeatureLevel;
use tidewater_common::ids::{GroupId, RegionId, TableId};
use tidewater_common::keys::global_key;
use tidewater_common::refusal::Refusal;
use tidewater_data_node::group::entry;
use tidewater_data_node::options::GroupOptions;
use tidewater_proto::v1::group_control_server::GroupControl;
use tidewater_proto::v1::region_admin_server::RegionAdmin;
use tidewater_proto::v1::watch_event::Event;
use tidewater_proto::v1::{self, HoldMode, Reason, ScanRequest, WriteRequest};
use tonic::Request;

use super::cluster::*;
use super::single::{node_config, start_with_region};
use super::split::impatient;

const SOURCE: u64 = GROUP;
const TARGET: u64 = 6;

/// A move of the region, as the catalog has it.
#[derive(Debug, Clone, Copy)]
struct Move {
    number: u64,
    from: u64,
    to: u64,
}

const FIRST: Move = Move { number: 4, from: SOURCE, to: TARGET };
const BACK: Move = Move { number: 8, from: TARGET, to: SOURCE };

impl Move {
    fn step(self, step: u32) -> Option<v1::ProcedureStep> {
        Some(v1::ProcedureStep { number: self.number, step })
    }

    /// Lets the node know that the catalog moves the region.
    fn know(self, node: &Node, abandoning: bool) {
        let change = v1::RouteChange {
            number: self.number,
            route_id: REGION,
            child_ids: Vec::new(),
            split_keys: Vec::new(),
            abandoning,
            successor_id: 0,
            target_group_id: self.to,
        };
        node.know_changes(vec![change]);
        let route = v1::Route {
            route_id: REGION,
            start: global_key(TableId(3), &[]).into(),
            end: Some(global_key(TableId(4), &[]).into()),
            group_id: self.from,
            ..v1::Route::default()
        };
        let delta =
            v1::CatalogDelta { revision: 2, route_upserts: vec![route], ..Default::default() };
        node.catalog.follow(&Event::Delta(delta));
    }

    async fn hold(
        self,
        node: &Node,
        (held, mode, at): (bool, HoldMode, u32),
    ) -> Result<(), Refusal> {
        let request = v1::HoldRegionRequest {
            header: node.header(),
            group_id: self.from,
            region_id: REGION,
            held,
            step: self.step(at),
            mode: mode.into(),
            target_group_id: self.to,
        };
        node.control.hold_region(Request::new(request)).await?;
        Ok(())
    }

    async fn fence(self, node: &Node) -> Result<(), Refusal> {
        self.hold(node, (true, HoldMode::Open, 1)).await?;
        self.hold(node, (true, HoldMode::Departing, 3)).await
    }

    async fn abandon(self, node: &Node) -> Result<(), Refusal> {
        self.hold(node, (false, HoldMode::Departing, 5)).await
    }

    async fn prepare(self, node: &Node) -> Result<(), Refusal> {
        let request = v1::PrepareRegionRequest {
            header: node.header(),
            group_id: self.to,
            region_id: REGION,
            step: self.step(2),
        };
        node.control.prepare_region(Request::new(request)).await?;
        Ok(())
    }

    async fn departing(self, node: &Node) -> Result<v1::GetDepartingRegionResponse, Refusal> {
        let request = v1::GetDepartingRegionRequest {
            header: node.header(),
            group_id: self.from,
            region_id: REGION,
            step: self.step(3),
        };
        let departing = node.control.get_departing_region(Request::new(request)).await?;
        Ok(departing.into_inner())
    }

    async fn receive(
        self,
        node: &Node,
        left: &v1::GetDepartingRegionResponse,
    ) -> Result<(), Refusal> {
        let request = v1::ReceiveRegionRequest {
            header: node.header(),
            group_id: self.to,
            region_id: REGION,
            region: left.region.clone(),
            done_sequence: left.done_sequence,
            level: left.level,
            step: self.step(4),
        };
        node.control.receive_region(Request::new(request)).await?;
        Ok(())
    }

    async fn release(
        self,
        node: &Node,
        (group, owner): (u64, u64),
        at: u32,
    ) -> Result<(), Refusal> {
        let request = v1::ReleaseRegionRequest {
            header: node.header(),
            group_id: group,
            region_id: REGION,
            owner_group_id: owner,
            step: self.step(at),
        };
        node.control.release_region(Request::new(request)).await?;
        Ok(())
    }

    async fn activate(self, node: &Node) -> Result<(), Refusal> {
        let request = v1::ActivateRegionRequest {
            header: node.header(),
            group_id: self.to,
            region_id: REGION,
            step: self.step(7),
        };
        node.control.activate_region(Request::new(request)).await?;
        Ok(())
    }

    /// All steps; each of them twice.
    async fn complete(self, node: &Node) {
        self.know(node, false);
        for _ in 0..2 {
            self.prepare(node).await.unwrap();
        }
        self.fence(node).await.unwrap();
        for _ in 0..2 {
            let left = self.departing(node).await.unwrap();
            self.receive(node, &left).await.unwrap();
        }
        for _ in 0..2 {
            self.release(node, (self.from, self.to), 6).await.unwrap();
        }
        for _ in 0..2 {
            self.activate(node).await.unwrap();
        }
    }
}

fn reason<T>(result: Result<T, Refusal>) -> Option<Reason> {
    result.err().map(|refusal| refusal.reason)
}

fn to(group_id: u64, write: WriteRequest) -> WriteRequest {
    WriteRequest { group_id, ..write }
}

async fn scan(node: &Node, group_id: u64) -> Result<Vec<i64>, Refusal> {
    let count = ScanRequest {
        group_id,
        region_id: REGION,
        schema_version: 1,
        projection: vec![1, 2],
        ..Default::default()
    };
    node.scan_with(count).await
}

/// Waits until a group shows these rows: it loads the manifest in the background.
async fn expect_rows(node: &Node, group: u64, expected: &[i64]) {
    until("the group serves all rows", async || {
        scan(node, group).await.is_ok_and(|ids| ids == expected)
    })
    .await;
}

/// Number of data files in the store.
fn data_files(folder: &tempfile::TempDir) -> usize {
    let mut folders = vec![folder.path().join("store")];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            files += usize::from(path.extension().is_some_and(|name| name == "parquet"));
            if path.is_dir() {
                folders.push(path);
            }
        }
    }
    files
}

async fn flush(node: &Node, group_id: u64) -> u64 {
    let request = v1::FlushRegionRequest { group_id, region_id: REGION, by_node: false };
    node.admin.flush_region(Request::new(request)).await.unwrap().into_inner().rows
}

/// Raises both groups of a node, and leads the second one.
async fn with_target(node: &Node) {
    let target = node.groups.start(GroupId(TARGET)).await.unwrap();
    if node.leads_group(TARGET) {
        return;
    }
    let member = tidewater_raft_store::Member::new(node.address.clone());
    node.groups.initialize(&target, [(1, member)].into()).await.unwrap();
    until("the node leads the second group", async || node.leads_group(TARGET)).await;
    for group in [SOURCE, TARGET] {
        let replica = node.groups.get(GroupId(group)).unwrap();
        for level in 2..=FeatureLevel::HIGHEST.get() {
            let raised = entry::level_raised(FeatureLevel::new(level));
            replica.propose(raised, LIMIT).await.unwrap();
        }
    }
}

/// A node with both groups. Producer 1 has written row 1, in a file, and row 2, in memory, with serial 3.
async fn with_rows(folder: &tempfile::TempDir, options: GroupOptions) -> (Node, NodeConfig) {
    let config = node_config(folder, options).await;
    let node = start_with_region(&config).await;
    with_target(&node).await;
    node.write(write(1, 1, &[])).await.unwrap();
    node.write(write(1, 2, &[1])).await.unwrap();
    assert_eq!(node.flush().await.unwrap().rows, 1);
    node.write(write(1, 3, &[2])).await.unwrap();
    (node, config)
}

// T7, S10: the leader of each group stays in its term.
#[tokio::test(flavor = "multi_thread")]
async fn region_moves_and_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let (node, _) = with_rows(&folder, GroupOptions::default()).await;
    assert_eq!(data_files(&folder), 1);
    FIRST.complete(&node).await;
    expect_rows(&node, TARGET, &[1, 2]).await;
    // No file is copied: the second one has the row that was in memory.
    assert_eq!(data_files(&folder), 2);
    let moved = scan(&node, SOURCE).await.unwrap_err();
    assert_eq!(moved.reason, Reason::RouteMoved);
    assert!(moved.message.contains("group 6"), "{moved}");
    // A write that the other group has acknowledged is a repeat.
    assert!(node.write(to(TARGET, write(1, 3, &[2]))).await.unwrap().repeated);
    node.write(to(TARGET, write(1, 4, &[3]))).await.unwrap();
    assert_eq!(reason(node.write(write(1, 5, &[4])).await), Some(Reason::RouteMoved));
    assert_eq!(flush(&node, TARGET).await, 1);
    node.write(to(TARGET, write(1, 5, &[4]))).await.unwrap();

    BACK.complete(&node).await;
    expect_rows(&node, SOURCE, &[1, 2, 3, 4]).await;
    assert!(node.write(write(1, 5, &[4])).await.unwrap().repeated);
    node.write(write(1, 6, &[5])).await.unwrap();
    assert_eq!(flush(&node, SOURCE).await, 1);
    expect_rows(&node, SOURCE, &[1, 2, 3, 4, 5]).await;
    // Calls of the first move are delayed.
    FIRST.know(&node, false);
    let left = FIRST.departing(&node).await;
    assert_eq!(reason(left), Some(Reason::ProcedureSuperseded));
    FIRST.release(&node, (SOURCE, TARGET), 6).await.unwrap();
    assert_eq!(reason(FIRST.prepare(&node).await), Some(Reason::ProcedureSuperseded));
    assert_eq!(reason(FIRST.activate(&node).await), Some(Reason::RouteMoved));
    expect_rows(&node, SOURCE, &[1, 2, 3, 4, 5]).await;
    node.stop().await;
}

// Its base is above all that its manifest knows.
#[tokio::test(flavor = "multi_thread")]
async fn region_without_new_rows_moves_again() {
    let folder = tempfile::tempdir().unwrap();
    let (node, _) = with_rows(&folder, GroupOptions::default()).await;
    FIRST.complete(&node).await;
    BACK.complete(&node).await;
    expect_rows(&node, SOURCE, &[1, 2]).await;
    node.write(write(1, 4, &[3])).await.unwrap();
    assert_eq!(flush(&node, SOURCE).await, 1);
    expect_rows(&node, SOURCE, &[1, 2, 3]).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn arriving_region_is_not_served() {
    let folder = tempfile::tempdir().unwrap();
    let (node, config) = with_rows(&folder, GroupOptions::default()).await;
    // The catalog decides: without it, nothing is moved.
    let none = v1::GetDepartingRegionResponse::default();
    for refused in [
        FIRST.prepare(&node).await,
        FIRST.fence(&node).await,
        FIRST.receive(&node, &none).await,
        FIRST.release(&node, (SOURCE, TARGET), 6).await,
        FIRST.activate(&node).await,
    ] {
        assert_eq!(reason(refused), Some(Reason::InvalidArgument));
    }
    FIRST.know(&node, false);
    FIRST.prepare(&node).await.unwrap();
    assert_eq!(reason(FIRST.departing(&node).await), Some(Reason::ProcedureSuperseded));
    FIRST.fence(&node).await.unwrap();
    let fenced = node.write(write(1, 4, &[3])).await.unwrap_err();
    assert_eq!(fenced.reason, Reason::RouteWriteFenced);
    expect_rows(&node, SOURCE, &[1, 2]).await;
    let early = FIRST.release(&node, (SOURCE, TARGET), 6).await;
    assert_eq!(reason(early), Some(Reason::RouteBusy), "the target does not own it yet");
    let left = FIRST.departing(&node).await.unwrap();
    FIRST.receive(&node, &left).await.unwrap();
    // Until the source has released it, the target serves nothing; the source serves reads.
    for refused in
        [reason(scan(&node, TARGET).await), reason(node.write(to(TARGET, write(1, 4, &[3]))).await)]
    {
        assert_eq!(refused, Some(Reason::RouteWriteFenced));
    }
    expect_rows(&node, SOURCE, &[1, 2]).await;
    FIRST.release(&node, (SOURCE, TARGET), 6).await.unwrap();
    node.stop().await;

    let node = Node::start(&config).await;
    until("the node leads both groups", async || node.leads() && node.leads_group(TARGET)).await;
    until("the region is not served", async || {
        reason(scan(&node, TARGET).await) == Some(Reason::RouteWriteFenced)
    })
    .await;
    FIRST.know(&node, false);
    FIRST.activate(&node).await.unwrap();
    expect_rows(&node, TARGET, &[1, 2]).await;
    assert_eq!(reason(scan(&node, SOURCE).await), Some(Reason::RouteMoved));
    node.write(to(TARGET, write(1, 4, &[3]))).await.unwrap();
    node.stop().await;
}

// T4: the target is delayed until the source has abandoned the move.
#[tokio::test(flavor = "multi_thread")]
async fn source_keeps_a_region_not_received_in_time() {
    let folder = tempfile::tempdir().unwrap();
    let (node, _) = with_rows(&folder, impatient()).await;
    FIRST.know(&node, false);
    FIRST.prepare(&node).await.unwrap();
    FIRST.fence(&node).await.unwrap();
    let left = FIRST.departing(&node).await.unwrap();
    until("the region takes writes again", async || node.write(write(1, 4, &[3])).await.is_ok())
        .await;
    let late = FIRST.receive(&node, &left).await;
    assert_eq!(reason(late), Some(Reason::ProcedureSuperseded));
    assert_eq!(reason(FIRST.departing(&node).await), Some(Reason::ProcedureSuperseded));
    // The meta leader abandons the move, too.
    FIRST.know(&node, true);
    FIRST.abandon(&node).await.unwrap();
    FIRST.release(&node, (TARGET, SOURCE), 5).await.unwrap();
    assert_eq!(flush(&node, SOURCE).await, 1);
    expect_rows(&node, SOURCE, &[1, 2, 3]).await;
    // A later move of the region.
    let again = Move { number: 5, ..FIRST };
    again.complete(&node).await;
    expect_rows(&node, TARGET, &[1, 2, 3]).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn received_region_is_not_kept_by_the_source() {
    let folder = tempfile::tempdir().unwrap();
    let (node, _) = with_rows(&folder, impatient()).await;
    FIRST.know(&node, false);
    FIRST.prepare(&node).await.unwrap();
    FIRST.fence(&node).await.unwrap();
    let left = FIRST.departing(&node).await.unwrap();
    FIRST.receive(&node, &left).await.unwrap();
    FIRST.know(&node, true);
    assert_eq!(reason(FIRST.abandon(&node).await), Some(Reason::RouteMoved));
    // Longer than the source waits.
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    let fenced = node.write(write(1, 4, &[3])).await.unwrap_err();
    assert_eq!(fenced.reason, Reason::RouteWriteFenced);
    expect_rows(&node, SOURCE, &[1, 2]).await;
    FIRST.know(&node, false);
    FIRST.release(&node, (SOURCE, TARGET), 6).await.unwrap();
    FIRST.activate(&node).await.unwrap();
    expect_rows(&node, TARGET, &[1, 2]).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn state_of_another_region_is_not_received() {
    let folder = tempfile::tempdir().unwrap();
    let (node, _) = with_rows(&folder, GroupOptions::default()).await;
    FIRST.know(&node, false);
    FIRST.prepare(&node).await.unwrap();
    FIRST.fence(&node).await.unwrap();
    let left = FIRST.departing(&node).await.unwrap();
    for region in [Bytes::new(), Bytes::from_static(b"\xff\xff"), left.region.slice(1..)] {
        let forged = v1::GetDepartingRegionResponse { region, ..left };
        let refused = FIRST.receive(&node, &forged).await;
        assert_eq!(reason(refused), Some(Reason::InvalidArgument));
    }
    // A manifest without all decisions.
    let ahead = v1::GetDepartingRegionResponse { done_sequence: u64::MAX, ..left.clone() };
    assert!(FIRST.receive(&node, &ahead).await.is_err());
    let target = node.groups.get(GroupId(TARGET)).unwrap();
    assert_eq!(reason(target.region(RegionId(REGION))), Some(Reason::RegionNotFound));
    FIRST.receive(&node, &left).await.unwrap();
    node.stop().await;
}
