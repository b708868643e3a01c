use tidewater_common::ids::Generation;
use tidewater_proto::v1::meta_command::Kind;
use tidewater_proto::v1::{AbandonCause, MergeCounts, Reason, RefreshOutcome, RefreshTrigger};

use super::*;
use crate::catalog::Refreshes;
use crate::commands::RefreshCommandError;
use crate::commands::procedures::testing::{
    abandon, begin, complete, of, report, state_of, with_tables,
};
use crate::commands::testing::{directory, drop_table, pass, run, table};

const T: TableId = TableId(3);

/// A state with the refreshable table "r" of two regions, id 3, besides the tables "t" and "u".
fn with_refreshable(interval_ms: u64) -> MetaState {
    let mut state = with_tables();
    let settings = v1::RefreshSettings { interval_ms, ..v1::RefreshSettings::default() };
    let definition = v1::RefreshDefinition {
        source_kind: "csv".to_owned(),
        source_config: "{}".to_owned(),
        settings: Some(settings),
    };
    let request = v1::CreateTableRequest { regions: 2, refresh: Some(definition), ..table(5, "r") };
    run(&mut state, begin(v1::ProcedureKind::Create, 5, &request)).unwrap();
    complete(&mut state, 5);
    state
}

fn request(number: u64) -> v1::RefreshRequest {
    v1::RefreshRequest {
        request_id: directory(number),
        table_id: T.get(),
        trigger: RefreshTrigger::Manual.into(),
        ..v1::RefreshRequest::default()
    }
}

fn start(number: u64) -> Kind {
    begin(v1::ProcedureKind::Refresh, number, &request(number))
}

fn refreshes(state: &MetaState) -> &Refreshes {
    state.refreshes_of(T).unwrap()
}

/// Completes a step that waits for the refresh manager.
fn finish(
    state: &mut MetaState,
    number: u64,
    result: &v1::RefreshStepResult,
) -> Result<(), CommandError> {
    let result = result.encode_to_vec().into();
    let completed =
        v1::AdvanceProcedure { completed: true, requested: true, result, ..report(state, number) };
    run(state, Kind::AdvanceProcedure(completed)).map(drop)
}

fn loaded(rows: u64) -> v1::RefreshStepResult {
    v1::RefreshStepResult { source_rows: rows, ..v1::RefreshStepResult::default() }
}

fn merged(epoch: u64) -> v1::RefreshStepResult {
    let counts = Some(MergeCounts { inserted: 5, ..MergeCounts::default() });
    v1::RefreshStepResult {
        epoch,
        previous_until: epoch + 10,
        counts,
        ..v1::RefreshStepResult::default()
    }
}

/// Carries a refresh out.
fn refresh(state: &mut MetaState, number: u64, rows: u64, epoch: u64) {
    run(state, start(number)).unwrap();
    complete(state, number);
    finish(state, number, &loaded(rows)).unwrap();
    complete(state, number);
    finish(state, number, &merged(epoch)).unwrap();
    complete(state, number);
}

fn fail(state: &mut MetaState, number: u64, reason: Reason) {
    let failure =
        v1::ProcedureFailure { reason: reason.into(), message: "no source".into(), since_ms: 0 };
    let failed = v1::AdvanceProcedure { failure: Some(failure), ..report(state, number) };
    run(state, Kind::AdvanceProcedure(failed)).unwrap();
    let back = abandon(state, number, AbandonCause::Failed);
    run(state, back).unwrap();
    assert_eq!(state_of(state, number), (ProcedureState::Abandoning, steps::ABANDON));
    complete(state, number);
}

#[test]
fn refresh_is_loaded_merged_published_and_cleaned_up() {
    let mut state = with_refreshable(0);
    run(&mut state, start(10)).unwrap();
    let regions = RefreshTable.regions(&state, of(&state, 10));
    assert_eq!(regions.len(), 2);
    let call = |state: &MetaState| RefreshTable.call(state, of(state, 10), regions[0]);
    let Some(RegionCall::OpenArea(open)) = call(&state) else { panic!("no opening") };
    assert_eq!(open.area_id, area(of(&state, 10)));
    complete(&mut state, 10);
    assert_eq!(state_of(&state, 10).1, steps::LOAD);
    assert!(call(&state).is_none() && RefreshTable.regions(&state, of(&state, 10)).is_empty());
    finish(&mut state, 10, &loaded(1_000)).unwrap();
    let Some(RegionCall::MergeStaged(_)) = call(&state) else { panic!("no merge") };
    complete(&mut state, 10);
    assert_eq!(state.table(T).unwrap().published, Epoch(0));
    // The manager asks the regions for their counts.
    assert!(of(&state, 10).published.as_ref().unwrap().load_merging);
    finish(&mut state, 10, &merged(500)).unwrap();
    assert_eq!(state.table(T).unwrap().published, Epoch(500));
    let Some(RegionCall::CloseArea(close)) = call(&state) else { panic!("no cleanup") };
    assert_eq!((close.publish, close.published_epoch, close.previous_until), (false, 500, 510));
    // It is past its point of no return.
    for cause in [AbandonCause::Operator, AbandonCause::Failed] {
        let late = abandon(&state, 10, cause);
        assert!(run(&mut state, late).is_err());
    }
    complete(&mut state, 10);
    let after = refreshes(&state);
    assert_eq!((after.generation, after.published_rows, after.failures), (Generation(1), 1_000, 0));
    assert_eq!((after.current.is_none(), after.history.len()), (true, 1));
    let run_of = &after.history[0];
    assert_eq!(run_of.outcome(), RefreshOutcome::Published);
    assert_eq!(run_of.counts.unwrap().inserted, 5);
    let stored = MetaState::from_rows(state.rows().unwrap()).unwrap();
    assert_eq!(stored, state);
}

