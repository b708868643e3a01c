use bytes::Bytes;
use tidewater_common::ids::NodeId;
use tidewater_proto::v1::meta_command::Kind;

use super::test_kind::TEST_KIND;
use super::testing::{
    abandon, complete, fill, id, report, set_time, state_of, test, truncate, wire_id, with_tables,
};
use super::*;
use crate::catalog::MAX_OUTCOMES;
use crate::commands::CommandReply;
use crate::commands::requests::RETRY_WINDOW_MS;
use crate::commands::testing::{directory, drop_table, durable_hook, raise, run, with_groups};

const TRUNCATE: u32 = v1::ProcedureKind::Truncate as u32;

fn truncation(number: u64, name: &str) -> v1::TruncateTableRequest {
    v1::TruncateTableRequest { request_id: directory(number), name: name.to_owned() }
}

/// Number of the published change of table 1.
fn published(state: &MetaState) -> Option<u64> {
    let mut tables = [v1::Table::from(state.table(TableId(1)).unwrap().as_ref())];
    state.publish_changes(&mut tables);
    tables[0].change.as_ref().map(|change| change.number)
}

#[test]
fn procedure_ends_when_its_regions_have_completed_it() {
    let mut state = with_tables();
    let revision = state.header().revision;
    assert_eq!(run(&mut state, truncate(10, "t")), Ok(CommandReply::Table(TableId(1))));
    assert_eq!(published(&state), Some(2));
    assert!(state.header().revision > revision, "data nodes see it");
    let revision = state.header().revision;
    let message = "é".repeat(MAX_MESSAGE + 1);
    let failure = v1::ProcedureFailure { reason: 20, message, since_ms: 0 };
    // Region 3 is of the other table.
    let progress = v1::AdvanceProcedure {
        done_regions: vec![2, 3],
        failure: Some(failure),
        ..report(&state, 10)
    };
    run(&mut state, Kind::AdvanceProcedure(progress)).unwrap();
    let procedure = state.procedures().get(id(10)).unwrap();
    assert_eq!(procedure.done, [RegionId(2)].into());
    let failure = procedure.failure.as_ref().unwrap();
    assert_eq!((failure.message.chars().count(), failure.since_ms), (MAX_MESSAGE, 1_000));
    assert_eq!(state.header().revision, revision, "progress is not published");
    complete(&mut state, 10);
    assert_eq!(state_of(&state, 10), (ProcedureState::Completed, 1));
    assert_eq!((published(&state), state.procedures().running().count()), (None, 0));
    assert!(state.header().revision > revision, "watchers see the end");
    let procedure = state.procedures().get(id(10)).unwrap();
    assert!(procedure.arguments.is_empty() && procedure.done.is_empty());
    assert_eq!(MetaState::from_rows(state.rows().unwrap()).unwrap(), state);
}

#[test]
fn repeated_request_begins_nothing() {
    let mut state = with_tables();
    run(&mut state, truncate(10, "t")).unwrap();
    for is_ended in [false, true] {
        if is_ended {
            complete(&mut state, 10);
        }
        let before = state.clone();
        assert_eq!(run(&mut state, truncate(10, "t")), Ok(CommandReply::Table(TableId(1))));
        let Kind::BeginProcedure(other) = truncate(10, "u") else { unreachable!() };
        for other in [other, v1::BeginProcedure { kind: TEST_KIND, ..begin_of(&truncate(10, "t")) }]
        {
            let refused = run(&mut state, Kind::BeginProcedure(other));
            assert_eq!(refused, Err(CommandError::RequestIdReused(id(10))));
        }
        assert_eq!(state, before);
    }
    assert_eq!(state.table(TableId(1)).unwrap().changes, 2);
}

fn begin_of(kind: &Kind) -> v1::BeginProcedure {
    let Kind::BeginProcedure(begin) = kind else { panic!("{kind:?}") };
    begin.clone()
}

