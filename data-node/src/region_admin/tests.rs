//! Tests of the recorded calls.

use futures::StreamExt;
use tidewater_common::feature_level::FeatureLevel;
use tidewater_common::ids::Sequence;
use tidewater_events::testing::CollectingRecorder;
use tidewater_events::{RecordedEvent, Value};
use tidewater_proto::v1::CancelCompactionRequest;
use tidewater_proto::v1::data_server::Data;
use tidewater_region_engine::storage::Storage;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::data::DataService;
use crate::group::entry;
use crate::group::testing::{region, write};
use crate::groups::tests::{GROUP, members, node_with, stop, until};
use crate::node_events::testing::events_with;

const REGION: u64 = 7;
const PROPOSAL_TIMEOUT: Duration = Duration::from_secs(30);

/// Text of a column of an event; empty without one.
fn text(event: &RecordedEvent, name: &str) -> String {
    let (_, value) = event.extra.iter().find(|(column, _)| column.name == name).unwrap();
    match value {
        Value::Text(text) => text.clone(),
        Value::Null => String::new(),
        other => panic!("{other:?}"),
    }
}

/// Name, subject and outcome of each recorded call.
fn recorded_calls(recorder: &CollectingRecorder) -> Vec<[String; 3]> {
    let events = recorder.events().into_iter();
    let calls = events.filter(|event| event.event_type == "admin_call");
    calls.map(|call| ["call", "subject", "outcome"].map(|name| text(&call, name))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_change_a_region_are_recorded() {
    let directory = tempfile::tempdir().unwrap();
    let recorder = Arc::new(CollectingRecorder::default());
    let events = events_with(recorder.clone(), Arc::default(), Duration::ZERO);
    let groups = node_with(directory.path(), Storage::memory(), events);
    let replica = groups.start(GROUP).await.unwrap();
    groups.initialize(&replica, members()).await.unwrap();
    groups.context().cluster_level.send_replace(FeatureLevel::HIGHEST);
    let is_raised = async || replica.shared.level() == FeatureLevel::HIGHEST;
    until("the group is raised", is_raised).await;
    let opened = entry::opened(region(REGION, None, None), Sequence(0));
    replica.propose(opened, PROPOSAL_TIMEOUT).await.unwrap().into_result().unwrap();
    let data = DataService::new(groups.clone(), CancellationToken::new());
    data.write(Request::new(write(1, 1, &[]))).await.unwrap();

    let admin = RegionAdminService::new(groups.clone());
    let group_id = GROUP.get();
    let flush = FlushRegionRequest { group_id, region_id: REGION, by_node: false };
    admin.flush_region(Request::new(flush)).await.unwrap();
    // The meta leader flushes the source of a clone.
    let by_node = FlushRegionRequest { by_node: true, ..flush };
    admin.flush_region(Request::new(by_node)).await.unwrap();
    // Another node has the group.
    let elsewhere = FlushRegionRequest { group_id: 6, ..flush };
    admin.flush_region(Request::new(elsewhere)).await.unwrap_err();
    let files = ListFilesRequest { group_id, region_id: REGION };
    admin.list_files(Request::new(files)).await.unwrap();
    let count = CountVersionsRequest { group_id, region_id: REGION, sinces: vec![0, 1] };
    let counted = admin.count_versions(Request::new(count.clone())).await.unwrap().into_inner();
    assert_eq!((counted.versions, counted.version_bytes), (vec![0, 0], 0), "it has no rows");
    let many = CountVersionsRequest { sinces: vec![0; 1_025], ..count };
    let status = admin.count_versions(Request::new(many)).await.unwrap_err();
    assert_eq!(Refusal::from_status(&status).reason, Reason::InvalidArgument);
    let compact = CompactRegionRequest { group_id, region_id: REGION, ..Default::default() };
    let progress = admin.compact_region(Request::new(compact)).await.unwrap().into_inner();
    let progress: Vec<_> = progress.collect().await;
    assert!(progress.last().unwrap().as_ref().unwrap().done);
    let led = ListRegionsRequest { confirmed: true, ..ListRegionsRequest::default() };
    let listed = admin.list_regions(Request::new(led)).await.unwrap().into_inner();
    assert_eq!(listed.regions.len(), 1);
    let unknown = CompactRegionRequest { region_id: 9, ..compact };
    assert!(admin.compact_region(Request::new(unknown)).await.is_err());
    let no_job = uuid::Builder::from_unix_timestamp_millis(5, &[7; 10]).into_uuid();
    for job_id in [no_job.to_string(), "x".to_owned()] {
        let cancel = CancelCompactionRequest { job_id };
        admin.cancel_compaction(Request::new(cancel)).await.unwrap_err();
    }
    let expected = [
        ["FlushRegion", "region 7 of group 5", "completed"],
        ["CompactRegion", "region 7 of group 5", "completed"],
        ["CompactRegion", "region 9 of group 5", "failed"],
        ["CancelCompaction", "x", "failed"],
    ];
    assert_eq!(recorded_calls(&recorder), expected);
    drop((admin, data, replica));
    stop(groups).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replica_that_does_not_lead_describes_no_region() {
    let directory = tempfile::tempdir().unwrap();
    let events =
        events_with(Arc::new(CollectingRecorder::default()), Arc::default(), Duration::ZERO);
    let groups = node_with(directory.path(), Storage::memory(), events);
    let replica = groups.start(GROUP).await.unwrap();
    let admin = RegionAdminService::new(groups.clone());
    let files = ListFilesRequest { group_id: GROUP.get(), region_id: REGION };
    let status = admin.list_files(Request::new(files)).await.unwrap_err();
    assert_eq!(Refusal::from_status(&status).reason, Reason::NotLeader);
    let count = CountVersionsRequest { group_id: GROUP.get(), region_id: REGION, sinces: vec![0] };
    let status = admin.count_versions(Request::new(count)).await.unwrap_err();
    assert_eq!(Refusal::from_status(&status).reason, Reason::NotLeader);
    let led = ListRegionsRequest { confirmed: true, ..ListRegionsRequest::default() };
    let listed = admin.list_regions(Request::new(led)).await.unwrap().into_inner();
    assert!(listed.regions.is_empty());
    drop((admin, replica));
    stop(groups).await;
}

#[tokio::test]
async fn compaction_without_its_caller_has_an_unknown_outcome() {
    let recorder = Arc::new(CollectingRecorder::default());
    let calls = events_with(recorder.clone(), Arc::default(), Duration::ZERO).admin_calls();
    let request =
        CompactRegionRequest { group_id: 5, region_id: REGION, ..CompactRegionRequest::default() };
    let call = calls.begin(&Request::new(request));
    let (reply, outcome) = oneshot::channel();
    let (events, receiver) = mpsc::channel(1);
    drop(receiver);
    let attempt = Attempt::default();
    watch(GROUP, attempt.clone(), outcome, events, call).await;
    assert!(attempt.cancel.is_cancelled());
    drop(reply);
    assert_eq!(recorded_calls(&recorder), [["CompactRegion", "region 7 of group 5", "unknown"]]);
}