#[test]
fn one_refresh_of_a_table_is_in_progress() {
    let mut state = with_refreshable(0);
    run(&mut state, start(10)).unwrap();
    // The same request is the same refresh.
    run(&mut state, start(10)).unwrap();
    assert_eq!(refreshes(&state).generation, Generation(1));
    let error = run(&mut state, start(11)).unwrap_err();
    assert_eq!(error.reason(), Reason::AlreadyRefreshing);
    assert!(error.to_string().contains("refresh 1 of table"), "{error}");
    complete(&mut state, 10);
    fail(&mut state, 10, Reason::SourceUnreadable);
    run(&mut state, start(11)).unwrap();
    assert_eq!(refreshes(&state).generation, Generation(2));
}

#[test]
fn invalid_refresh_begins_nothing() {
    let mut state = with_refreshable(0);
    let of_table = |table_id: u32, source: u64| v1::RefreshRequest {
        table_id,
        associated_source_id: source,
        ..request(10)
    };
    for (request, expected) in [
        (of_table(99, 0), Reason::TableNotFound),
        (of_table(1, 0), Reason::NotRefreshable),
        (of_table(3, 77), Reason::SourceMismatch),
    ] {
        let error = run(&mut state, begin(v1::ProcedureKind::Refresh, 10, &request)).unwrap_err();
        assert_eq!(error.reason(), expected, "{error}");
    }
    let source = refreshes(&state).source.get();
    let named = begin(v1::ProcedureKind::Refresh, 10, &of_table(3, source));
    run(&mut state, named).unwrap();
}

#[test]
fn refreshable_table_is_changed_by_refreshes_only() {
    let mut state = with_refreshable(0);
    let name = || "r".to_owned();
    let truncate = v1::TruncateTableRequest { request_id: directory(10), name: name() };
    let load = v1::BeginLoadRequest { request_id: directory(10), name: name(), timeout_ms: 0 };
    let clone =
        v1::CloneTableRequest { request_id: directory(10), name: name(), new_name: "s".to_owned() };
    for refused in [
        begin(v1::ProcedureKind::Truncate, 10, &truncate),
        begin(v1::ProcedureKind::Load, 10, &load),
        begin(v1::ProcedureKind::Clone, 10, &clone),
    ] {
        let error = run(&mut state, refused).unwrap_err();
        assert_eq!(error.reason(), Reason::TableRefreshable, "{error}");
    }
}

#[test]
fn shrunken_source_is_refused_unless_forced() {
    let mut state = with_refreshable(0);
    refresh(&mut state, 10, 1_000, 500);
    run(&mut state, start(11)).unwrap();
    complete(&mut state, 11);
    for rows in [0, 499] {
        let error = finish(&mut state, 11, &loaded(rows)).unwrap_err();
        assert_eq!(error.reason(), Reason::SourceShrunk, "{error}");
    }
    fail(&mut state, 11, Reason::SourceShrunk);
    assert_eq!(refreshes(&state).next_ms, None, "a retry would shrink it again");
    let forced = v1::RefreshRequest { force: true, ..request(12) };
    run(&mut state, begin(v1::ProcedureKind::Refresh, 12, &forced)).unwrap();
    complete(&mut state, 12);
    finish(&mut state, 12, &loaded(0)).unwrap();
}

#[test]
fn failed_refresh_keeps_the_published_epoch_and_is_retried() {
    let mut state = with_refreshable(60_000);
    refresh(&mut state, 10, 1_000, 500);
    let next_ms = refreshes(&state).next_ms.unwrap();
    let begun_ms = refreshes(&state).history[0].begun_ms;
    assert!((60_000..66_000).contains(&(next_ms - begun_ms)), "{next_ms} after {begun_ms}");
    for failures in 1..=3_u32 {
        let number = 10 + u64::from(failures);
        run(&mut state, start(number)).unwrap();
        complete(&mut state, number);
        finish(&mut state, number, &loaded(1_000)).unwrap();
        fail(&mut state, number, Reason::SourceMismatch);
        let after = refreshes(&state);
        let wait_ms = after.next_ms.unwrap() - state.header().time_ms;
        assert_eq!((after.failures, wait_ms), (failures, 5_000 << (failures - 1)));
        assert_eq!(after.history[0].error, "no source");
        assert_eq!(state.table(T).unwrap().published, Epoch(500));
    }
    refresh(&mut state, 20, 900, 700);
    assert_eq!((refreshes(&state).failures, refreshes(&state).published_rows), (0, 900));
}

