use tidewater_proto::v1::meta_command::Kind;

use tidewater_common::ids::Incarnation;

use super::*;
use crate::catalog::Header;
use crate::commands::apply_change;
use crate::commands::testing::{directory, drop_table, durable_hook, run, table, with_groups};

/// Tables "t" (regions 1 and 2) and "u" (region 3).
fn state() -> MetaState {
    let mut state = with_groups(1, 1);
    let two = v1::CreateTableRequest { regions: 2, ..table(1, "t") };
    run(&mut state, Kind::CreateTable(two)).unwrap();
    run(&mut state, Kind::CreateTable(table(2, "u"))).unwrap();
    state
}

fn adding(request: u64, name: &str, table: &str) -> v1::AddHookRequest {
    v1::AddHookRequest { table: table.into(), ..durable_hook(request, name) }
}

fn add(state: &mut MetaState, request: v1::AddHookRequest) {
    run(state, Kind::AddHook(request)).unwrap();
}

fn advance(state: &mut MetaState, advances: Vec<v1::CursorAdvance>) {
    run(state, Kind::AdvanceCursors(v1::AdvanceCursors { advances })).unwrap();
}

/// An update of a cursor from its current position to `at`.
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
    let short = |cursor: &HookCursor| (cursor.region.get(), cursor.version.get(), cursor.state);
    state.cursors().of_hook(hook).map(short).collect()
}

#[test]
fn durable_hook_has_a_cursor_for_each_observed_region() {
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
    // The hook receives a new table from its first version on.
    run(&mut state, Kind::CreateTable(table(3, "v"))).unwrap();
    assert_eq!(cursors(&state, "now").last(), Some(&(4, 0, Tail)));
    assert_eq!(cursors(&state, "all").len(), 2);
    let remove = v1::RemoveHookRequest { request_id: directory(20), name: "now".into() };
    run(&mut state, Kind::RemoveHook(remove)).unwrap();
    assert_eq!(cursors(&state, "now"), []);
    assert_eq!(cursors(&state, "from"), [(3, 6, From)]);
}

#[test]
fn invalid_hook_starts_and_excess_cursors_are_rejected() {
    let state = state();
    let assert_malformed = |request: v1::AddHookRequest| {
        let result = run(&mut state.clone(), Kind::AddHook(request.clone()));
        assert!(matches!(result, Err(CommandError::Malformed(_))), "{request:?}: {result:?}");
    };
    let version = HookStart::Version.into();
    assert_malformed(v1::AddHookRequest { start: version, ..adding(10, "a", "") });
    assert_malformed(v1::AddHookRequest { version: 1, ..adding(10, "a", "") });
    assert_malformed(v1::AddHookRequest { start: 9, ..adding(10, "a", "") });
    assert_malformed(v1::AddHookRequest {
        durable: false,
        start: version,
        version: 1,
        ..adding(10, "a", "")
    });
    let mut many = state.clone();
    for number in 0..16 {
        add(&mut many, adding(100 + number, &format!("h{number}"), ""));
    }
    let result = run(&mut many, Kind::AddHook(adding(10, "a", "")));
    assert_eq!(result, Err(CommandError::Hook(HookCommandError::TooManyDurableHooks(16))));
    let advances = vec![v1::CursorAdvance::default(); MAX_ADVANCES + 1];
    let result = run(&mut many, Kind::AdvanceCursors(v1::AdvanceCursors { advances }));
    assert_eq!(
        result,
        Err(CommandError::Hook(HookCommandError::TooManyAdvances(MAX_ADVANCES + 1)))
    );
}

#[test]
fn cursor_moves_only_from_the_expected_position() {
    use CursorState::{Now, Tail};
    let mut state = state();
    add(&mut state, adding(10, "h", "t"));
    let revision = state.header().revision;
    let late = to(&state, 1, "h", (9, Tail));
    let first = to(&state, 1, "h", (5, Tail));
    let second = to(&state, 2, "h", (4, Tail));
    // The first of two updates in one command wins.
    advance(&mut state, vec![first, second, late.clone()]);
    assert_eq!(cursors(&state, "h"), [(1, 5, Tail), (2, 4, Tail)]);
    // Decided on an outdated position.
    advance(&mut state, vec![late]);
    let other = v1::CursorAdvance { generation: 1, ..to(&state, 1, "h", (6, Tail)) };
    let unknown = v1::CursorAdvance { region_id: 99, ..to(&state, 1, "h", (6, Tail)) };
    let back = [to(&state, 1, "h", (5, Tail)), to(&state, 2, "h", (4, Now))];
    advance(&mut state, [vec![other, unknown], back.to_vec()].concat());
    assert_eq!(cursors(&state, "h"), [(1, 5, Tail), (2, 4, Tail)]);
    assert_eq!(state.header().revision, revision);
}

