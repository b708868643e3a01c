//! Tests of calls to a node with a single-member group while the region is altered.

use arrow::array::{ArrayRef, Int64Array};
use tempfile::TempDir;
use tidewater_common::catalog_hint::{CatalogHint, RegionPresence};
use tidewater_common::ids::{Epoch, GroupId, RegionId, Sequence};
use tidewater_common::rows::{decode_batch, decode_stream, encode_batch, encode_stream};
use tidewater_events::testing::CollectingRecorder;
use tidewater_proto::v1::{self, RowsFormat};
use tidewater_region_engine::manifest::AreaId;
use tidewater_region_engine::read::memory::{NestedBudgets, ScanMemory};
use tidewater_region_engine::region::{
    Cause, Obligation, PendingObligation, Publication, PublicationContent,
};
use tidewater_region_engine::storage::Storage;
use uuid::Uuid;

use arrow::array::RecordBatch;
use futures::StreamExt;
use tonic::Code;
use tonic::codegen::{Service, http};

use super::*;
use crate::group::entry;
use crate::group::replica::GroupReplica;
use crate::group::testing::{options, region, schema, write};
use crate::groups::tests::{GROUP, members, node, node_with, stop, until};
use crate::node_events::testing::events_with;

const LIMIT: std::time::Duration = std::time::Duration::from_secs(30);

/// A node that leads group 5, and in it region 7 at schema version 1.
async fn serving(directory: &TempDir) -> (Arc<Groups>, Arc<GroupReplica>) {
    let groups = node(directory.path());
    let replica = serve(&groups).await;
    (groups, replica)
}

async fn serve(groups: &Arc<Groups>) -> Arc<GroupReplica> {
    let replica = groups.start(GROUP).await.unwrap();
    groups.initialize(&replica, members()).await.unwrap();
    until("the replica leads", async || replica.require_leader().is_ok()).await;
    let opened = entry::opened(region(7, None, None), Sequence(0));
    replica.propose(opened, LIMIT).await.unwrap();
    assert_eq!(replica.group(), GroupId(5));
    replica
}

fn scan_limits() -> ScanLimits {
    ScanLimits::new(1, Arc::new(ScanMemory::new(8 << 20)))
}

/// A request to region 7 for the row of key 1.
fn get_1() -> GetRequest {
    let ids: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(vec![1]))];
    let keys = RecordBatch::try_new(schema(1).key_arrow(), ids).unwrap();
    GetRequest {
        group_id: 5,
        region_id: 7,
        catalog_version: 1,
        schema_version: 1,
        keys: encode_batch(&keys).unwrap(),
        projection: vec![1],
        rows_format: 0,
        as_of: None,
    }
}

/// Alters region 7 to schema version 2.
async fn alter(replica: &GroupReplica) {
    let altered = entry::altered(v1::RegionAltered {
        region_id: 7,
        schema: Some((&schema(2)).into()),
        options: Some((&options()).into()),
        step: Some(v1::ProcedureStep { number: 1, step: 1 }),
    });
    replica.propose(altered, LIMIT).await.unwrap();
    let hosted = replica.region(RegionId(7)).unwrap();
    assert_eq!(hosted.descriptor.schema_version().get(), 2);
}

// The columns would otherwise be looked up in a schema that the client does not know.
#[tokio::test]
async fn get_is_refused_if_an_alter_overlaps_its_confirmation() {
    let directory = tempfile::tempdir().unwrap();
    let (groups, replica) = serving(&directory).await;
    {
        let mut get = Box::pin(get::call(&groups, get_1()));
        // The get is admitted and has started its confirmation.
        assert!(futures::poll!(&mut get).is_pending());
        alter(&replica).await;
        assert_eq!(get.await.unwrap_err().reason, Reason::SchemaVersionStale);
    }
    drop(replica);
    stop(groups).await;
}

