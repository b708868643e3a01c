use tidewater_events::testing::CollectingRecorder;
use tidewater_proto::v1;

use super::*;
use crate::catalog_events::testing::{text, value};

fn calls() -> (RecordedCalls, Arc<CollectingRecorder>) {
    let recorder = Arc::new(CollectingRecorder::default());
    let of_node: EventRecorderRef = Arc::clone(&recorder) as EventRecorderRef;
    (RecordedCalls::new(&of_node), recorder)
}

fn drop_table(name: &str) -> Request<v1::DropTableRequest> {
    let name = name.to_owned();
    Request::new(v1::DropTableRequest { request_id: String::new(), name })
}

#[test]
fn call_is_recorded_with_its_outcome() {
    for (reason, expected) in [
        (None, Some(("completed", ""))),
        (Some(Reason::TableNotFound), Some(("failed", "no such table"))),
        (Some(Reason::DeadlineExceeded), Some(("unknown", "no such table"))),
        (Some(Reason::NotLeader), None),
        (Some(Reason::NotBootstrapped), None),
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
    assert_ne!(value(&events[0], "duration_ms"), tidewater_events::Value::Null);
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