#[test]
fn cursor_follows_its_transition_function() {
    use CursorState::{From, Gone, Lagged, Now, Start, Tail, Unspecified};
    let all = [Unspecified, Now, Start, From, Tail, Lagged, Gone];
    let v = ManifestVersion;
    for from in all {
        for to in all {
            let moves = |version| may_move((v(5), from), (v(version), to));
            let expected = match (from, to) {
                (Now | Start | Lagged, Tail) => [false, true, true],
                (Tail, Tail) => [false, false, true],
                (From, Tail | Gone) => [false, true, false],
                (Tail, Lagged) => [true, true, false],
                _ => [false, false, false],
            };
            assert_eq!([moves(4), moves(5), moves(6)], expected, "{from:?} to {to:?}");
        }
    }
}

#[test]
fn cursors_of_a_dropped_region_are_deleted_once_received() {
    let mut state = state();
    add(&mut state, adding(10, "all", ""));
    add(&mut state, adding(11, "only", "t"));
    let names = |state: &MetaState| -> Vec<String> {
        state.hooks().map(|hook| hook.name.clone()).collect()
    };
    // A region with a route is not dropped, whatever the update claims.
    let early = done(&state, 1, "all");
    advance(&mut state, vec![early]);
    assert_eq!(cursors(&state, "all").len(), 3);
    let id = state.table_named("t").unwrap().id;
    run(&mut state, drop_table(20, "t")).unwrap();
    let received = done(&state, 1, "only");
    advance(&mut state, vec![received]);
    run(&mut state, Kind::FinishDropTable(v1::FinishDropTable { table_id: id.get() })).unwrap();
    assert_eq!(names(&state), ["all", "only"], "the hook has not received the removal of region 2");
    let received = vec![done(&state, 2, "only"), done(&state, 2, "all"), done(&state, 1, "all")];
    advance(&mut state, received);
    assert_eq!(names(&state), ["all"]);
    assert_eq!(cursors(&state, "all").len(), 1);
    // A hook that has received the removals before the drop is finished is deleted with the table.
    add(&mut state, adding(12, "brief", "u"));
    let id = state.table_named("u").unwrap().id;
    run(&mut state, drop_table(21, "u")).unwrap();
    let received = done(&state, 3, "brief");
    advance(&mut state, vec![received]);
    assert_eq!(names(&state), ["all", "brief"]);
    run(&mut state, Kind::FinishDropTable(v1::FinishDropTable { table_id: id.get() })).unwrap();
    assert_eq!(names(&state), ["all"]);
}

#[test]
fn cursor_never_moves_back() {
    use CursorState::{From, Tail};
    let mut state = state();
    add(&mut state, adding(10, "h", "u"));
    let start = to(&state, 3, "h", (9, Tail));
    advance(&mut state, vec![start]);
    for at in [(3, Tail), (9, Tail), (9, From)] {
        let back = to(&state, 3, "h", at);
        advance(&mut state, vec![back]);
        assert_eq!(cursors(&state, "h"), [(3, 9, Tail)], "{at:?}");
    }
}

#[test]
fn cursor_has_the_incarnation_of_its_region() {
    let mut state = state();
    let restored = Header { incarnation: Incarnation(2), ..state.header().clone() };
    let change = CatalogChange { header: Some(restored), ..CatalogChange::default() };
    apply_change(&mut state, change).unwrap();
    run(&mut state, Kind::CreateTable(table(3, "v"))).unwrap();
    add(&mut state, adding(10, "h", ""));
    let of = |region| state.cursors().get(RegionId(region), "h").unwrap().incarnation;
    assert_eq!([1, 2, 3, 4].map(of), [1, 1, 1, 2].map(Incarnation));
}