// The client writes the files again, with the columns that the table has now.
#[tokio::test]
async fn adoption_that_an_alter_overtakes_is_stale() {
    let directory = tempfile::tempdir().unwrap();
    let (groups, replica) = serving(&directory).await;
    let slots = Arc::new(Semaphore::new(1));
    let adopt = |schema_version| AdoptFilesRequest {
        group_id: 5,
        region_id: 7,
        catalog_version: 1,
        schema_version,
        area_id: Uuid::new_v4().as_bytes().to_vec().into(),
        file_ids: vec![Uuid::new_v4().as_bytes().to_vec().into()],
        stage: false,
    };
    {
        let mut adopting = Box::pin(files::adopt(&groups, &slots, adopt(1)));
        // The adoption is admitted, and its owner has yet to answer.
        assert!(futures::poll!(&mut adopting).is_pending());
        alter(&replica).await;
        assert_eq!(adopting.await.unwrap_err().reason, Reason::SchemaVersionStale);
    }
    let unfit = files::adopt(&groups, &slots, adopt(2)).await.unwrap_err();
    assert_eq!(unfit.reason, Reason::InvalidArgument, "{unfit}");
    drop(replica);
    stop(groups).await;
}

#[tokio::test]
async fn get_beyond_the_memory_of_point_reads_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (groups, replica) = serving(&directory).await;
    let memory = groups.context().env.scan_memory.clone();
    let all = NestedBudgets::new([memory.point_reads().clone()]);
    let limit = memory.point_reads().limit();
    let held = all.lease(limit, limit, std::time::Duration::ZERO).await.unwrap();
    let refused = get::call(&groups, get_1()).await.unwrap_err();
    assert_eq!(refused.reason, Reason::Overloaded);
    assert!(refused.retry_after.is_some(), "{refused}");
    drop(held);
    get::call(&groups, get_1()).await.unwrap();
    assert_eq!(memory.point_reads().used(), 0);
    drop(replica);
    stop(groups).await;
}

#[tokio::test]
async fn read_without_memory_is_recorded_once_a_minute() {
    let directory = tempfile::tempdir().unwrap();
    let recorder = Arc::new(CollectingRecorder::default());
    let events = events_with(recorder.clone(), Arc::default(), Duration::ZERO);
    let groups = node_with(directory.path(), Storage::memory(), events);
    let replica = serve(&groups).await;
    let service = DataService::new(groups.clone(), CancellationToken::new());
    let memory = groups.context().env.scan_memory.clone();
    let all = NestedBudgets::new([memory.point_reads().clone()]);
    let limit = memory.point_reads().limit();
    let held = all.lease(limit, limit, Duration::ZERO).await.unwrap();
    for _ in 0..2 {
        let refused = service.get(Request::new(get_1())).await.unwrap_err();
        assert_eq!(Refusal::from(refused).reason, Reason::Overloaded);
    }
    let refusals = recorder.types().iter().filter(|of| *of == "room_refused").count();
    assert_eq!(refusals, 1);
    drop((held, service, replica));
    stop(groups).await;
}

// The client waits for that version, and does not fetch the catalog during the wait.
#[tokio::test]
async fn stale_call_receives_a_hint_of_its_region() {
    let directory = tempfile::tempdir().unwrap();
    let (groups, replica) = serving(&directory).await;
    alter(&replica).await;
    let service = DataService::new(groups.clone(), CancellationToken::new());
    let hint = |status: Status| Refusal::from(status).catalog_hint.map(|hint| *hint);
    let stale = service.get(Request::new(get_1())).await.unwrap_err();
    let Some(CatalogHint::Region { region, presence: RegionPresence::Served(served) }) =
        hint(stale)
    else {
        panic!("no hint")
    };
    assert_eq!((region, served.schema_version.get()), (RegionId(7), 2));
    let stale = service.write(Request::new(write(1, 1, &[]))).await.unwrap_err();
    assert!(hint(stale).is_some());
    let unknown = ScanRequest { group_id: 5, region_id: 9, ..Default::default() };
    let unknown = service.scan(Request::new(unknown)).await.err().unwrap();
    let expected = CatalogHint::Region { region: RegionId(9), presence: RegionPresence::Unknown };
    assert_eq!(hint(unknown), Some(expected));
    // An error that no catalog would change.
    let invalid = GetRequest { schema_version: 2, keys: vec![1].into(), ..get_1() };
    let invalid = service.get(Request::new(invalid)).await.unwrap_err();
    assert_eq!(hint(invalid), None);
    drop((service, replica));
    stop(groups).await;
}

