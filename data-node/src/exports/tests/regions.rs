use std::fs;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, SchemaRef, UInt8Type, UInt64Type};
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tidewater_common::ids::{Epoch, Sequence};
use tidewater_proto::v1::ExportFile;
use tidewater_region_engine::manifest::AreaId;
use tidewater_region_engine::region::{
    Cause, Obligation, PendingObligation, Publication, PublicationContent,
};
use uuid::Uuid;

use super::serving::{REGION, ServingNode};
use super::*;
use crate::exports::layout::{IDENTITY, part_object, step_object};
use crate::exports::testing::reason;

const CONTENTS: StepEpochs = StepEpochs { after: None, as_of: 100 };
const CHANGES: StepEpochs = StepEpochs { after: Some(100), as_of: 200 };

/// A version of a row: id, name, value of `_tw_op` and epoch.
type Version = (i64, Option<String>, u8, u64);

/// Returns the columns and the rows of a file.
fn read(serving: &ServingNode, file: &ExportFile) -> (SchemaRef, Vec<Version>) {
    let bytes = fs::read(serving.directory.prefix().join(&file.path)).unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(bytes)).unwrap();
    let schema = reader.schema().clone();
    let batches = reader.build().unwrap().map(Result::unwrap);
    let versions: Vec<Version> = batches.flat_map(|batch| versions(&batch)).collect();
    assert_eq!(versions.len() as u64, file.rows);
    (schema, versions)
}

fn versions(batch: &RecordBatch) -> Vec<Version> {
    let ids = batch.column(0).as_primitive::<Int64Type>().values().iter().copied();
    let names = batch.column(1).as_string::<i32>().iter().map(|name| name.map(str::to_owned));
    let ops = batch.column(2).as_primitive::<UInt8Type>().values().iter().copied();
    let epochs = batch.column(3).as_primitive::<UInt64Type>().values().iter().copied();
    let versions = ids.zip(names).zip(ops.zip(epochs));
    versions.map(|((id, name), (op, epoch))| (id, name, op, epoch)).collect()
}

