//! Events of procedures, from begin to end.

use bytes::Bytes;
use tidewater_common::ids::{RegionId, TableId};
use tidewater_events::{RecordedEvent, Value};
use tidewater_proto::v1::meta_command::Kind;
use tidewater_proto::v1::{self, AbandonCause, ProcedureKind, Reason};

use crate::catalog::MetaState;
use crate::catalog_events::testing::{EventLog, text, value, values};
use crate::commands::procedures::refresh::testing::{loaded, merged, start, with_refreshable};
use crate::commands::procedures::testing::{
    abandon, begin, complete, id, report, truncate, with_tables,
};
use crate::commands::testing::{
    directory, drop_table, pass, raise_to_highest, run, table, with_groups,
};

fn split(number: u64, route: RegionId) -> Kind {
    let request = v1::SplitRouteRequest {
        request_id: directory(number),
        route_id: route.get(),
        split_key: Bytes::from_static(&[0x40]),
        expected_version: 0,
        for_load: false,
    };
    begin(ProcedureKind::Split, number, &request)
}

fn merge(number: u64, routes: [RegionId; 2]) -> Kind {
    let request = v1::MergeRoutesRequest {
        request_id: directory(number),
        route_id: routes[0].get(),
        neighbour_id: routes[1].get(),
        expected_version: 0,
    };
    begin(ProcedureKind::Merge, number, &request)
}

fn relocate(number: u64, route: RegionId, target_group_id: u64) -> Kind {
    let request = v1::MoveRouteRequest {
        request_id: directory(number),
        route_id: route.get(),
        target_group_id,
        expected_version: 0,
    };
    begin(ProcedureKind::Move, number, &request)
}

fn routes(state: &MetaState) -> Vec<RegionId> {
    state.routes_of(TableId(1)).map(|route| route.route_id).collect()
}

fn number(event: &RecordedEvent, column: &str) -> u64 {
    match value(event, column) {
        Value::UInt64(number) => number,
        other => panic!("{column}: {other:?}"),
    }
}

/// The only event since the last call, of this type and of the procedure that a request has begun.
fn only(log: &mut EventLog, event_type: &str, request: u64) -> RecordedEvent {
    let events = log.take();
    let [event] = &events[..] else { panic!("{events:?}") };
    assert_eq!(event.event_type, event_type);
    assert_eq!(text(event, "procedure_id"), id(request).to_string());
    assert_eq!(text(event, "table_name"), if request < 20 { "t" } else { "r" });
    event.clone()
}

/// Fails the step of a procedure, and abandons the procedure.
fn abandon_after_failure(log: &mut EventLog, number: u64, cause: AbandonCause) {
    let reason = Reason::SourceUnreadable.into();
    let failure = v1::ProcedureFailure { reason, message: "no source".into(), since_ms: 0 };
    let of_step = report(&log.state, number);
    let failed = v1::AdvanceProcedure { failure: Some(failure), ..of_step };
    log.apply(Kind::AdvanceProcedure(failed));
    let command = abandon(&log.state, number, cause);
    log.apply(command);
}

#[test]
fn split_is_recorded_when_its_children_have_routes() {
    let mut log = EventLog::agreed(with_tables());
    let parent = routes(&log.state)[0];
    log.apply(split(10, parent));
    let begun = only(&mut log, "procedure_begun", 10);
    assert_eq!(text(&begun, "procedure_kind"), "split");
    assert_eq!(text(&begun, "subject"), format!("route {parent} at key 0x40"));
    log.complete(10);
    assert_eq!(log.take(), []);
    log.complete(10);
    let event = only(&mut log, "route_split", 10);
    assert_eq!(number(&event, "region_id"), parent.get());
    assert_eq!(number(&event, "second_region_id"), routes(&log.state)[1].get());
    assert_eq!(number(&event, "group_id"), 1);
    log.complete(10);
    let ended = only(&mut log, "procedure_ended", 10);
    assert_eq!((text(&ended, "outcome"), text(&ended, "cause")), ("completed".into(), "".into()));
    assert_eq!(value(&ended, "duration_ms"), Value::UInt64(0));
}

#[test]
fn merge_is_recorded_when_its_child_has_the_route() {
    let mut log = EventLog::agreed(with_tables());
    let parents: [RegionId; 2] = routes(&log.state).try_into().unwrap();
    log.apply(merge(10, parents));
    let begun = only(&mut log, "procedure_begun", 10);
    assert_eq!(text(&begun, "subject"), format!("routes {} and {}", parents[0], parents[1]));
    log.complete(10);
    log.complete(10);
    assert_eq!(log.take(), []);
    log.complete(10);
    let event = only(&mut log, "routes_merged", 10);
    assert_eq!(number(&event, "region_id"), routes(&log.state)[0].get());
    assert_eq!(number(&event, "second_region_id"), parents[1].get());
    assert_eq!(number(&event, "group_id"), 1);
    log.complete(10);
    only(&mut log, "procedure_ended", 10);
}

#[test]
fn move_is_recorded_when_the_catalog_names_the_group() {
    let mut state = with_groups(1, 2);
    raise_to_highest(&mut state);
    let request = v1::CreateTableRequest { regions: 2, ..table(1, "t") };
    run(&mut state, begin(ProcedureKind::Create, 1, &request)).unwrap();
    complete(&mut state, 1);
    let route = routes(&state)[0];
    let source = state.route(route).unwrap().group_id.get();
    let mut log = EventLog::agreed(state);
    log.apply(relocate(10, route, 3 - source));
    let begun = only(&mut log, "procedure_begun", 10);
    assert_eq!(text(&begun, "subject"), format!("route {route} to group {}", 3 - source));
    for _ in 0..5 {
        log.complete(10);
    }
    assert_eq!(log.take(), []);
    log.complete(10);
    assert_eq!(log.state.route(route).unwrap().group_id.get(), 3 - source);
    let events = log.take();
    let types: Vec<&str> = events.iter().map(|event| event.event_type.as_str()).collect();
    assert_eq!(types, ["route_moved", "procedure_ended"]);
    assert_eq!(number(&events[0], "region_id"), route.get());
    assert_eq!(number(&events[0], "group_id"), 3 - source);
    assert_eq!(number(&events[0], "former_group_id"), source);
}