#[test]
fn request_of_an_earlier_release_is_not_repeated() {
    let mut state = with_tables();
    let rules = |kind| v1::MetaCommand { rules: 2, ..crate::commands::testing::command(kind) };
    let begun = rules(Kind::BeginTruncateTable(truncation(10, "t")));
    crate::commands::testing::run_command(&mut state, begun).unwrap();
    let before = state.clone();
    assert_eq!(run(&mut state, truncate(10, "t")), Ok(CommandReply::Table(TableId(1))));
    let refused = run(&mut state, truncate(10, "u"));
    assert_eq!(refused, Err(CommandError::RequestIdReused(id(10))));
    assert_eq!(run(&mut state, test(10, 1)), Err(CommandError::RequestIdReused(id(10))));
    // Its change locks the table.
    let holder = LockHolder::Change { verb: "truncated" };
    let locked = Err(CommandError::Locked { table: "t".to_owned(), holder });
    assert_eq!(run(&mut state, truncate(11, "t")), locked);
    assert_eq!(state, before);
}

#[test]
fn id_of_a_procedure_begins_no_other_operation() {
    let mut state = with_tables();
    run(&mut state, truncate(10, "t")).unwrap();
    for is_ended in [false, true] {
        if is_ended {
            complete(&mut state, 10);
        }
        let before = state.clone();
        // The same request, by a service that has not seen the raise of the level yet.
        let rules = |kind| v1::MetaCommand { rules: 2, ..crate::commands::testing::command(kind) };
        let repeated = rules(Kind::BeginTruncateTable(truncation(10, "t")));
        let reply = crate::commands::testing::run_command(&mut state, repeated);
        assert_eq!(reply, Ok(CommandReply::Table(TableId(1))));
        let others = [
            Kind::BeginTruncateTable(truncation(10, "u")),
            Kind::AddHook(durable_hook(10, "h")),
            drop_table(10, "u"),
        ];
        for other in others {
            let reply = crate::commands::testing::run_command(&mut state, rules(other.clone()));
            assert_eq!(reply, Err(CommandError::RequestIdReused(id(10))), "{other:?}");
        }
        assert_eq!(state, before);
    }
}

#[test]
fn locked_table_accepts_no_other_operation() {
    let mut state = with_tables();
    run(&mut state, truncate(10, "t")).unwrap();
    let before = state.clone();
    let name = || "t".to_owned();
    let alter = v1::AlterTableRequest {
        request_id: directory(12),
        name: name(),
        columns: Vec::new(),
        ttl_ms: Some(5),
        compaction_window_ms: None,
        by_node: false,
        explicit_since: false,
    };
    let clone =
        v1::CloneTableRequest { request_id: directory(13), name: name(), new_name: "c".into() };
    let load = v1::BeginLoadRequest { request_id: directory(14), name: name(), timeout_ms: 0 };
    let others = [
        truncate(11, "t"),
        test(11, 1),
        Kind::BeginAlterTable(alter),
        Kind::CloneTable(clone),
        Kind::BeginLoad(load),
        Kind::BeginTruncateTable(truncation(15, "t")),
    ];
    for other in others {
        let refused = run(&mut state, other.clone()).unwrap_err();
        let CommandError::Locked { holder, .. } = &refused else { panic!("{refused}: {other:?}") };
        assert_eq!(
            *holder,
            LockHolder::Procedure { id: id(10), kind: TRUNCATE, table: Some(TableId(1)) }
        );
        assert!(refused.to_string().contains(&id(10).to_string()), "{refused}");
    }
    assert_eq!(state, before);
    run(&mut state, truncate(16, "u")).unwrap();
    complete(&mut state, 10);
    run(&mut state, truncate(17, "t")).unwrap();
    assert_eq!(state.table(TableId(1)).unwrap().changes, 3);
}

