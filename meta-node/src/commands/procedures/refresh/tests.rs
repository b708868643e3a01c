use tidewater_common::ids::Generation;
use tidewater_proto::v1::meta_command::Kind;
use tidewater_proto::v1::{AbandonCause, Reason, RefreshOutcome};

use super::testing::{
    T, carry_out, fail, finish, loaded, merged, refresh, refreshes, request, start,
    start_by_itself, with_refreshable,
};
use super::*;
use crate::commands::RefreshCommandError;
use crate::commands::procedures::testing::{abandon, begin, complete, id, of, state_of, wire_id};
use crate::commands::testing::{directory, drop_table, pass, run};

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
        run(&mut state, start_by_itself(number)).unwrap();
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
    for (start, number, is_retried) in [
        (start as fn(u64) -> Kind, 10, true),
        (start_by_itself, 11, false),
        // Another request.
        (start, 12, true),
        (start_by_itself, 13, false),
    ] {
        run(&mut state, start(number)).unwrap();
        complete(&mut state, number);
        fail(&mut state, number, Reason::SourceUnreadable);
        assert_eq!(refreshes(&state).next_ms.is_some(), is_retried);
    }
}

#[test]
fn cancelled_refresh_is_abandoned_before_publication() {
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
    for epoch in [0, 499] {
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

#[test]
fn superseded_cleanup_ends_its_refresh() {
    for (is_published, expected) in
        [(true, RefreshOutcome::Published), (false, RefreshOutcome::Failed)]
    {
        let mut state = with_refreshable(0);
        run(&mut state, start(10)).unwrap();
        complete(&mut state, 10);
        if is_published {
            finish(&mut state, 10, &loaded(1_000)).unwrap();
            complete(&mut state, 10);
            finish(&mut state, 10, &merged(500)).unwrap();
        } else {
            let back = abandon(&state, 10, AbandonCause::Failed);
            run(&mut state, back).unwrap();
        }
        let superseded = abandon(&state, 10, AbandonCause::Superseded);
        run(&mut state, superseded).unwrap();
        assert!(!of(&state, 10).is_running());
        assert!(refreshes(&state).current.is_none());
        assert_eq!(refreshes(&state).history[0].outcome(), expected);
        run(&mut state, start(11)).unwrap();
    }
}

#[test]
fn failure_of_an_earlier_step_abandons_nothing() {
    let mut state = with_refreshable(0);
    run(&mut state, start(10)).unwrap();
    complete(&mut state, 10);
    // The outcome of the completion was unknown to the manager, which then abandons the refresh.
    let late = abandon(&state, 10, AbandonCause::Failed);
    finish(&mut state, 10, &loaded(5)).unwrap();
    let error = run(&mut state, late).unwrap_err();
    assert_eq!(error.reason(), Reason::ProcedureNotAbandonable, "{error}");
    assert_eq!(state_of(&state, 10), (ProcedureState::Running, steps::MERGE));
}

#[test]
fn history_names_the_cause_of_an_abandonment() {
    for (cause, reason, words) in [
        (AbandonCause::Superseded, Reason::ProcedureSuperseded, "a data group has ended"),
        (AbandonCause::Failed, Reason::Internal, "its error was not recorded"),
    ] {
        let mut state = with_refreshable(0);
        run(&mut state, start(10)).unwrap();
        let back = abandon(&state, 10, cause);
        run(&mut state, back).unwrap();
        complete(&mut state, 10);
        let last = &refreshes(&state).history[0];
        assert_eq!(last.outcome(), RefreshOutcome::Failed);
        assert_eq!(last.error_reason, i32::from(reason));
        assert!(last.error.contains(words), "{}", last.error);
    }
}

#[test]
fn refreshes_that_begin_by_themselves_leave_one_record() {
    let mut state = with_refreshable(60_000);
    let count = |state: &MetaState| state.procedures().count();
    refresh(&mut state, 10, 1_000, 500);
    let before = count(&state);
    for number in 11..20 {
        run(&mut state, start_by_itself(number)).unwrap();
        carry_out(&mut state, number, 1_000, 500 + number);
        assert_eq!(count(&state), before + 1, "{number}");
    }
    // The record of a request that a user may repeat is kept.
    assert!(state.procedures().get(id(10)).is_some());
}

#[test]
fn refresh_without_changes_keeps_the_published_epoch() {
    let mut state = with_refreshable(0);
    refresh(&mut state, 10, 1_000, 500);
    refresh(&mut state, 11, 1_000, 500);
    assert_eq!(state.table(T).unwrap().published, Epoch(500));
    assert_eq!(refreshes(&state).history[0].outcome(), RefreshOutcome::Published);
}

#[test]
fn cancelled_refresh_begins_again_after_its_interval() {
    let mut state = with_refreshable(60_000);
    run(&mut state, start(10)).unwrap();
    pass(&mut state, 120);
    let cancel = abandon(&state, 10, AbandonCause::Operator);
    run(&mut state, cancel).unwrap();
    complete(&mut state, 10);
    let now_ms = state.header().time_ms;
    assert!(refreshes(&state).next_ms.unwrap() >= now_ms + 60_000);
    // One that takes longer than its interval leaves a pause.
    run(&mut state, start(11)).unwrap();
    pass(&mut state, 120);
    carry_out(&mut state, 11, 1_000, 500);
    let now_ms = state.header().time_ms;
    assert_eq!(refreshes(&state).next_ms, Some(now_ms + 6_000));
}

#[test]
fn forced_refresh_is_recorded_as_forced() {
    let mut state = with_refreshable(0);
    let forced = v1::RefreshRequest { force: true, ..request(10) };
    run(&mut state, begin(v1::ProcedureKind::Refresh, 10, &forced)).unwrap();
    fail(&mut state, 10, Reason::LeadershipLost);
    let last = refreshes(&state).history[0].clone();
    assert!(last.force && last.request_id == wire_id(10));
    // A request of a user counts its failures anew.
    assert_eq!(refreshes(&state).failures, 1);
    run(&mut state, start(11)).unwrap();
    assert_eq!(refreshes(&state).failures, 0);
}

#[test]
fn other_settings_keep_the_time_of_the_next_refresh() {
    let mut state = with_refreshable(0);
    run(&mut state, start(10)).unwrap();
    fail(&mut state, 10, Reason::SourceUnreadable);
    let retry = refreshes(&state).next_ms;
    assert!(retry.is_some());
    let settings = v1::RefreshSettings { deadline_ms: 60_000, ..v1::RefreshSettings::default() };
    let alter =
        v1::AlterRefreshRequest { table: "r".into(), paused: None, settings: Some(settings) };
    run(&mut state, Kind::AlterRefresh(alter)).unwrap();
    assert_eq!(refreshes(&state).next_ms, retry);
}