// The first reply was lost: a refusal would report that nothing was done.
#[tokio::test]
async fn write_repeated_after_an_alter_gets_its_first_reply() {
    let directory = tempfile::tempdir().unwrap();
    let (groups, replica) = serving(&directory).await;
    let opening = write::call(&groups, write(1, 1, &[])).await.unwrap().sequence;
    let numbered = |serial| WriteRequest { opening, ..write(1, serial, &[5]) };
    let first = write::call(&groups, numbered(2)).await.unwrap();
    assert!(!first.repeated);
    alter(&replica).await;
    let again = write::call(&groups, numbered(2)).await.unwrap();
    assert_eq!(again, WriteResponse { repeated: true, ..first });
    let next = write::call(&groups, numbered(3)).await.unwrap_err();
    assert_eq!(next.reason, Reason::SchemaVersionStale);
    drop(replica);
    stop(groups).await;
}

// No replica has the files in memory, and the previous owner may already have reported them to
// their loader.
#[tokio::test]
async fn reads_wait_for_published_files() {
    let directory = tempfile::tempdir().unwrap();
    let (groups, replica) = serving(&directory).await;
    let area = AreaId(Uuid::from_u128(4));
    let publication = Publication { area, epoch: Epoch(0), content: PublicationContent::Files };
    let cause = Cause { sequence: Sequence(1 << 40), procedure: None };
    let obligation = Obligation::Publish(publication);
    let hosted = replica.region(RegionId(7)).unwrap();
    until("the manifest is read", async || hosted.region.load().await.is_ok()).await;
    hosted.region.apply_obligation(PendingObligation { cause, obligation }).unwrap();
    assert_eq!(get::call(&groups, get_1()).await.unwrap_err().reason, Reason::RegionLoading);
    let scan = ScanRequest { group_id: 5, region_id: 7, schema_version: 1, ..Default::default() };
    let refused = scan::call(&groups, &scan_limits(), None, scan).await.err().unwrap();
    assert_eq!(refused.reason, Reason::RegionLoading);
    drop((hosted, replica));
    stop(groups).await;
}

/// A write of a stream with the rows of `write(..)`.
fn stream_write(serial: u64, keys: &[i64]) -> WriteRequest {
    let compact = write(1, serial, keys);
    let batch = decode_batch(&compact.rows, &schema(1).arrow()).unwrap();
    WriteRequest { rows: encode_stream(&batch).unwrap(), ..compact }
}

#[tokio::test]
async fn streams_are_written_and_read() {
    let directory = tempfile::tempdir().unwrap();
    let (groups, replica) = serving(&directory).await;
    let opening = write::call(&groups, write(1, 1, &[])).await.unwrap().sequence;
    let first = WriteRequest { opening, ..stream_write(2, &[1, 5]) };
    assert_eq!(write::call(&groups, first.clone()).await.unwrap().rows_applied, 2);
    // The two encodings of a write are the same write.
    let repeated = WriteRequest { opening, ..write(1, 2, &[1, 5]) };
    assert!(write::call(&groups, repeated).await.unwrap().repeated);

    let stream = RowsFormat::Stream.into();
    let projection = vec![1];
    let expected = schema(1).key_arrow();
    let get = GetRequest { rows_format: stream, ..get_1() };
    let keys = decode_batch(&get.keys, &expected).unwrap();
    let get = GetRequest { keys: encode_stream(&keys).unwrap(), ..get };
    let found = get::call(&groups, get).await.unwrap().rows;
    assert_eq!(decode_stream(&found, &expected).unwrap().num_rows(), 1);

    let scan = ScanRequest {
        group_id: 5,
        region_id: 7,
        schema_version: 1,
        projection,
        rows_format: stream,
        ..Default::default()
    };
    let mut messages = scan::call(&groups, &scan_limits(), None, scan).await.unwrap();
    let rows = messages.next().await.unwrap().unwrap().rows;
    assert_eq!(decode_stream(&rows, &expected).unwrap().num_rows(), 2);
    drop((messages, replica));
    stop(groups).await;
}

