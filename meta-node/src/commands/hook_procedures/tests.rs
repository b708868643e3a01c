use tidewater_common::feature_level::FeatureLevel;
use tidewater_common::ids::NodeId;
use tidewater_proto::v1::{CursorState, meta_command::Kind};

use super::*;
use crate::catalog::{CatalogError, HookCursor};
use crate::commands::testing::{
    command, directory, drop_table, durable_hook, raise, run, run_command, table, with_groups,
};
use crate::commands::{CommandReply, HookCommandError};

/// Applies a command under the rules of level 2.
fn apply(state: &mut MetaState, kind: Kind) -> Result<CommandReply, CommandError> {
    run_command(state, v1::MetaCommand { rules: 2, ..command(kind) })
}

/// Tables "t" (regions 1 to 5) and "u" (region 6), at level 2.
fn state() -> MetaState {
    let mut state = with_groups(1, 1);
    let five = v1::CreateTableRequest { regions: 5, ..table(1, "t") };
    run(&mut state, Kind::CreateTable(five)).unwrap();
    run(&mut state, Kind::CreateTable(table(2, "u"))).unwrap();
    raise(&mut state, 2, &[(NodeId(101), 0)]);
    state
}

fn add(request: u64, table: &str) -> Kind {
    Kind::AddHook(v1::AddHookRequest {
        table: table.into(),
        start: v1::HookStart::Snapshot.into(),
        ..durable_hook(request, "h")
    })
}

fn remove(request: u64) -> Kind {
    Kind::RemoveHook(v1::RemoveHookRequest { request_id: directory(request), name: "h".into() })
}

/// The next step of the procedure.
fn next(state: &MetaState, regions: u32) -> Option<v1::StepHook> {
    state.hook_procedure("h").map(|procedure| v1::StepHook {
        hook: procedure.hook.clone(),
        generation: procedure.generation.get(),
        from_region_id: procedure.next_region.get(),
        regions,
    })
}

fn step(state: &mut MetaState, regions: u32) {
    let step = next(state, regions).unwrap();
    run(state, Kind::StepHook(step)).unwrap();
}

fn finish(state: &mut MetaState) {
    while let Some(step) = next(state, 2) {
        run(state, Kind::StepHook(step)).unwrap();
    }
}

/// Region and state of each cursor.
fn cursors(state: &MetaState) -> Vec<(u64, CursorState)> {
    let short = |cursor: &HookCursor| (cursor.region.get(), cursor.state);
    state.cursors().of_hook("h").map(short).collect()
}

#[test]
fn cursors_are_created_in_steps() {
    use CursorState::{Start, Tail};
    let mut state = state();
    apply(&mut state, add(10, "")).unwrap();
    let revision = state.header().revision;
    assert_eq!(cursors(&state), []);
    step(&mut state, 2);
    assert_eq!(cursors(&state), [(1, Start), (2, Start)]);
    // Regions that are created between the steps have their cursors at once, and dropped ones need none.
    run(&mut state, Kind::CreateTable(table(3, "v"))).unwrap();
    run(&mut state, drop_table(4, "u")).unwrap();
    step(&mut state, 2);
    step(&mut state, 2);
    let all = [(1, Start), (2, Start), (3, Start), (4, Start), (5, Start), (7, Tail)];
    assert_eq!(cursors(&state), all);
    assert_eq!(state.hook_procedure("h"), None);
    assert_eq!(state.header().revision.get(), revision.get() + 2, "steps are not published");
}

#[test]
fn hook_of_one_table_has_cursors_after_one_step() {
    let mut state = state();
    apply(&mut state, add(10, "u")).unwrap();
    step(&mut state, 1);
    assert_eq!(cursors(&state), [(6, CursorState::Start)]);
    assert_eq!(state.hook_procedure("h"), None);
}

