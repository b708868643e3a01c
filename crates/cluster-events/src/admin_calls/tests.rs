//! Tests of recorded calls.

use std::sync::atomic::{AtomicU64, Ordering};

use tidewater_events::testing::CollectingRecorder;
use tidewater_events::{RecordedEvent, Value};
use tidewater_proto::compaction::v1 as compaction;
use tidewater_proto::v1;

use super::*;

/// Clock that advances by 7 ms with each reading.
#[derive(Debug, Default)]
struct SteppingClock(AtomicU64);

impl MonotonicClock for SteppingClock {
    fn elapsed(&self) -> Duration {
        Duration::from_millis(self.0.fetch_add(7, Ordering::Relaxed))
    }
}

fn calls() -> (RecordedCalls, Arc<CollectingRecorder>) {
    let recorder = Arc::new(CollectingRecorder::default());
    (RecordedCalls::new(recorder.clone(), Arc::new(SteppingClock::default())), recorder)
}

fn drop_table(name: &str) -> Request<v1::DropTableRequest> {
    let name = name.to_owned();
    Request::new(v1::DropTableRequest { request_id: String::new(), name, table_id: 0 })
}

/// Value of a column of an event.
fn value(event: &RecordedEvent, column: &str) -> Value {
    let (_, value) = event.extra.iter().find(|(of, _)| of.name == column).unwrap();
    value.clone()
}

/// Text of a column of an event; empty without one.
fn text(event: &RecordedEvent, column: &str) -> String {
    match value(event, column) {
        Value::Text(text) => text,
        Value::Null => String::new(),
        other => panic!("{other:?}"),
    }
}

/// Name and subject with which a call is recorded.
fn recorded<T: RecordedRequest>(request: T) -> (String, String) {
    let (calls, recorder) = calls();
    calls.begin(&Request::new(request)).end(Ok(())).unwrap();
    let events = recorder.events();
    let [event] = &events[..] else { panic!("{events:?}") };
    (text(event, "call"), text(event, "subject"))
}

#[test]
fn call_is_recorded_with_its_outcome() {
    for (reason, expected) in [
        (None, Some(("completed", ""))),
        (Some(Reason::TableNotFound), Some(("failed", "no such table"))),
        (Some(Reason::DeadlineExceeded), Some(("unknown", "no such table"))),
        (Some(Reason::NotLeader), None),
        (Some(Reason::NotBootstrapped), None),
        (Some(Reason::GroupNotHosted), None),
        (Some(Reason::RouteMoved), None),
        (Some(Reason::JobNotFound), None),
    ] {
        let (calls, recorder) = calls();
        let call = calls.begin(&drop_table("t"));
        let result = reason.map_or(Ok(()), |reason| Err(Refusal::new(reason, "no such table")));
        assert_eq!(call.end(result.clone()), result);
        let events = recorder.events();
        let shown = events.iter().map(|event| {
            assert_eq!(text(event, "call"), "DropTable");
            assert_eq!(
                (text(event, "caller"), text(event, "subject")),
                ("unknown".into(), "t".into())
            );
            assert_eq!(value(event, "duration_ms"), Value::UInt64(7));
            assert_eq!(value(event, "request_id"), Value::Null);
            (text(event, "outcome"), text(event, "cause"))
        });
        let expected = expected.map(|(outcome, cause)| (outcome.to_owned(), cause.to_owned()));
        assert_eq!(shown.collect::<Vec<_>>(), Vec::from_iter(expected), "{reason:?}");
    }
}

#[test]
fn call_without_an_end_has_an_unknown_outcome() {
    let (calls, recorder) = calls();
    drop(calls.begin(&drop_table("t")));
    let events = recorder.events();
    assert_eq!((events.len(), text(&events[0], "outcome")), (1, "unknown".to_owned()));
    assert_eq!(value(&events[0], "duration_ms"), Value::UInt64(7));
}

#[test]
fn call_that_changes_nothing_is_not_recorded() {
    let (calls, recorder) = calls();
    let mut call = calls.begin(&drop_table("t"));
    call.forget();
    assert_eq!(call.end(Ok(5)), Ok(5));
    drop(calls.begin(&drop_table(&"x".repeat(10_000))));
    let events = recorder.events();
    assert_eq!(events.len(), 1);
    assert_eq!(text(&events[0], "subject").len(), MAX_TEXT + 3);
}

#[test]
fn repeated_call_is_recorded_with_its_request_id() {
    let (calls, recorder) = calls();
    let request_id = "0190163d-8694-739b-aea5-966c26f8ad91";
    let request = v1::DropTableRequest {
        request_id: request_id.to_owned(),
        name: "t".to_owned(),
        table_id: 0,
    };
    let results = [Err(Refusal::new(Reason::DeadlineExceeded, "no answer")), Ok(())];
    for result in results {
        let _ = calls.begin(&Request::new(request.clone())).end(result);
    }
    let long = v1::DropTableRequest { request_id: "x".repeat(10_000), ..request };
    drop(calls.begin(&Request::new(long)));
    let events = recorder.events();
    let [first, second, long] = &events[..] else { panic!("{events:?}") };
    assert_eq!([first, second].map(|event| text(event, "request_id")), [request_id; 2]);
    assert_eq!([first, second].map(|event| text(event, "outcome")), ["unknown", "completed"]);
    assert_eq!(text(long, "request_id").len(), MAX_REQUEST_ID + 3);
}

#[test]
fn calls_of_other_nodes_are_recorded_with_their_subjects() {
    let region = "region 7 of group 5";
    let flush = v1::FlushRegionRequest { group_id: 5, region_id: 7, by_node: false };
    let compact = v1::CompactRegionRequest { group_id: 5, region_id: 7, ..Default::default() };
    let cancel = v1::CancelCompactionRequest { job_id: "j".to_owned() };
    let remote = compaction::CancelCompactionRequest { header: None, job_id: "j".to_owned() };
    for (found, call, subject) in [
        (recorded(flush), "FlushRegion", region),
        (recorded(compact), "CompactRegion", region),
        (recorded(cancel), "CancelCompaction", "j"),
        (recorded(remote), "CancelCompaction", "j"),
    ] {
        assert_eq!(found, (call.to_owned(), subject.to_owned()));
    }
}

#[test]
fn subject_has_the_address_of_the_node() {
    let (calls, recorder) = calls();
    let filter = v1::SetLogFilterRequest { filter: "info".to_owned() };
    calls.begin(&Request::new(filter)).at_node("a:1").end(Ok(())).unwrap();
    calls
        .begin(&Request::new(v1::SetBalanceRequest::default()))
        .at_node("a:1")
        .end(Ok(()))
        .unwrap();
    let events = recorder.events();
    let subjects: Vec<String> = events.iter().map(|event| text(event, "subject")).collect();
    assert_eq!(subjects, ["info at a:1", "a:1"]);
}
