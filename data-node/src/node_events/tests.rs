//! Tests of the recorded events.

use tidewater_common::feature_level::FeatureLevel;
use tidewater_common::ids::{Incarnation, RegionId, Sequence};
use tidewater_common::schema::TableOptions;
use tidewater_events::testing::CollectingRecorder;
use tidewater_events::{RecordedEvent, Value};
use tidewater_proto::v1::data_server::Data;
use tidewater_proto::v1::watch_event::Event;
use tidewater_region_engine::storage::Storage;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tonic::Request;
use uuid::Uuid;

use super::testing::{ManualClock, events_with};
use super::*;
use crate::data::DataService;
use crate::group::entry;
use crate::group::testing::{region, write};
use crate::groups::tests::{GROUP, NODE, members, node_with, stop, until};
use crate::owner_request::OwnerRequest;

const REGION: RegionDir =
    RegionDir { table_id: TableId(3), region_id: RegionId(7), incarnation: Incarnation(1) };
/// Region of a table that holds events.
const OF_EVENTS: RegionDir = RegionDir { table_id: TableId(9), ..REGION };
const LIMIT: Duration = Duration::from_secs(1);
const PROPOSAL_TIMEOUT: Duration = Duration::from_secs(30);

struct Fixture {
    recorder: Arc<CollectingRecorder>,
    clock: Arc<ManualClock>,
    events: Arc<NodeEvents>,
}

impl Fixture {
    fn new() -> Self {
        Self::with_limit(LIMIT)
    }

    fn with_limit(slow_operation: Duration) -> Self {
        let recorder = Arc::new(CollectingRecorder::default());
        let clock = Arc::new(ManualClock::default());
        let events = events_with(recorder.clone(), clock.clone(), slow_operation);
        events.event_tables().add(OF_EVENTS.table_id);
        Self { recorder, clock, events }
    }

    fn recorded(&self) -> Vec<RecordedEvent> {
        self.recorder.events()
    }

    fn count(&self, event_type: &str) -> usize {
        self.recorder.types().iter().filter(|of| *of == event_type).count()
    }
}