#[test]
fn drop_ends_procedures_that_permit_it() {
    let mut state = with_tables();
    run(&mut state, truncate(10, "t")).unwrap();
    run(&mut state, drop_table(11, "t")).unwrap();
    assert_eq!(state_of(&state, 10), (ProcedureState::Abandoned, 1));
    assert_eq!(state.procedures().running().count(), 0);
    // Past its point of no return.
    run(&mut state, test(12, 2)).unwrap();
    complete(&mut state, 12);
    complete(&mut state, 12);
    let refused = run(&mut state, drop_table(13, "u"));
    assert!(matches!(refused, Err(CommandError::Locked { .. })), "{refused:?}");
    complete(&mut state, 12);
    assert_eq!(state_of(&state, 12), (ProcedureState::Completed, 3));
    run(&mut state, drop_table(13, "u")).unwrap();
}

#[test]
fn late_reports_have_no_effect() {
    let mut state = with_tables();
    run(&mut state, test(10, 1)).unwrap();
    let first = v1::AdvanceProcedure { completed: true, ..report(&state, 10) };
    run(&mut state, Kind::AdvanceProcedure(first.clone())).unwrap();
    let before = state.clone();
    let other = v1::AdvanceProcedure { number: 9, ..report(&state, 10) };
    for late in [first.clone(), v1::AdvanceProcedure { completed: true, ..other }] {
        run(&mut state, Kind::AdvanceProcedure(late)).unwrap();
    }
    assert_eq!(state, before);
    let unknown = v1::AdvanceProcedure { id: wire_id(99), ..first.clone() };
    let refused = run(&mut state, Kind::AdvanceProcedure(unknown));
    assert_eq!(refused, Err(CommandError::ProcedureNotFound(id(99))));
    let malformed = v1::AdvanceProcedure { id: Bytes::from_static(b"short"), ..first };
    let refused = run(&mut state, Kind::AdvanceProcedure(malformed));
    assert!(matches!(refused, Err(CommandError::Malformed(_))));
}

#[test]
fn abandonment_ends_at_the_point_of_no_return() {
    let mut state = with_tables();
    run(&mut state, truncate(10, "t")).unwrap();
    let refused = abandon(&state, 10, AbandonCause::Operator);
    let refused = run(&mut state, refused);
    assert!(matches!(refused, Err(CommandError::NotAbandonable { .. })), "{refused:?}");

    run(&mut state, test(11, 2)).unwrap();
    complete(&mut state, 11);
    for _ in 0..2 {
        let again = abandon(&state, 11, AbandonCause::Operator);
        run(&mut state, again).unwrap();
        assert_eq!(state_of(&state, 11), (ProcedureState::Abandoning, 10));
    }
    assert_eq!(state.procedures().of_table(TableId(2)).count(), 1, "it holds its locks");
    complete(&mut state, 11);
    assert_eq!(state_of(&state, 11), (ProcedureState::Abandoned, 10));

    run(&mut state, test(12, 2)).unwrap();
    let numbers = [11, 12].map(|number| state.procedures().get(id(number)).unwrap().number);
    assert_eq!(numbers, [2, 3], "the number of an abandoned procedure is not used again");
    let early = abandon(&state, 12, AbandonCause::Deadline);
    assert!(run(&mut state, early.clone()).is_err());
    let later = v1::AdvanceTime { now_ms: 2_100, agreed_ms: 0 };
    run(&mut state, Kind::AdvanceTime(later)).unwrap();
    run(&mut state, early).unwrap();
    assert_eq!(state_of(&state, 12), (ProcedureState::Abandoning, 10));
    complete(&mut state, 12);

    run(&mut state, test(13, 2)).unwrap();
    complete(&mut state, 13);
    complete(&mut state, 13);
    let late = abandon(&state, 13, AbandonCause::Operator);
    let refused = run(&mut state, late);
    assert!(matches!(refused, Err(CommandError::NotAbandonable { .. })), "{refused:?}");
    let unknown = abandon(&state, 99, AbandonCause::Operator);
    assert_eq!(run(&mut state, unknown), Err(CommandError::ProcedureNotFound(id(99))));
}

#[test]
fn route_is_changed_by_one_procedure_at_a_time() {
    let mut state = with_tables();
    run(&mut state, test(10, 1)).unwrap();
    let refused = run(&mut state, test(11, 1)).unwrap_err();
    let holder = LockHolder::Procedure { id: id(10), kind: TEST_KIND, table: None };
    assert_eq!(refused, CommandError::Locked { table: "t".to_owned(), holder });
}