#[test]
fn refresh_on_request_is_retried_once() {
    let mut state = with_refreshable(0);
    for (number, is_retried) in [(10, true), (11, false)] {
        run(&mut state, start(number)).unwrap();
        complete(&mut state, number);
        fail(&mut state, number, Reason::SourceUnreadable);
        assert_eq!(refreshes(&state).next_ms.is_some(), is_retried);
    }
}

#[test]
fn cancelled_refresh_is_taken_back_before_publication() {
    for completed in 0..4 {
        let mut state = with_refreshable(0);
        run(&mut state, start(10)).unwrap();
        for step in 0..completed {
            match step {
                1 => finish(&mut state, 10, &loaded(5)).unwrap(),
                _ => complete(&mut state, 10),
            }
        }
        let cancel = abandon(&state, 10, AbandonCause::Operator);
        run(&mut state, cancel).unwrap();
        let Some(RegionCall::CloseArea(close)) =
            RefreshTable.call(&state, of(&state, 10), regions_of(&state, T)[0])
        else {
            panic!("no abandonment")
        };
        assert_eq!(close.published_epoch, 0);
        complete(&mut state, 10);
        let after = refreshes(&state);
        assert_eq!(after.history[0].outcome(), RefreshOutcome::Cancelled);
        assert_eq!((after.failures, after.next_ms), (0, None));
    }
}

#[test]
fn published_epoch_never_goes_back() {
    let mut state = with_refreshable(0);
    refresh(&mut state, 10, 5, 500);
    run(&mut state, start(11)).unwrap();
    complete(&mut state, 11);
    finish(&mut state, 11, &loaded(5)).unwrap();
    complete(&mut state, 11);
    for epoch in [0, 499, 500] {
        assert!(finish(&mut state, 11, &merged(epoch)).is_err());
    }
    finish(&mut state, 11, &merged(501)).unwrap();
}

#[test]
fn paused_refreshes_are_not_begun() {
    let mut state = with_refreshable(0);
    let alter = |paused| {
        let table = "r".to_owned();
        Kind::AlterRefresh(v1::AlterRefreshRequest { table, paused: Some(paused), settings: None })
    };
    run(&mut state, alter(true)).unwrap();
    let error = run(&mut state, start(10)).unwrap_err();
    assert!(matches!(error, CommandError::Refresh(RefreshCommandError::Paused(_))), "{error}");
    run(&mut state, alter(false)).unwrap();
    run(&mut state, start(10)).unwrap();
}

#[test]
fn invalid_settings_are_refused() {
    let mut state = with_refreshable(0);
    for settings in [
        v1::RefreshSettings { interval_ms: 999, ..Default::default() },
        v1::RefreshSettings { interval_ms: u64::MAX, ..Default::default() },
        v1::RefreshSettings { deadline_ms: 1, ..Default::default() },
        v1::RefreshSettings { min_rows_percent: Some(101), ..Default::default() },
    ] {
        let request = v1::AlterRefreshRequest {
            table: "r".to_owned(),
            paused: None,
            settings: Some(settings),
        };
        let error = run(&mut state, Kind::AlterRefresh(request)).unwrap_err();
        assert_eq!(error.reason(), Reason::InvalidArgument, "{error}");
    }
}

#[test]
fn drop_during_a_refresh_ends_it() {
    let mut state = with_refreshable(0);
    run(&mut state, start(10)).unwrap();
    complete(&mut state, 10);
    run(&mut state, drop_table(11, "r")).unwrap();
    assert_eq!(state_of(&state, 10).0, ProcedureState::Abandoned);
    let source = refreshes(&state).source;
    let drop = state.procedures().running().next().map(|procedure| procedure.id);
    if drop.is_some() {
        complete(&mut state, 11);
    } else {
        run(&mut state, Kind::FinishDropTable(v1::FinishDropTable { table_id: T.get() })).unwrap();
    }
    assert!(state.refreshes_of(T).is_none() && state.source(source).is_none());
}

#[test]
fn history_of_refreshes_is_bounded() {
    let mut state = with_refreshable(0);
    for number in 10..40 {
        refresh(&mut state, number, 5, number * 10);
        pass(&mut state, 1);
    }
    let history = &refreshes(&state).history;
    assert_eq!(history.len(), crate::catalog::RUNS_KEPT);
    assert_eq!((history[0].generation, history[19].generation), (30, 11));
}
