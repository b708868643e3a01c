use tidewater_common::ids::NodeId;
use tidewater_common::reason::Effect;

use super::*;
use crate::catalog::{CatalogChange, HookCursor};
use crate::commands::testing::{
    command, directory, drop_table, durable_hook, raise, run, run_command, table, with_groups,
};

/// A state with one table, and with the durable hooks "a" and "b".
fn with_hooks(groups: u64, regions: u32) -> MetaState {
    let mut state = with_groups(1, groups);
    let table = v1::CreateTableRequest { regions, ..table(1, "t") };
    run(&mut state, Kind::CreateTable(table)).unwrap();
    for (request, name) in [(2, "a"), (3, "b")] {
        run(&mut state, Kind::AddHook(durable_hook(request, name))).unwrap();
    }
    state
}

#[test]
fn page_holds_complete_regions_of_the_requested_groups() {
    let mut state = with_hooks(2, 4);
    let shown = |state: &MetaState, group_ids: &[u64], from_region_id| {
        let group_ids = group_ids.to_vec();
        let request = v1::ListCursorsRequest { group_ids, from_region_id, ..Default::default() };
        let page = page(state, &request, 3);
        let cursors = page.cursors.iter().flat_map(|listed| &listed.cursor);
        let regions: Vec<u64> = cursors.map(|cursor| cursor.region_id).collect();
        (regions, page.next_region_id, page.cursors.iter().any(|listed| listed.dropped))
    };
    assert_eq!(shown(&state, &[1, 2], 0), (vec![1, 1, 2, 2], Some(3), false));
    assert_eq!(shown(&state, &[1, 2], 3), (vec![3, 3, 4, 4], None, false));
    assert_eq!(shown(&state, &[1], 0), (vec![1, 1, 3, 3], None, false));
    assert_eq!(shown(&state, &[1], 4), (vec![], None, false));
    run(&mut state, drop_table(9, "t")).unwrap();
    assert!(!shown(&state, &[1, 2], 0).2, "its regions are being removed");
    run(&mut state, Kind::FinishDropTable(v1::FinishDropTable { table_id: 1 })).unwrap();
    assert!(shown(&state, &[1, 2], 0).2);
}

#[test]
fn region_with_cursors_of_two_groups_is_listed_once() {
    let mut state = with_hooks(2, 3);
    // Region 1 is served by group 2 now, and its second cursor is not.
    let moved = state.cursors().get(RegionId(1), "a").cloned().unwrap();
    let moved = HookCursor { group: GroupId(2), ..moved };
    let change = CatalogChange { cursors: vec![moved], ..CatalogChange::default() };
    let prepared = state.prepare(change).unwrap();
    state.absorb(prepared);
    let listed = |group_ids: &[u64]| -> Vec<(u64, String)> {
        let group_ids = group_ids.to_vec();
        let request = v1::ListCursorsRequest { group_ids, ..Default::default() };
        let page = page(&state, &request, PAGE_SIZE);
        let cursors = page.cursors.into_iter().flat_map(|listed| listed.cursor);
        cursors.map(|cursor| (cursor.region_id, cursor.hook)).collect()
    };
    let cursors = |expected: &[(u64, &str)]| -> Vec<(u64, String)> {
        expected.iter().map(|(region, hook)| (*region, (*hook).to_owned())).collect()
    };
    let all = [(1, "a"), (1, "b"), (2, "a"), (2, "b"), (3, "a"), (3, "b")];
    assert_eq!(listed(&[1, 2]), cursors(&all));
    assert_eq!(listed(&[1]), cursors(&[(1, "b"), (3, "a"), (3, "b")]));
    assert_eq!(listed(&[2]), cursors(&[(1, "a"), (2, "a"), (2, "b")]));
}

#[test]
fn cursors_of_a_removed_hook_are_not_listed() {
    let mut state = with_hooks(1, 4);
    raise(&mut state, 2, &[(NodeId(101), 0)]);
    let shown = |state: &MetaState, page_size| {
        let request = v1::ListCursorsRequest { group_ids: vec![1], ..Default::default() };
        let page = page(state, &request, page_size);
        (page.cursors.len(), page.next_region_id)
    };
    let mut remove = |request: u64, name: &str| {
        let request =
            v1::RemoveHookRequest { request_id: directory(request), name: name.to_owned() };
        let remove = v1::MetaCommand { rules: 2, ..command(Kind::RemoveHook(request)) };
        run_command(&mut state, remove).unwrap();
        (shown(&state, 100), shown(&state, 3))
    };
    assert_eq!(remove(4, "a"), ((4, None), (3, Some(4))));
    assert_eq!(remove(5, "b"), ((0, None), (0, Some(4))), "a page has few regions");
    assert_eq!(state.cursors().iter().count(), 8);
}

/// Returns the list of a group's cursors.
fn list(state: &MetaState, group: u64, known: Option<u64>) -> v1::ListCursorsResponse {
    let group_ids = vec![group];
    let known_fingerprint = known;
    let request = v1::ListCursorsRequest { group_ids, known_fingerprint, ..Default::default() };
    page(state, &request, PAGE_SIZE)
}