/// Returns the value of an extra column.
fn value(event: &RecordedEvent, name: &str) -> Value {
    let column = event.extra.iter().find(|(column, _)| column.name == name);
    column.map(|(_, value)| value.clone()).unwrap()
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

#[test]
fn quarantine_is_recorded_with_attempts_and_cause() {
    let fixture = Fixture::new();
    let job = JobId(Uuid::from_u128(5));
    for region in [REGION, OF_EVENTS] {
        fixture.events.record_quarantine(region, job, 3, "stalled");
    }
    let [event] = &fixture.recorded()[..] else { panic!("one event") };
    assert_eq!(event.event_type, "compaction_quarantined");
    for (column, expected) in [
        ("node_id", Value::UInt64(101)),
        ("table_id", Value::UInt64(3)),
        ("region_id", Value::UInt64(7)),
        ("job_id", text(&job.to_string())),
        ("attempts", Value::UInt64(3)),
        ("cause", text("stalled")),
    ] {
        assert_eq!(value(event, column), expected, "{column}");
    }
}

#[test]
fn lagging_hook_is_recorded_with_its_region() {
    let fixture = Fixture::new();
    for region in [REGION, OF_EVENTS] {
        let cause = "x".repeat(9_000);
        fixture.events.record_lagging_hook(region, "export", 300, Some(&cause), None);
    }
    let [event] = &fixture.recorded()[..] else { panic!("one event") };
    assert_eq!(event.event_type, "hook_lagging");
    assert_eq!(value(event, "node_id"), Value::UInt64(101));
    assert_eq!(value(event, "hook"), text("export"));
    assert_eq!(value(event, "pending"), Value::UInt64(300));
    let Value::Text(cause) = value(event, "cause") else { panic!("a text") };
    assert_eq!(cause.len(), MAX_CAUSE + "...".len());
}

#[test]
fn slow_operations_are_recorded_above_the_limit() {
    let fixture = Fixture::new();
    let record = |took, region| {
        let begun = fixture.events.now();
        fixture.clock.advance(took);
        fixture.events.record_if_slow(Operation::Write, begun, || region);
    };
    record(LIMIT, Some(REGION));
    record(LIMIT * 9, Some(OF_EVENTS));
    record(LIMIT * 9, None);
    assert_eq!(fixture.recorded(), []);
    record(Duration::from_millis(1_001), Some(REGION));
    let [event] = &fixture.recorded()[..] else { panic!("one event") };
    assert_eq!(event.event_type, "slow_operation");
    assert_eq!(value(event, "operation"), text("write"));
    assert_eq!(value(event, "duration_ms"), Value::UInt64(1_001));
    assert_eq!(value(event, "limit_ms"), Value::UInt64(1_000));
    // Without a limit, the region is not looked up.
    let off = Fixture::with_limit(Duration::ZERO);
    off.events.record_duration(Operation::Get, LIMIT * 9, || panic!("not slow"));
    assert_eq!(off.recorded(), []);
}

#[test]
fn slow_job_of_compactor_is_recorded_by_its_limit() {
    // The limit of this node's own operations is another one.
    for of_node in [Duration::ZERO, LIMIT, LIMIT * 9] {
        let fixture = Fixture::with_limit(of_node);
        let record = |took, region| {
            let begun = fixture.events.now();
            fixture.clock.advance(took);
            fixture.events.record_if_slow_on(NodeId(201), region, begun, LIMIT * 2);
        };
        record(Duration::from_millis(1_999), REGION);
        record(LIMIT * 2, OF_EVENTS);
        assert_eq!(fixture.recorded(), []);
        record(LIMIT * 2, REGION);
        let [event] = &fixture.recorded()[..] else { panic!("one event") };
        assert_eq!(event.event_type, "slow_operation");
        for (column, expected) in [
            ("node_id", Value::UInt64(201)),
            ("node_kind", text("compactor")),
            ("operation", text("compaction")),
            ("table_id", Value::UInt64(3)),
            ("region_id", Value::UInt64(7)),
            ("duration_ms", Value::UInt64(2_000)),
            ("limit_ms", Value::UInt64(2_000)),
        ] {
            assert_eq!(value(event, column), expected, "{column}");
        }
    }
}

#[test]
fn rate_of_slow_operations_is_limited() {
    let fixture = Fixture::new();
    for _ in 0..10 {
        for _ in 0..100 {
            fixture.events.record_duration(Operation::Scan, LIMIT * 2, || Some(REGION));
        }
        fixture.clock.advance(Duration::from_secs(1));
    }
    assert_eq!(fixture.count("slow_operation"), 10 * SLOW_PER_SECOND as usize);
}

#[test]
fn refusals_are_summed_for_a_minute() {
    let fixture = Fixture::new();
    let refuse = |room, region| fixture.events.count_refusal(room, region, "no room");
    refuse(Room::Memory, Some(OF_EVENTS));
    for _ in 0..1_000 {
        refuse(Room::Memory, Some(REGION));
        refuse(Room::Disk, None);
    }
    fixture.clock.advance(Duration::from_secs(59));
    fixture.events.record_due_refusals();
    let sums = || {
        let of = |event: &RecordedEvent| (value(event, "resource"), value(event, "refused"));
        fixture.recorded().iter().map(of).collect::<Vec<_>>()
    };
    let first = [(text("memory"), Value::UInt64(1)), (text("disk"), Value::UInt64(1))];
    assert_eq!(sums(), first);
    fixture.clock.advance(Duration::from_secs(1));
    fixture.events.record_due_refusals();
    fixture.events.record_due_refusals();
    let rest = [(text("memory"), Value::UInt64(999)), (text("disk"), Value::UInt64(999))];
    assert_eq!(sums(), [first, rest].concat());
}

#[test]
fn suspended_hook_is_recorded_with_its_cause() {
    let fixture = Fixture::new();
    for region in [REGION, OF_EVENTS] {
        fixture.events.suspended("export", region, "no route");
    }
    let [event] = &fixture.recorded()[..] else { panic!("one event") };
    assert_eq!(event.event_type, "hook_suspended");
    assert_eq!((value(event, "hook"), value(event, "cause")), (text("export"), text("no route")));
}

#[test]
fn tables_that_hold_events_follow_the_catalog() {
    let events = NodeEvents::none(NodeId(101));
    let table = |table_id, holds_events| v1::Table {
        table_id,
        options: Some(v1::TableOptions { holds_events, ..Default::default() }),
        ..Default::default()
    };
    let tables = vec![table(4, true), table(5, false)];
    events.follow(&Event::Snapshot(v1::CatalogSnapshot { tables, ..Default::default() }));
    let table_upserts = vec![table(6, true), v1::Table { table_id: 7, ..Default::default() }];
    events.follow(&Event::Delta(v1::CatalogDelta { table_upserts, ..Default::default() }));
    let held = (3..9).filter(|id| events.event_tables().contains(TableId(*id)));
    assert_eq!(held.collect::<Vec<_>>(), [4, 6]);
}

/// Returns the events of a node that leads a group: it opens region 7, writes, scans and flushes it. All operations are
/// slow.
async fn events_of_work(holds_events: bool) -> Vec<RecordedEvent> {
    let directory = tempfile::tempdir().unwrap();
    let recorder = Arc::new(CollectingRecorder::default());
    let slow = Duration::from_nanos(1);
    let clock = Arc::new(SystemClock);
    let events = NodeEvents::new(NODE, recorder.clone(), EventTables::default(), slow, clock);
    let groups = node_with(directory.path(), Storage::memory(), events);
    let replica = groups.start(GROUP).await.unwrap();
    groups.initialize(&replica, members()).await.unwrap();
    groups.context().cluster_level.send_replace(FeatureLevel::HIGHEST);
    let level = async || replica.shared.level() == FeatureLevel::HIGHEST;
    until("the group is raised", level).await;
    let options = TableOptions { holds_events, ..TableOptions::append_only() };
    let described = region(REGION.region_id.get(), None, None);
    let described = v1::RegionDescriptor { options: Some((&options).into()), ..described };
    let opened = replica.propose(entry::opened(described, Sequence(0)), PROPOSAL_TIMEOUT).await;
    opened.unwrap().into_result().unwrap();
    let service = DataService::new(groups.clone(), CancellationToken::new());
    let opening = service.write(Request::new(write(1, 1, &[]))).await.unwrap();
    let opening = opening.into_inner().sequence;
    let rows = v1::WriteRequest { opening, ..write(1, 2, &[5]) };
    service.write(Request::new(rows)).await.unwrap();
    let scan = v1::ScanRequest {
        group_id: GROUP.get(),
        region_id: REGION.region_id.get(),
        schema_version: 1,
        count_only: true,
        ..Default::default()
    };
    drop(service.scan(Request::new(scan)).await.unwrap());
    let (reply, flushed) = oneshot::channel();
    let flush = OwnerRequest::Flush(REGION.region_id, reply);
    replica.owner_requests.send(flush).await.unwrap();
    flushed.await.unwrap().unwrap();
    drop((service, replica));
    stop(groups).await;
    recorder.events()
}

#[tokio::test(flavor = "multi_thread")]
async fn work_is_recorded_except_on_event_tables() {
    for (holds_events, expected) in
        [(false, &["write", "write", "scan", "flush"][..]), (true, &[][..])]
    {
        let recorded = events_of_work(holds_events).await;
        let (leaders, others): (Vec<_>, Vec<_>) =
            recorded.iter().partition(|event| event.event_type == "leader_changed");
        let [leader] = &leaders[..] else { panic!("{leaders:?}") };
        assert_eq!(value(leader, "group_id"), Value::UInt64(GROUP.get()));
        assert_eq!(value(leader, "node_id"), Value::UInt64(NODE.get()));
        assert_eq!(value(leader, "former_node_id"), Value::Null);
        assert_eq!(value(leader, "cause"), text("the group has its first leader"));
        let operations: Vec<Value> = others.iter().map(|event| value(event, "operation")).collect();
        let expected: Vec<Value> = expected.iter().map(|name| text(name)).collect();
        assert_eq!(operations, expected, "{others:?}");
    }
}