#[test]
fn refresh_records_its_phases_and_epoch() {
    let mut log = EventLog::agreed(with_refreshable(0));
    log.apply(start(20));
    let events = log.take();
    assert_eq!(text(&events[0], "subject"), "refresh 1");
    let mut phases = vec![events[1].clone()];
    log.complete(20);
    assert_eq!(log.take(), [], "the load belongs to the first phase");
    let finish = |log: &mut EventLog, result: v1::RefreshStepResult| {
        let result = prost::Message::encode_to_vec(&result).into();
        let of_step = report(&log.state, 20);
        let done = v1::AdvanceProcedure { completed: true, requested: true, result, ..of_step };
        log.apply(Kind::AdvanceProcedure(done));
    };
    finish(&mut log, loaded(1_000));
    log.complete(20);
    finish(&mut log, merged(500));
    phases.extend(log.take());
    let shown: Vec<_> = phases.iter().map(|of| (text(of, "phase"), value(of, "epoch"))).collect();
    let expected = [
        ("refreshing", Value::Null),
        ("merging", Value::Null),
        ("publishing", Value::Null),
        ("cleanup", Value::UInt64(500)),
    ];
    assert_eq!(shown, expected.map(|(phase, epoch)| (phase.to_owned(), epoch)));
    log.complete(20);
    let ended = only(&mut log, "procedure_ended", 20);
    assert_eq!(text(&ended, "outcome"), "completed");
}

#[test]
fn failed_refresh_records_its_last_failure() {
    let mut log = EventLog::agreed(with_refreshable(0));
    log.apply(start(20));
    log.complete(20);
    log.take();
    abandon_after_failure(&mut log, 20, AbandonCause::Failed);
    let phase = only(&mut log, "refresh_phase", 20);
    assert_eq!(text(&phase, "phase"), "cancelling");
    log.complete(20);
    let ended = only(&mut log, "procedure_ended", 20);
    assert_eq!(text(&ended, "outcome"), "failed");
    assert_eq!(text(&ended, "cause"), "no source");
}

#[test]
fn cancelled_procedures_record_their_cause() {
    for (cause, expected) in [
        (AbandonCause::Operator, "an operator has cancelled it"),
        (AbandonCause::Deadline, "its deadline has passed"),
        (AbandonCause::Superseded, "a data group has abandoned it, or has taken a later step"),
    ] {
        let mut log = EventLog::agreed(with_tables());
        let route = routes(&log.state)[0];
        log.apply(split(10, route));
        log.take();
        pass(&mut log.state, 601);
        abandon_after_failure(&mut log, 10, cause);
        assert_eq!(log.take(), [], "its effects are taken back first");
        log.complete(10);
        let cancelled = only(&mut log, "procedure_cancelled", 10);
        assert_eq!(text(&cancelled, "cause"), expected);
        assert_eq!(number(&cancelled, "duration_ms"), 601_000);
    }
}

#[test]
fn superseded_step_records_its_last_failure() {
    let mut log = EventLog::agreed(with_tables());
    let route = routes(&log.state)[0];
    log.apply(split(10, route));
    log.complete(10);
    log.take();
    abandon_after_failure(&mut log, 10, AbandonCause::Superseded);
    let cancelled = only(&mut log, "procedure_cancelled", 10);
    assert!(text(&cancelled, "cause").ends_with("; its last failure: no source"), "{cancelled:?}");
}

#[test]
fn drop_cancels_the_load_of_its_table() {
    let mut log = EventLog::agreed(with_tables());
    let load = v1::BeginLoadRequest { request_id: directory(10), name: "t".into(), timeout_ms: 0 };
    log.apply(begin(ProcedureKind::Load, 10, &load));
    let begun = only(&mut log, "procedure_begun", 10);
    assert_eq!(
        (text(&begun, "procedure_kind"), text(&begun, "subject")),
        ("load".into(), "".into())
    );
    log.apply(drop_table(11, "t"));
    let cancelled = only(&mut log, "procedure_cancelled", 10);
    assert_eq!(text(&cancelled, "cause"), "its table was dropped");
}

#[test]
fn repeated_request_and_progress_have_no_events() {
    let mut log = EventLog::agreed(with_tables());
    log.apply(truncate(10, "t"));
    only(&mut log, "procedure_begun", 10);
    log.apply(truncate(10, "t"));
    let of_step = report(&log.state, 10);
    let region = routes(&log.state)[0].get();
    let progress = v1::AdvanceProcedure { done_regions: vec![region], ..of_step };
    log.apply(Kind::AdvanceProcedure(progress));
    assert_eq!(log.take(), []);
}

#[test]
fn replicas_derive_equal_events() {
    let events = || {
        let mut log = EventLog::agreed(with_tables());
        let route = routes(&log.state)[0];
        log.apply(split(10, route));
        (0..3).for_each(|_| log.complete(10));
        values(&log.events.recent().events_from(0, usize::MAX).events)
    };
    let first = events();
    assert_eq!(first.len(), 3);
    assert_eq!(first, events());
    assert!(first.is_sorted_by(|one, other| one.id < other.id));
}