#[test]
fn cursors_are_listed_after_their_hook_was_added() {
    let mut state = with_hooks(2, 4);
    raise(&mut state, 2, &[(NodeId(101), 0)]);
    let add = Kind::AddHook(durable_hook(7, "c"));
    run_command(&mut state, v1::MetaCommand { rules: 2, ..command(add) }).unwrap();
    let generation = state.hook("c").unwrap().generation.get();
    let mut step = |from_region_id| {
        let hook = "c".to_owned();
        let step = v1::StepHook { hook, generation, from_region_id, regions: 3 };
        run(&mut state, Kind::StepHook(step)).unwrap();
        (state.cursors().count("c"), list(&state, 1, None))
    };
    // Group 1 has regions 1 and 3, and the last step creates the cursor of region 4.
    let (created, before) = step(0);
    assert_eq!((created, before.cursors.len()), (3, 4));
    let (created, after) = step(4);
    assert_eq!((created, after.cursors.len()), (4, 6));
    assert!(!list(&state, 1, before.fingerprint).unchanged);
}

#[test]
fn list_is_unchanged_until_it_shows_other_cursors() {
    let mut state = with_hooks(2, 4);
    raise(&mut state, 2, &[(NodeId(101), 0)]);
    let mut known = [None, None];
    // Groups 1 and 2: true if the list has changed since the last call.
    let mut changed = |state: &MetaState| {
        [(1, 0), (2, 1)].map(|(group, at): (u64, usize)| {
            let before = list(state, group, known[at]);
            known[at] = before.fingerprint;
            let again = list(state, group, known[at]);
            assert!(again.unchanged && again.cursors.is_empty() && again.next_region_id.is_none());
            assert_eq!(again.fingerprint, before.fingerprint);
            !before.unchanged
        })
    };
    assert_eq!(changed(&state), [true, true]);
    let of_both = v1::ListCursorsRequest {
        group_ids: vec![1, 2],
        known_fingerprint: list(&state, 1, None).fingerprint,
        ..Default::default()
    };
    assert!(!page(&state, &of_both, PAGE_SIZE).unchanged);
    // A position is its owner's.
    let cursor = state.cursors().get(RegionId(1), "a").cloned().unwrap();
    let moved = v1::CursorAdvance {
        hook: cursor.hook.clone(),
        generation: cursor.generation.get(),
        region_id: 1,
        expected_version: cursor.version.get(),
        expected_state: cursor.state.into(),
        version: 7,
        state: CursorState::Tail.into(),
        done: false,
    };
    let moves = v1::AdvanceCursors { advances: vec![moved] };
    run(&mut state, Kind::AdvanceCursors(moves)).unwrap();
    assert_ne!(state.cursors().get(RegionId(1), "a"), Some(&cursor));
    assert_eq!(changed(&state), [false, false]);
    let more = v1::CreateTableRequest { regions: 1, ..table(4, "of_group_1") };
    run(&mut state, Kind::CreateTable(more)).unwrap();
    assert_eq!(changed(&state), [true, false]);
    run(&mut state, drop_table(9, "of_group_1")).unwrap();
    assert_eq!(changed(&state), [false, false], "its regions are being removed");
    run(&mut state, Kind::FinishDropTable(v1::FinishDropTable { table_id: 2 })).unwrap();
    assert_eq!(changed(&state), [true, false], "cursors of group 1 are of a dropped table");
    let request = v1::RemoveHookRequest { request_id: directory(10), name: "b".to_owned() };
    let remove = v1::MetaCommand { rules: 2, ..command(Kind::RemoveHook(request)) };
    run_command(&mut state, remove).unwrap();
    assert_eq!(changed(&state), [true, true], "the cursors of the removed hook are not listed");
}

#[tokio::test(start_paused = true)]
async fn moves_wait_for_their_turn_and_end_without_effect() {
    let turns = Semaphore::new(MOVES_AT_ONCE);
    let mut held = Vec::new();
    for _ in 0..MOVES_AT_ONCE {
        held.push(move_turn(&turns).await.unwrap());
    }
    let refusal = move_turn(&turns).await.unwrap_err();
    assert_eq!((refusal.reason, refusal.effect()), (Reason::Overloaded, Effect::None));
    assert!(refusal.retry_after.is_some());
    let waiting = move_turn(&turns);
    let (turn, ()) = tokio::join!(waiting, async { drop(held.pop()) });
    assert!(turn.is_ok());
}

#[test]
fn cursor_moves_as_far_as_one_delivery() {
    use CursorState::{Lagged, Now, Tail};
    let limit = CURSOR_VERSIONS_PER_MOVE;
    let cases = [
        ((1_000, Tail), (1_001, Tail), false, true),
        ((1_000, Tail), (1_000 + limit, Tail), false, true),
        ((1_000, Tail), (1_001 + limit, Tail), false, false),
        ((5, Tail), (1_000_000_000, Tail), false, false),
        ((u64::MAX, Tail), (u64::MAX, Tail), false, true),
        // The position at which a hook starts, and the end of a region, have no limit.
        ((0, Now), (1_000_000, Tail), false, true),
        ((1_000, Lagged), (1_000_000, Tail), false, true),
        ((1_000, Tail), (3, Lagged), false, true),
        ((1_000, Tail), (u64::MAX, Tail), true, true),
    ];
    for (from, to, done, allowed) in cases {
        let advance = v1::CursorAdvance {
            expected_version: from.0,
            expected_state: from.1.into(),
            version: to.0,
            state: to.1.into(),
            done,
            ..v1::CursorAdvance::default()
        };
        let checked = check_distances(&[v1::CursorAdvance::default(), advance]);
        let reason = checked.err().map(|refusal| refusal.reason);
        assert_eq!(reason, (!allowed).then_some(Reason::InvalidArgument), "{from:?} {to:?}");
    }
}
