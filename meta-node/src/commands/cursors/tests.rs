use tidewater_proto::v1::meta_command::Kind;

use super::*;
use crate::commands::testing::{directory, drop_table, run, table, with_groups};

/// Tables "t" (regions 1 and 2) and "u" (region 3).
fn state() -> MetaState {
    let mut state = with_groups(1, 1);
    let two = v1::CreateTableRequest { regions: 2, ..table(1, "t") };
    run(&mut state, Kind::CreateTable(two)).unwrap();
    run(&mut state, Kind::CreateTable(table(2, "u"))).unwrap();
    state
}

fn adding(request: u64, name: &str, table: &str) -> v1::AddHookRequest {
    v1::AddHookRequest {
        request_id: directory(request),
        name: name.into(),
        kind: "jsonl".into(),
        config: "{}".into(),
        table: table.into(),
        durable: true,
        ..v1::AddHookRequest::default()
    }
}

fn add(state: &mut MetaState, request: v1::AddHookRequest) {
    run(state, Kind::AddHook(request)).unwrap();
}

fn advance(state: &mut MetaState, advances: Vec<v1::CursorAdvance>) {
    run(state, Kind::AdvanceCursors(v1::AdvanceCursors { advances })).unwrap();
}

/// From where the cursor is to there.
fn to(state: &MetaState, region: u64, hook: &str, at: (u64, CursorState)) -> v1::CursorAdvance {
    let cursor = state.cursors().get(RegionId(region), hook).unwrap();
    v1::CursorAdvance {
        hook: hook.into(),
        generation: cursor.generation.get(),
        region_id: region,
        expected_version: cursor.version.get(),
        expected_state: cursor.state.into(),
        version: at.0,
        state: at.1.into(),
        done: false,
    }
}

fn done(state: &MetaState, region: u64, hook: &str) -> v1::CursorAdvance {
    v1::CursorAdvance { done: true, ..to(state, region, hook, (0, CursorState::Unspecified)) }
}

/// Region, version and state of a hook's cursors.
fn cursors(state: &MetaState, hook: &str) -> Vec<(u64, u64, CursorState)> {
    let short = |cursor: &Cursor| (cursor.region.get(), cursor.version.get(), cursor.state);
    state.cursors().of_hook(hook).map(short).collect()
}

#[test]
fn a_durable_hook_has_a_cursor_for_each_region_that_it_sees() {
    use CursorState::{From, Now, Start, Tail};
    let mut state = state();
    add(&mut state, adding(10, "now", ""));
    let from = v1::AddHookRequest {
        start: HookStart::Version.into(),
        version: 7,
        ..adding(11, "from", "u")
    };
    add(&mut state, from);
    let start = HookStart::Snapshot.into();
    add(&mut state, v1::AddHookRequest { start, ..adding(12, "all", "t") });
    add(&mut state, v1::AddHookRequest { durable: false, ..adding(13, "other", "") });
    assert_eq!(cursors(&state, "now"), [(1, 0, Now), (2, 0, Now), (3, 0, Now)]);
    assert_eq!(cursors(&state, "from"), [(3, 6, From)]);
    assert_eq!(cursors(&state, "all"), [(1, 0, Start), (2, 0, Start)]);
    assert_eq!(cursors(&state, "other"), []);
    // A new table is told of from its first version on.
    run(&mut state, Kind::CreateTable(table(3, "v"))).unwrap();
    assert_eq!(cursors(&state, "now").last(), Some(&(4, 0, Tail)));
    assert_eq!(cursors(&state, "all").len(), 2);
    let remove = v1::RemoveHookRequest { request_id: directory(20), name: "now".into() };
    run(&mut state, Kind::RemoveHook(remove)).unwrap();
    assert_eq!(cursors(&state, "now"), []);
    assert_eq!(cursors(&state, "from"), [(3, 6, From)]);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let state = state();
    let refused = |request: v1::AddHookRequest| {
        let answer = run(&mut state.clone(), Kind::AddHook(request.clone()));
        assert!(matches!(answer, Err(CommandError::Malformed(_))), "{request:?}: {answer:?}");
    };
    let version = HookStart::Version.into();
    refused(v1::AddHookRequest { start: version, ..adding(10, "a", "") });
    refused(v1::AddHookRequest { version: 1, ..adding(10, "a", "") });
    refused(v1::AddHookRequest { start: 9, ..adding(10, "a", "") });
    refused(v1::AddHookRequest {
        durable: false,
        start: version,
        version: 1,
        ..adding(10, "a", "")
    });
    let mut many = state.clone();
    for number in 0..16 {
        add(&mut many, adding(100 + number, &format!("h{number}"), ""));
    }
    let answer = run(&mut many, Kind::AddHook(adding(10, "a", "")));
    assert_eq!(answer, Err(CommandError::TooManyDurableHooks(16)));
    let advances = vec![v1::CursorAdvance::default(); MOST_ADVANCES + 1];
    let answer = run(&mut many, Kind::AdvanceCursors(v1::AdvanceCursors { advances }));
    assert_eq!(answer, Err(CommandError::TooManyAdvances(MOST_ADVANCES + 1)));
}