fn put(id: i64, epoch: u64) -> Version {
    (id, Some(format!("name {id}")), 0, epoch)
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_have_contents_then_changes() {
    let mut serving = ServingNode::start().await;
    let service = serving.service();
    serving.claim(&service).await;
    serving.put(&[1, 2, 3]).await;
    serving.begin_epoch(100).await;
    serving.put(&[4]).await;
    serving.begin_epoch(200).await;
    serving.put(&[2]).await;
    serving.delete(&[3]).await;
    serving.begin_epoch(300).await;
    serving.put(&[9]).await;

    let contents = serving.export_region(&service, 1, CONTENTS).await.unwrap();
    assert_eq!((contents.rows, contents.files.len()), (4, 1));
    let (schema, rows) = read(&serving, &contents.files[0]);
    assert_eq!(rows, [put(1, 0), put(2, 0), put(3, 0), put(4, 100)]);
    let columns: Vec<_> = schema
        .fields()
        .iter()
        .map(|field| (field.name().as_str(), field.data_type().to_string(), field.is_nullable()))
        .collect();
    let column = |name, data_type: &str, nullable| (name, data_type.to_owned(), nullable);
    let expected = [
        column("id", "Int64", false),
        column("name", "Utf8", true),
        column("_tw_op", "UInt8", false),
        column("_tw_epoch", "UInt64", false),
    ];
    assert_eq!(columns, expected);

    let changes = serving.export_region(&service, 2, CHANGES).await.unwrap();
    let (_, rows) = read(&serving, &changes.files[0]);
    assert_eq!(rows, [put(2, 200), (3, None, 1, 200)]);
    // A repeated call, as of another meta leader.
    let again = serving.export_region(&service, 2, CHANGES).await.unwrap();
    assert_eq!(again.files, changes.files);
    serving.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn completed_step_leaves_its_objects_only() {
    let mut serving = ServingNode::start().await;
    let service = serving.service();
    serving.claim(&service).await;
    serving.put(&[1]).await;
    serving.begin_epoch(100).await;
    serving.begin_epoch(200).await;
    let written = serving.export_region(&service, 1, CONTENTS).await.unwrap();
    let path = written.files[0].path.clone();
    let part = part_object(1, REGION);
    assert_eq!(serving.directory.files(), [IDENTITY, &part, &path]);
    let failed = serving.directory.prefix().join(&path).with_file_name("7-failed.parquet");
    fs::write(failed, "").unwrap();
    for _ in 0..2 {
        let completion = serving.completion(1, CONTENTS, written.files.clone());
        let completed = service.complete(completion).await.unwrap();
        assert_eq!((completed.as_of, completed.files, completed.rows), (100, 1, 1));
    }
    // Objects are removed after the response.
    serving.tracker.close();
    serving.tracker.wait().await;
    assert_eq!(serving.directory.files(), [IDENTITY, &step_object(1), &path]);
    serving.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn region_without_changes_opens_no_target() {
    let mut serving = ServingNode::start().await;
    // The node permits no target.
    let service = serving.service_with(ExportTargets::default());
    serving.put(&[1]).await;
    serving.begin_epoch(100).await;
    serving.begin_epoch(200).await;
    serving.begin_epoch(300).await;
    let refused = serving.export_region(&service, 1, CONTENTS).await;
    assert_eq!(reason(refused), Reason::ExportTargetUnavailable);
    let unchanged = serving.export_region(&service, 2, CHANGES).await.unwrap();
    assert_eq!((unchanged.done, unchanged.rows, unchanged.files), (true, 0, Vec::new()));
    serving.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unclaimed_target_gets_no_rows() {
    let mut serving = ServingNode::start().await;
    let service = serving.service();
    serving.put(&[1]).await;
    serving.begin_epoch(100).await;
    serving.begin_epoch(200).await;
    let refused = serving.export_region(&service, 1, CONTENTS).await.unwrap_err();
    assert_eq!(refused.reason, Reason::ExportPrefixInUse);
    assert!(refused.message.contains("is not shared by all data nodes"), "{refused}");
    assert_eq!(serving.directory.files(), Vec::<String>::new());
    serving.claim(&service).await;
    serving.export_region(&service, 1, CONTENTS).await.unwrap();
    serving.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn incomplete_epoch_is_not_exported() {
    let mut serving = ServingNode::start().await;
    let service = serving.service();
    serving.claim(&service).await;
    for epoch in [0, 100] {
        if epoch > 0 {
            serving.begin_epoch(epoch).await;
        }
        let refused = serving.export_region(&service, 1, CONTENTS).await;
        assert_eq!(reason(refused), Reason::EpochIncomplete, "epoch {epoch}");
    }
    serving.begin_epoch(101).await;
    serving.export_region(&service, 1, CONTENTS).await.unwrap();
    serving.stop().await;
}

// The owner may read without them until its caller has the outcome. A later step would not read their epoch again.
#[tokio::test(flavor = "multi_thread")]
async fn export_waits_for_published_files() {
    let mut serving = ServingNode::start().await;
    let service = serving.service();
    serving.claim(&service).await;
    serving.begin_epoch(100).await;
    serving.begin_epoch(200).await;
    let area = AreaId(Uuid::from_u128(4));
    let publication = Publication { area, epoch: Epoch(100), content: PublicationContent::Files };
    let cause = Cause { sequence: Sequence(1 << 40), procedure: None };
    let obligation = Obligation::Publish(publication);
    let hosted = serving.replica.region(REGION).unwrap();
    hosted.region.apply_obligation(PendingObligation { cause, obligation }).unwrap();
    let refused = serving.export_region(&service, 1, CONTENTS).await.unwrap_err();
    assert_eq!(refused.reason, Reason::RegionLoading, "{refused}");
    assert!(refused.retry_after.is_some(), "{refused}");
    drop(hosted);
    serving.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn misdirected_calls_are_refused() {
    let serving = ServingNode::start().await;
    let service = serving.service();
    let request = serving.region_request(1, CONTENTS);
    for (request, expected) in [
        (ExportRegionRequest { header: None, ..request.clone() }, Reason::InvalidArgument),
        (ExportRegionRequest { target: None, ..request.clone() }, Reason::InvalidArgument),
        (ExportRegionRequest { step: 2, ..request.clone() }, Reason::InvalidArgument),
        (ExportRegionRequest { group_id: 9, ..request.clone() }, Reason::GroupNotHosted),
        (ExportRegionRequest { region_id: 9, ..request.clone() }, Reason::RegionNotFound),
    ] {
        assert_eq!(reason(service.export_region(request).await), expected);
    }
    let claim = ClaimExportTargetRequest { header: serving.header(), target: None };
    assert_eq!(reason(service.claim(claim).await), Reason::InvalidArgument);
    let completion = serving.completion(2, CONTENTS, Vec::new());
    assert_eq!(reason(service.complete(completion).await), Reason::InvalidArgument);
    assert_eq!(serving.directory.files(), Vec::<String>::new());
    serving.stop().await;
}