#[test]
fn procedure_of_a_later_release_keeps_its_locks() {
    let mut state = with_tables();
    run(&mut state, truncate(10, "t")).unwrap();
    let later = Procedure {
        kind: 77,
        arguments: Bytes::from_static(b"of the future"),
        ..state.procedures().get(id(10)).unwrap().as_ref().clone()
    };
    let change = CatalogChange { procedures: vec![later.clone()], ..CatalogChange::default() };
    crate::commands::apply_change(&mut state, change).unwrap();
    let mut state = MetaState::from_rows(state.rows().unwrap()).unwrap();
    assert_eq!(state.procedures().get(id(10)).unwrap().as_ref(), &later);
    let unknown = Err(CommandError::UnknownProcedureKind(77));
    let advance = v1::AdvanceProcedure { completed: true, ..report(&state, 10) };
    assert_eq!(run(&mut state, Kind::AdvanceProcedure(advance)), unknown);
    let abandon = abandon(&state, 10, AbandonCause::Operator);
    assert_eq!(run(&mut state, abandon), unknown);
    let begin = v1::BeginProcedure { kind: 77, ..begin_of(&truncate(11, "t")) };
    assert_eq!(run(&mut state, Kind::BeginProcedure(begin)), unknown);
    let refused = run(&mut state, truncate(12, "t")).unwrap_err().to_string();
    assert!(refused.contains("changed by a later release"), "{refused}");
    assert!(run(&mut state, drop_table(13, "t")).is_err());
}

#[test]
fn procedures_need_their_level() {
    let mut state = with_groups(1, 1);
    raise(&mut state, 2, &[(NodeId(101), 0)]);
    let refused = run(&mut state, truncate(10, "t"));
    assert!(matches!(refused, Err(CommandError::FeatureLevel { .. })), "{refused:?}");
}

#[test]
fn ended_procedures_are_forgotten_after_a_day() {
    let mut state = with_tables();
    run(&mut state, truncate(10, "t")).unwrap();
    run(&mut state, truncate(11, "u")).unwrap();
    complete(&mut state, 10);
    let day_ms = 24 * 3_600_000;
    let at = |now_ms| Kind::AdvanceTime(v1::AdvanceTime { now_ms, agreed_ms: now_ms });
    let now_ms = state.header().time_ms;
    run(&mut state, at(now_ms + day_ms)).unwrap();
    // With those that have created the tables.
    assert_eq!(state.procedures().count(), 4);
    run(&mut state, at(now_ms + day_ms + 1)).unwrap();
    assert_eq!(state.procedures().iter().map(|of| of.id).collect::<Vec<_>>(), [id(11)]);
}

#[test]
fn room_is_made_for_all_new_procedures() {
    let mut state = with_tables();
    // The creations of the tables have ended first.
    let first_ms = state.header().time_ms;
    fill(&mut state, MAX_OUTCOMES - 1, first_ms + 1);
    let full = || Err(CommandError::OutcomesFull(MAX_OUTCOMES - 1));
    let first = || vec![id(1), id(2)];
    // Replicated time after the first end, and the result for each number of procedures, from 0.
    let results = [
        (RETRY_WINDOW_MS, [Ok(vec![]), Ok(vec![]), full(), full(), full()]),
        (RETRY_WINDOW_MS + 1, [Ok(vec![]), Ok(vec![]), Ok(vec![id(1)]), Ok(first()), full()]),
    ];
    for (passed_ms, expected) in results {
        set_time(&mut state, first_ms + passed_ms);
        for (new, expected) in expected.into_iter().enumerate() {
            assert_eq!(make_room(&state, new), expected, "{new} after {passed_ms} ms");
        }
    }
    // Those that have ended at the same time, by id.
    set_time(&mut state, first_ms + RETRY_WINDOW_MS + 2);
    let forgotten = make_room(&state, 101).unwrap();
    assert_eq!((forgotten.len(), &forgotten[..2]), (100, &first()[..]));
}
