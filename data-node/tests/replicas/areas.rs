//! Tests of file adoption: repeats across owners, staging and publication across owners, copies;
//! and of every operation on a node that does not own the region.

use bytes::Bytes;
use tidewater_common::refusal::Refusal;
use tidewater_data_node::options::GroupOptions;
use tidewater_proto::v1::data_server::Data;
use tidewater_proto::v1::group_control_server::GroupControl;
use tidewater_proto::v1::*;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::cluster::{GROUP, Node, REGION, region, schema, until, write};
use super::three::ThreeNodes;

pub(super) fn area(number: u128) -> Bytes {
    Bytes::copy_from_slice(Uuid::from_u128(number).as_bytes())
}

fn step(number: u64, step: u32) -> Option<ProcedureStep> {
    Some(ProcedureStep { number, step })
}

fn refusal_reason<T>(reply: Result<Response<T>, Status>) -> Option<Reason> {
    reply.err().map(|status| Refusal::from(status).reason)
}

fn files_of(ids: &[i64]) -> WriteFilesRequest {
    let rows = write(1, 2, ids);
    WriteFilesRequest {
        group_id: GROUP,
        region_id: REGION,
        catalog_version: 1,
        schema_version: 1,
        row_count: rows.row_count,
        rows: rows.rows,
    }
}

pub(super) fn adoption(area_id: Bytes, file_ids: Vec<Bytes>, stage: bool) -> AdoptFilesRequest {
    AdoptFilesRequest {
        group_id: GROUP,
        region_id: REGION,
        catalog_version: 1,
        schema_version: 1,
        area_id,
        file_ids,
        stage,
    }
}

impl Node {
    pub(super) async fn write_files(&self, ids: &[i64]) -> Vec<Bytes> {
        let written = self.data.write_files(Request::new(files_of(ids))).await.unwrap();
        written.into_inner().file_ids
    }

    pub(super) async fn adopt(&self, request: &AdoptFilesRequest) -> Result<u32, Refusal> {
        let reply = self.data.adopt_files(Request::new(request.clone())).await;
        reply.map(|reply| reply.into_inner().files).map_err(Refusal::from)
    }

    fn open_area(&self, area_id: Bytes) -> OpenAreaRequest {
        let header = self.header();
        let deadline_ms = 4_000_000_000_000;
        let step = step(1, 1);
        OpenAreaRequest { header, group_id: GROUP, region_id: REGION, area_id, deadline_ms, step }
    }

    fn close_area(&self, area_id: Bytes, publish: bool) -> CloseAreaRequest {
        CloseAreaRequest {
            header: self.header(),
            group_id: GROUP,
            region_id: REGION,
            area_id,
            publish,
            step: step(1, 2),
            ..CloseAreaRequest::default()
        }
    }
}