#[test]
fn a_cursor_moves_from_what_is_expected_and_watchers_do_not_see_it() {
    use CursorState::{Now, Tail};
    let mut state = state();
    add(&mut state, adding(10, "h", "t"));
    let revision = state.header().revision;
    let late = to(&state, 1, "h", (9, Tail));
    let first = to(&state, 1, "h", (5, Tail));
    let second = to(&state, 2, "h", (4, Tail));
    // Of two in one command, the first counts.
    advance(&mut state, vec![first, second, late.clone()]);
    assert_eq!(cursors(&state, "h"), [(1, 5, Tail), (2, 4, Tail)]);
    // Decided on a cursor that has moved since.
    advance(&mut state, vec![late]);
    let other = v1::CursorAdvance { generation: 1, ..to(&state, 1, "h", (6, Tail)) };
    let unknown = v1::CursorAdvance { region_id: 99, ..to(&state, 1, "h", (6, Tail)) };
    let back = [to(&state, 1, "h", (5, Tail)), to(&state, 2, "h", (4, Now))];
    advance(&mut state, [vec![other, unknown], back.to_vec()].concat());
    assert_eq!(cursors(&state, "h"), [(1, 5, Tail), (2, 4, Tail)]);
    assert_eq!(state.header().revision, revision);
}

#[test]
fn a_cursor_moves_only_in_ways_that_mean_something() {
    use CursorState::{From, Gone, Lagged, Now, Start, Tail, Unspecified};
    let all = [Unspecified, Now, Start, From, Tail, Lagged, Gone];
    let v = ManifestVersion;
    for from in all {
        for to in all {
            let moves = |version| may_move((v(5), from), (v(version), to));
            let expected = match (from, to) {
                (Now | Start | Lagged, Tail) => [false, true, true],
                (Tail, Tail) => [false, false, true],
                (From, Tail | Gone) | (Tail, Lagged) => [false, true, false],
                _ => [false, false, false],
            };
            assert_eq!([moves(4), moves(5), moves(6)], expected, "{from:?} to {to:?}");
        }
    }
}

#[test]
fn a_dropped_region_is_told_to_its_end() {
    let mut state = state();
    add(&mut state, adding(10, "all", ""));
    add(&mut state, adding(11, "only", "t"));
    let names = |state: &MetaState| -> Vec<String> {
        state.hooks().map(|hook| hook.name.clone()).collect()
    };
    // A region that has a route is not at its end, whoever says so.
    let early = done(&state, 1, "all");
    advance(&mut state, vec![early]);
    assert_eq!(cursors(&state, "all").len(), 3);
    let id = state.table_named("t").unwrap().id;
    run(&mut state, drop_table(20, "t")).unwrap();
    let told = done(&state, 1, "only");
    advance(&mut state, vec![told]);
    run(&mut state, Kind::FinishDropTable(v1::FinishDropTable { table_id: id.get() })).unwrap();
    assert_eq!(names(&state), ["all", "only"], "it has still to be told of region 2");
    let told = vec![done(&state, 2, "only"), done(&state, 2, "all"), done(&state, 1, "all")];
    advance(&mut state, told);
    assert_eq!(names(&state), ["all"]);
    assert_eq!(cursors(&state, "all").len(), 1);
    // Told before the drop was finished, it goes with the table.
    add(&mut state, adding(12, "brief", "u"));
    let id = state.table_named("u").unwrap().id;
    run(&mut state, drop_table(21, "u")).unwrap();
    let told = done(&state, 3, "brief");
    advance(&mut state, vec![told]);
    assert_eq!(names(&state), ["all", "brief"]);
    run(&mut state, Kind::FinishDropTable(v1::FinishDropTable { table_id: id.get() })).unwrap();
    assert_eq!(names(&state), ["all"]);
}