#[test]
fn cursors_of_a_removed_hook_are_deleted_in_steps() {
    let mut state = state();
    apply(&mut state, add(10, "")).unwrap();
    finish(&mut state);
    apply(&mut state, remove(11)).unwrap();
    assert!(state.hook("h").is_none());
    step(&mut state, 4);
    assert_eq!(cursors(&state).len(), 2);
    let again = apply(&mut state, add(12, ""));
    assert_eq!(again, Err(CommandError::Hook(HookCommandError::HookBeingRemoved("h".into()))));
    let stored = MetaState::from_rows(state.rows().unwrap()).unwrap();
    assert_eq!(stored, state);
    finish(&mut state);
    assert_eq!(cursors(&state), []);
    apply(&mut state, add(12, "")).unwrap();
}

#[test]
fn hook_is_removed_before_all_cursors_are_created() {
    let mut state = state();
    apply(&mut state, add(10, "")).unwrap();
    apply(&mut state, remove(11)).unwrap();
    assert_eq!(state.hook_procedure("h"), None, "there is no cursor to delete");
    apply(&mut state, add(12, "")).unwrap();
    step(&mut state, 3);
    apply(&mut state, remove(13)).unwrap();
    finish(&mut state);
    assert_eq!(cursors(&state), []);
    assert_eq!(hooks_with_cursors(&state), 0);
}

#[test]
fn late_and_repeated_steps_change_nothing() {
    let mut state = state();
    apply(&mut state, add(10, "")).unwrap();
    let first = next(&state, 2).unwrap();
    step(&mut state, 2);
    let before = state.clone();
    let wrong = [
        first.clone(),
        v1::StepHook { generation: first.generation + 1, ..next(&state, 2).unwrap() },
        v1::StepHook { hook: "other".into(), ..next(&state, 2).unwrap() },
    ];
    for step in wrong {
        run(&mut state, Kind::StepHook(step)).unwrap();
        assert_eq!(state, before);
    }
    for regions in [0, 10_001] {
        let refused = run(&mut state, Kind::StepHook(v1::StepHook { regions, ..first.clone() }));
        assert!(matches!(refused, Err(CommandError::Malformed(_))), "{refused:?}");
    }
}

#[test]
fn hooks_that_are_being_removed_count_as_durable() {
    let mut state = state();
    let named = |number: u64| match add(100 + number, "") {
        Kind::AddHook(request) => {
            Kind::AddHook(v1::AddHookRequest { name: format!("h{number}"), ..request })
        }
        other => other,
    };
    apply(&mut state, add(10, "")).unwrap();
    finish(&mut state);
    for number in 0..15 {
        apply(&mut state, named(number)).unwrap();
    }
    apply(&mut state, remove(11)).unwrap();
    assert_eq!(
        apply(&mut state, named(15)),
        Err(CommandError::Hook(HookCommandError::TooManyDurableHooks(16)))
    );
    finish(&mut state);
    apply(&mut state, named(15)).unwrap();
}

#[test]
fn procedure_of_a_hook_that_is_gone_ends() {
    let mut state = state();
    apply(&mut state, add(10, "u")).unwrap();
    // The hook is deleted with its only table.
    run(&mut state, drop_table(4, "u")).unwrap();
    run(&mut state, Kind::FinishDropTable(v1::FinishDropTable { table_id: 2 })).unwrap();
    assert!(state.hook("h").is_none());
    step(&mut state, 1);
    assert_eq!((state.hook_procedure("h"), cursors(&state)), (None, vec![]));
    // A leader whose state lagged has removed the hook under the rules before.
    apply(&mut state, add(11, "")).unwrap();
    step(&mut state, 2);
    run(&mut state, remove(12)).unwrap();
    step(&mut state, 2);
    assert_eq!((state.hook_procedure("h"), cursors(&state)), (None, vec![]));
    apply(&mut state, add(13, "")).unwrap();
}

#[test]
fn procedure_needs_the_second_level() {
    let level = FeatureLevel::new;
    let mut state = with_groups(1, 1);
    let first = apply(&mut state, add(10, ""));
    let above = CatalogError::RowAboveLevel { needed: level(2), level: level(1) };
    assert_eq!(first, Err(CommandError::Catalog(above)));
    let step = v1::StepHook { hook: "h".into(), regions: 1, ..v1::StepHook::default() };
    let step = run(&mut state, Kind::StepHook(step));
    assert!(matches!(step, Err(CommandError::FeatureLevel { .. })), "{step:?}");
}