/// Stops the leader and waits for the next one.
async fn fail_over(three: &mut ThreeNodes, leader: usize) -> usize {
    three.nodes[leader].take().unwrap().stop().await;
    three.leader().await
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_adoption_of_files_takes_effect_once_across_owners() {
    let mut three = ThreeNodes::start(GroupOptions::default()).await;
    let leader = three.leader().await;
    let node = three.node(leader);
    node.write(write(1, 1, &[])).await.unwrap();
    node.write(write(1, 2, &[1, 2])).await.unwrap();
    let files = node.write_files(&[3, 4, 5]).await;
    assert_eq!(
        node.scan().await.unwrap(),
        [1, 2],
        "rows of a file are invisible before its adoption"
    );
    let request = adoption(area(9), files, false);
    for _ in 0..2 {
        assert_eq!(node.adopt(&request).await.unwrap(), 1);
        assert_eq!(node.scan().await.unwrap(), [1, 2, 3, 4, 5]);
    }
    // A second adoption under another area id would duplicate the rows.
    let again = AdoptFilesRequest { area_id: area(10), ..request.clone() };
    assert_eq!(node.adopt(&again).await.unwrap_err().reason, Reason::InvalidArgument);
    node.compact().await.unwrap();
    let next = fail_over(&mut three, leader).await;
    let node = three.node(next);
    // The new owner recognizes the adoption although the files were compacted in the meantime.
    assert_eq!(node.adopt(&request).await.unwrap(), 1);
    until("each row is present once", async || {
        node.scan().await.is_ok_and(|ids| ids == [1, 2, 3, 4, 5])
    })
    .await;
    three.agree().await;
    three.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn next_owner_closes_a_staging_area_of_its_predecessor() {
    for publish in [true, false] {
        let mut three = ThreeNodes::start(GroupOptions::default()).await;
        let leader = three.leader().await;
        let node = three.node(leader);
        node.write(write(1, 1, &[])).await.unwrap();
        node.write(write(1, 2, &[1])).await.unwrap();
        let files = node.write_files(&[2]).await;
        let stage = adoption(area(9), files, true);
        assert_eq!(node.adopt(&stage).await.unwrap_err().reason, Reason::LoadEnded);
        for _ in 0..2 {
            node.control.open_area(Request::new(node.open_area(area(9)))).await.unwrap();
            assert_eq!(node.adopt(&stage).await.unwrap(), 1);
        }
        let next = fail_over(&mut three, leader).await;
        let node = three.node(next);
        let more = node.write_files(&[3]).await;
        assert_eq!(node.adopt(&adoption(area(9), more, true)).await.unwrap(), 2);
        assert_eq!(node.scan().await.unwrap(), [1]);
        for _ in 0..2 {
            let close = node.close_area(area(9), publish);
            node.control.close_area(Request::new(close)).await.unwrap();
        }
        let expected: &[i64] = if publish { &[1, 2, 3] } else { &[1] };
        assert_eq!(node.scan().await.unwrap(), expected);
        assert_eq!(node.adopt(&stage).await.unwrap_err().reason, Reason::LoadEnded);
        // Every replica agrees with the log.
        three.agree().await;
        three.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn operations_on_a_follower_are_refused_without_changes() {
    let three = ThreeNodes::start(GroupOptions::default()).await;
    let leader = three.leader().await;
    three.node(leader).write(write(1, 1, &[])).await.unwrap();
    three.node(leader).write(write(1, 2, &[1, 2])).await.unwrap();
    let files = three.node(leader).write_files(&[3]).await;
    three.agree().await;
    let before = three.node(leader).info().await.unwrap();

    let node = three.node((leader + 1) % 3);
    let group_id = GROUP;
    let region_id = REGION;
    let step = step(1, 1);
    let alter = AlterRegionRequest {
        header: node.header(),
        group_id,
        region_id,
        schema: Some((&schema()).into()),
        options: None,
        step,
        check_only: false,
    };
    let header = node.header();
    let truncate = TruncateRegionRequest { header, group_id, region_id, step };
    let copy = CopyRegionRequest {
        header: node.header(),
        group_id,
        region_id,
        source_table_id: 3,
        source_region_id: 1,
        source_incarnation: 1,
        step,
    };
    let drop = DropRegionRequest { header: node.header(), group_id, region_id };
    let adopt = |stage| adoption(area(9), files.clone(), stage);
    let control = &node.control;
    let refusals = [
        ("open", node.open_region().await.err().map(|refusal| refusal.reason)),
        ("alter", refusal_reason(control.alter_region(Request::new(alter)).await)),
        ("truncate", refusal_reason(control.truncate_region(Request::new(truncate)).await)),
        (
            "open area",
            refusal_reason(control.open_area(Request::new(node.open_area(area(9)))).await),
        ),
        (
            "close area",
            refusal_reason(control.close_area(Request::new(node.close_area(area(9), true))).await),
        ),
        ("copy", refusal_reason(control.copy_region(Request::new(copy)).await)),
        ("drop", {
            node.forget_region();
            refusal_reason(control.drop_region(Request::new(drop)).await)
        }),
        ("write", node.write(write(1, 3, &[9])).await.err().map(|refusal| refusal.reason)),
        ("write files", refusal_reason(node.data.write_files(Request::new(files_of(&[4]))).await)),
        ("adopt", refusal_reason(node.data.adopt_files(Request::new(adopt(false))).await)),
        ("stage", refusal_reason(node.data.adopt_files(Request::new(adopt(true))).await)),
        ("scan", node.scan().await.err().map(|refusal| refusal.reason)),
        ("get", node.get(&[1]).await.err().map(|refusal| refusal.reason)),
        ("flush", node.flush().await.err().map(|refusal| refusal.reason)),
        ("compact", node.compact().await.err().map(|refusal| refusal.reason)),
    ];
    for (operation, reason) in refusals {
        assert_eq!(reason, Some(Reason::NotLeader), "{operation}");
    }
    let after = three.node(leader).info().await.unwrap();
    assert_eq!((before.digest, before.manifest_version), (after.digest, after.manifest_version));
    three.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_adoptions_of_a_file_take_effect_once() {
    let three = ThreeNodes::start(GroupOptions::default()).await;
    let node = three.node(three.leader().await);
    node.write(write(1, 1, &[])).await.unwrap();
    for round in 0..5_u32 {
        let id = i64::from(round) + 1;
        let files = node.write_files(&[id]).await;
        let request = adoption(area(100 + u128::from(round)), files, false);
        let (first, second) = tokio::join!(node.adopt(&request), node.adopt(&request));
        assert_eq!((first.unwrap(), second.unwrap()), (1, 1));
        assert_eq!(node.scan().await.unwrap(), (1..=id).collect::<Vec<_>>());
    }
    // The caller of the first adoption is cancelled; the adoption continues.
    let request = adoption(area(200), node.write_files(&[9]).await, false);
    assert!(futures::poll!(Box::pin(node.adopt(&request))).is_pending());
    assert_eq!(node.adopt(&request).await.unwrap(), 1);
    assert_eq!(node.scan().await.unwrap(), [1, 2, 3, 4, 5, 9]);
    three.stop().await;
}

/// A descriptor of an empty region to be filled with the files of the first one.
fn second() -> RegionDescriptor {
    RegionDescriptor { region_id: REGION + 1, table_id: 4, ..region() }
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_copies_of_a_region_have_all_rows() {
    let mut three = ThreeNodes::start(GroupOptions::default()).await;
    let leader = three.leader().await;
    let node = three.node(leader);
    node.write(write(1, 1, &[])).await.unwrap();
    node.write(write(1, 2, &[1, 2, 3])).await.unwrap();
    let flushed = node.flush().await.unwrap().flushed_sequence;
    let open = OpenRegionRequest {
        header: node.header(),
        group_id: GROUP,
        region: Some(second()),
        base: flushed + 1_000_000,
    };
    node.control.open_region(Request::new(open)).await.unwrap();
    let copy = |node: &Node| CopyRegionRequest {
        header: node.header(),
        group_id: GROUP,
        region_id: REGION + 1,
        source_table_id: 3,
        source_region_id: REGION,
        source_incarnation: 1,
        step: step(1, 1),
    };
    let copies = (0..4).map(|_| node.control.copy_region(Request::new(copy(node))));
    for reply in futures::future::join_all(copies).await {
        reply.unwrap();
    }
    let next = fail_over(&mut three, leader).await;
    let node = three.node(next);
    node.control.copy_region(Request::new(copy(node))).await.unwrap();
    until("the copy has the rows", async || node.count(REGION + 1).await == Some(3)).await;
    three.stop().await;
}

// Published files are in no replica's memory.
#[tokio::test(flavor = "multi_thread")]
async fn new_leader_serves_adopted_rows_or_refuses_reads() {
    let mut three = ThreeNodes::start(GroupOptions::default()).await;
    for round in 0..2_u32 {
        let leader = three.leader().await;
        let node = three.node(leader);
        until("the region can be read", async || node.scan().await.is_ok()).await;
        let id = i64::from(round) + 1;
        let files = node.write_files(&[id]).await;
        let request = adoption(area(u128::from(round) + 1), files, false);
        node.adopt(&request).await.unwrap();
        if round == 1 {
            break;
        }
        let next = fail_over(&mut three, leader).await;
        let node = three.node(next);
        until("the new leader serves reads", async || match node.scan().await {
            Ok(ids) => {
                assert_eq!(ids, (1..=id).collect::<Vec<_>>(), "acknowledged rows are missing");
                true
            }
            Err(refusal) => {
                assert!(
                    matches!(refusal.reason, Reason::RegionLoading | Reason::NotLeader),
                    "{refusal:?}"
                );
                false
            }
        })
        .await;
    }
    three.stop().await;
}