#[tokio::test]
async fn long_lists_wait_for_memory_of_arguments() {
    let directory = tempfile::tempdir().unwrap();
    let (groups, replica) = serving(&directory).await;
    let memory = Arc::new(ScanMemory::new(8 << 20));
    let held = memory.account().arguments.lease(1 << 20, 0, LIMIT).await.unwrap();
    let limits = ScanLimits::new(1, memory.clone());
    let scan = |values: usize| ScanRequest {
        group_id: 5,
        region_id: 7,
        schema_version: 1,
        predicates: vec![v1::Predicate {
            column_id: 1,
            op: v1::CompareOp::In.into(),
            values: vec!["1".to_owned(); values],
        }],
        ..Default::default()
    };
    let refused = scan::call(&groups, &limits, None, scan(1_000)).await.err().unwrap();
    assert_eq!(refused.reason, Reason::Overloaded);
    drop(scan::call(&groups, &limits, None, scan(10)).await.unwrap());
    drop(held);
    until("the scan ended", async || limits.admit(None).is_ok()).await;
    let rows = scan::call(&groups, &limits, None, scan(1_000)).await.unwrap();
    assert!(memory.arguments().used() >= 1_000 * 320);
    drop((rows, replica));
    until("its memory is free", async || memory.used() == 0).await;
    stop(groups).await;
}

// Requests are in memory before their scans are admitted.
#[tokio::test]
async fn scan_requests_are_shorter_than_other_requests() {
    let directory = tempfile::tempdir().unwrap();
    let groups = node(directory.path());
    let mut server = DataService::new(groups.clone(), CancellationToken::new()).into_server();
    for (call, most) in [("Scan", MAX_REQUEST_BYTES), ("Get", MESSAGE_BYTES)] {
        for (bytes, refused) in [(most, false), (most + 1, true)] {
            // The length of the message, which is missing.
            let head = [&[0], u32::try_from(bytes).unwrap().to_be_bytes().as_slice()].concat();
            let request = http::Request::post(format!("/tidewater.v1.Data/{call}"))
                .body(String::from_utf8(head).unwrap())
                .unwrap();
            let answer = server.call(request).await.unwrap();
            let status = Status::from_header_map(answer.headers()).unwrap();
            assert_eq!(status.code() == Code::OutOfRange, refused, "{call} {bytes} {status}");
        }
    }
    drop(server);
    stop(groups).await;
}

#[tokio::test]
async fn streams_that_do_not_fit_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (groups, replica) = serving(&directory).await;
    let opening = write::call(&groups, write(1, 1, &[])).await.unwrap().sequence;
    let fitting = WriteRequest { opening, ..stream_write(2, &[1]) };
    let keys: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let narrow = RecordBatch::try_from_iter([("other", keys)]).unwrap();
    let misfit = WriteRequest { rows: encode_stream(&narrow).unwrap(), ..fitting.clone() };
    let refused = write::call(&groups, misfit).await.unwrap_err();
    assert_eq!(refused.reason, Reason::SchemaMismatch, "{refused}");
    let cut = WriteRequest { rows: fitting.rows.slice(..40), ..fitting.clone() };
    assert_eq!(write::call(&groups, cut).await.unwrap_err().reason, Reason::SchemaMismatch);
    let newer = GetRequest { rows_format: 9, ..get_1() };
    assert_eq!(get::call(&groups, newer).await.unwrap_err().reason, Reason::Unsupported);
    // A stale schema version is reported before its columns are compared.
    alter(&replica).await;
    let stale = write::call(&groups, fitting).await.unwrap_err();
    assert_eq!(stale.reason, Reason::SchemaVersionStale);
    drop(replica);
    stop(groups).await;
}
