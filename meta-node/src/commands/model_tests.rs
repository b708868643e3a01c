//! Model tests: every sequence of commands keeps the catalog's invariants.

mod any_collection_change;
mod any_command;
mod fitted;

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use tidewater_proto::v1::{self, NodeState, meta_command::Kind};

pub(crate) use self::any_command::any_command;
use self::fitted::proposed;
use super::collections::testing::alter;
use super::procedures::testing::{begin, complete};
use super::testing::*;
use super::*;
use crate::catalog::{Coverage, CursorWork, DELTAS_KEPT, RouteDescriptor, Table, digest};

/// Histories in which random commands of every kind are accepted.
const MAX_HISTORIES: u32 = 6_000;

/// A cluster with data nodes 101 and 102, at the first level with one group, or at the highest one with two groups and the table
/// "v".
fn start(is_raised: bool) -> MetaState {
    let mut state = with_groups(2, 1 + u64::from(is_raised));
    set_members(&mut state, &[1, 2, 3]);
    if is_raised {
        for level in 2..=FeatureLevel::HIGHEST.get() {
            let nodes = [1, 2, 3, 101, 102].map(|id| (NodeId(id), 0));
            raise(&mut state, level, &nodes);
        }
        // Changes of collections need a table with an oldest readable epoch of its own.
        let create = v1::CreateTableRequest { regions: 2, ..table(200, "v") };
        run(&mut state, begin(v1::ProcedureKind::Create, 200, &create)).unwrap();
        complete(&mut state, 200);
        alter(&mut state, 201, "v");
    }
    state
}

/// Checks that every region that a durable hook observes has one cursor of the hook, apart from those that
/// the hook's procedure has not reached.
fn cursors_fit(state: &MetaState) -> Result<(), TestCaseError> {
    let has_regions = |table: &&Arc<Table>| table.is_live() && table.coverage() == Coverage::Whole;
    let live: Vec<_> = state.tables().filter(has_regions).collect();
    for hook in state.hooks().filter(|hook| hook.durable) {
        for table in live.iter().filter(|table| hook.observes(table.id)) {
            for route in state.routes_of(table.id) {
                let procedure = state.hook_procedure(&hook.name);
                let is_later = procedure.is_some_and(|found| {
                    found.work != CursorWork::Delete && found.next_region <= route.route_id
                });
                let cursor = state.cursors().get(route.route_id, &hook.name);
                prop_assert!(is_later || cursor.is_some(), "{hook:?} has no cursor of {route:?}");
                let Some(cursor) = cursor else { continue };
                prop_assert_eq!((cursor.table, cursor.group), (table.id, route.group_id));
            }
        }
    }
    Ok(())
}

/// Checks that the number of starts of no node has decreased, and that each belongs to one process.
fn starts_grow(before: &MetaState, after: &MetaState) -> Result<(), TestCaseError> {
    for node in before.nodes() {
        let Some(now) = after.node(node.id) else { continue };
        prop_assert!(now.boot >= node.boot, "{node:?} to {now:?}");
        prop_assert!(now.boot > node.boot || now.start_id == node.start_id, "{node:?} to {now:?}");
    }
    Ok(())
}

/// Checks that the level rises by one at most, within the release, and only when the command names every
/// node that must support it; and that no node registers that cannot run at the level.
fn level_rises(before: &MetaState, kind: &Kind, after: &MetaState) -> Result<(), TestCaseError> {
    let (was, now) = (before.header().feature_level, after.header().feature_level);
    prop_assert!(now == was || now == was.next(), "{was} to {now}");
    prop_assert!(now <= FeatureLevel::HIGHEST);
    match kind {
        Kind::RaiseFeatureLevel(raise) if now > was => {
            for node in before.nodes().filter(|node| node.state == NodeState::Up) {
                let named = v1::SupportingNode { node_id: node.id.get(), boot: node.boot.get() };
                prop_assert!(raise.nodes.contains(&named), "{node:?} was not asked");
            }
        }
        Kind::RegisterNode(registered) if before != after && was > FeatureLevel::FIRST => {
            let highest = registered.release.as_ref().map_or(1, |release| release.highest_level);
            prop_assert!(highest >= was.get(), "{registered:?} at {was}");
        }
        _ => prop_assert_eq!(now, was),
    }
    Ok(())
}

/// Checks that the version of no cursor has decreased.
fn cursors_grow(before: &MetaState, after: &MetaState) -> Result<(), TestCaseError> {
    for cursor in before.cursors().iter() {
        match after.cursors().get(cursor.region, &cursor.hook) {
            Some(now) if now.generation == cursor.generation => {
                prop_assert!(now.version >= cursor.version, "{cursor:?} to {now:?}");
            }
            Some(_) => {}
            // Deleted with its hook or its region.
            None => {
                let hook = after.hook(&cursor.hook).map(|hook| hook.generation);
                let lives = after.route(cursor.region).is_some();
                prop_assert!(hook != Some(cursor.generation) || !lives, "{cursor:?} is gone");
            }
        }
    }
    Ok(())
}

/// Checks that an ended procedure stays as it is until it is forgotten, that the numbers of a table's procedures
/// grow, and that a table that is created or dropped has an operation that continues it.
fn procedures_fit(before: &MetaState, after: &MetaState) -> Result<(), TestCaseError> {
    for procedure in before.procedures().iter() {
        let Some(now) = after.procedures().get(procedure.id) else {
            prop_assert!(!procedure.is_running(), "{procedure:?} is gone");
            continue;
        };
        prop_assert!(procedure.is_running() || now == procedure, "{procedure:?} to {now:?}");
        prop_assert_eq!((now.number, now.kind), (procedure.number, procedure.kind));
    }
    for procedure in after.procedures().running() {
        let Some(table) = after.table(procedure.table) else {
            return Err(TestCaseError::fail(format!("{procedure:?} has no table")));
        };
        prop_assert!(procedure.number <= table.changes, "{procedure:?} of {table:?}");
        if before.procedures().get(procedure.id).is_none() {
            let was = before.table(table.id).map_or(0, |table| table.changes);
            prop_assert!(procedure.number > was, "{procedure:?} after {was}");
        }
    }
    let is_settled = |table: &Arc<Table>| {
        matches!(table.state, v1::TableState::Active | v1::TableState::Reserved)
    };
    for table in after.tables().filter(|table| !is_settled(table)) {
        let by_procedure = after.procedures().of_table(table.id).any(|of| of.table == table.id);
        let is_earlier = procedures::earlier::tables(after).any(|of| of.id == table.id);
        prop_assert!(by_procedure != is_earlier, "{table:?}");
    }
    Ok(())
}

#[test]
fn random_commands_of_every_kind_are_accepted() {
    // The start of every history, and commands that these tests do not need.
    let others = ["bench", "bootstrap", "update_node"];
    let mut missing: BTreeSet<&str> =
        golden_tests::kinds().into_iter().filter(|kind| !others.contains(kind)).collect();
    missing.extend(["a split", "a split for load", "a merge", "a move", "an opening"]);
    let commands = proptest::collection::vec(any_command(), 80);
    let mut runner = TestRunner::deterministic();
    for round in 0..MAX_HISTORIES {
        let mut state = start(round % 2 == 0);
        for kind in commands.new_tree(&mut runner).unwrap().current() {
            let name = kind_name(&kind);
            let before = state.clone();
            let proposed = proposed(&state, kind);
            if run_command(&mut state, proposed).is_ok() && state != before {
                missing.remove(name);
            }
            let is_child = |route: &Arc<RouteDescriptor>| route.parent_route_id.is_some();
            for (effect, is_seen) in [
                ("a split", state.routes().any(is_child)),
                ("a split for load", state.soft_starts().next().is_some()),
                ("a merge", is_route_merged(&before, &state)),
                ("a move", is_route_moved(&before, &state)),
                ("an opening", is_reserved_table_opened(&before, &state)),
            ] {
                if is_seen {
                    missing.remove(effect);
                }
            }
        }
        if missing.is_empty() {
            return;
        }
    }
    panic!("{missing:?} in {MAX_HISTORIES} histories");
}

/// Returns whether a command has begun to open a reserved table.
fn is_reserved_table_opened(before: &MetaState, after: &MetaState) -> bool {
    let is_reserved = |id| {
        before.table(id).is_some_and(|table: &Arc<Table>| table.state == v1::TableState::Reserved)
    };
    after.tables().any(|table| table.state == v1::TableState::Creating && is_reserved(table.id))
}

/// Returns whether a command has moved a route to another group.
fn is_route_moved(before: &MetaState, after: &MetaState) -> bool {
    after
        .routes()
        .any(|route| before.route(route.route_id).is_some_and(|was| was.group_id != route.group_id))
}

/// Returns whether a command has replaced routes by one.
fn is_route_merged(before: &MetaState, after: &MetaState) -> bool {
    let ended = before.routes().filter(|route| after.route(route.route_id).is_none());
    let begun: Vec<_> =
        after.routes().filter(|route| before.route(route.route_id).is_none()).collect();
    begun.len() == 1 && ended.count() == 2
}

proptest! {
    // About 100,000 commands.
    #![proptest_config(ProptestConfig::with_cases(2_600))]

    // C1, and: versions grow by exactly one. R2: replay and snapshot lead to equal digests.
    #[test]
    fn every_key_of_every_live_table_has_one_route(
        is_raised in any::<bool>(),
        commands in proptest::collection::vec(any_command(), 0..80),
        cut in 0usize..80,
    ) {
        let mut state = start(is_raised);
        let mut replica = state.clone();
        for (at, kind) in commands.into_iter().enumerate() {
            if at == cut {
                replica = MetaState::from_rows(replica.rows().unwrap()).unwrap();
                prop_assert_eq!(&replica, &state);
            }
            let version = state.catalog_version();
            let revision = state.header().revision;
            let time = state.header().time_ms;
            let routes: Vec<_> = state.routes().cloned().collect();
            let before = state.clone();
            // `run` checks that a rejected command changes nothing, and that the tables are tiled.
            let command = proposed(&state, kind);
            let kind = command.kind.clone().unwrap();
            let reply = run_command(&mut state, command.clone());
            prop_assert_eq!(reply, run_command(&mut replica, command));
            // A save counts also if it leaves the routes as they are.
            let is_saved = matches!(kind, Kind::SaveRoutes(_)) && state != before;
            let changed = is_saved || routes != state.routes().cloned().collect::<Vec<_>>();
            prop_assert_eq!(state.catalog_version().get(), version.get() + u64::from(changed));
            prop_assert!(state.header().revision.get() - revision.get() <= 1);
            prop_assert!(state.header().time_ms >= time);
            cursors_fit(&state)?;
            cursors_grow(&before, &state)?;
            starts_grow(&before, &state)?;
            level_rises(&before, &kind, &state)?;
            procedures_fit(&before, &state)?;
        }
        prop_assert_eq!(digest(&state).unwrap(), digest(&replica).unwrap());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    // The row writes of a command lead from the rows of one state to those of the next.
    #[test]
    fn row_writes_lead_to_the_rows_of_the_state(
        is_raised in any::<bool>(),
        commands in proptest::collection::vec(any_command(), 0..60),
    ) {
        let mut state = start(is_raised);
        let mut stored = StoredRows::of(&state);
        for kind in commands {
            let command = proposed(&state, kind);
            if let Ok((_, effects)) = apply(&mut state, Term(1), command) {
                stored.write(effects);
            }
            prop_assert_eq!(&stored, &StoredRows::of(&state));
        }
    }

    // A watcher that applies the deltas has the content of the snapshot.
    #[test]
    fn deltas_lead_to_the_snapshot_of_the_state(
        is_raised in any::<bool>(),
        commands in proptest::collection::vec(any_command(), 0..60),
    ) {
        let mut state = start(is_raised);
        let from = state.header().revision;
        let mut seen = catalog_of(&state);
        for kind in commands {
            let command = proposed(&state, kind);
            let _ = run_command(&mut state, command);
        }
        for delta in state.deltas_since(from, usize::MAX).unwrap() {
            prop_assert_eq!(delta.revision, seen.revision + 1);
            prop_assert_eq!(delta.previous_catalog_version, seen.catalog_version);
            follow(&mut seen, &delta);
        }
        prop_assert_eq!(seen, catalog_of(&state));
    }
}

fn follow(seen: &mut v1::CatalogSnapshot, delta: &v1::CatalogDelta) {
    seen.revision = delta.revision;
    seen.catalog_version = delta.catalog_version;
    seen.tables.retain(|table| !delta.table_deletes.contains(&table.table_id));
    merge(&mut seen.tables, &delta.table_upserts, |table| u64::from(table.table_id));
    seen.routes.retain(|route| !delta.route_deletes.contains(&route.route_id));
    merge(&mut seen.routes, &delta.route_upserts, |route| route.route_id);
    seen.routes.sort_by(|left, right| left.start.cmp(&right.start));
    merge(&mut seen.groups, &delta.group_upserts, |group| group.group_id);
    seen.nodes.retain(|node| !delta.node_deletes.contains(&node.node_id));
    merge(&mut seen.nodes, &delta.node_upserts, |node| node.node_id);
    seen.hooks.retain(|hook| !delta.hook_deletes.contains(&hook.name));
    for upsert in &delta.hook_upserts {
        seen.hooks.retain(|hook| hook.name != upsert.name);
        seen.hooks.push(upsert.clone());
    }
    seen.hooks.sort_by(|left, right| left.name.cmp(&right.name));
}

fn merge<T: Clone>(into: &mut Vec<T>, upserts: &[T], id: fn(&T) -> u64) {
    for upsert in upserts {
        into.retain(|item| id(item) != id(upsert));
        into.push(upsert.clone());
    }
    into.sort_by_key(id);
}

#[test]
fn delta_ring_keeps_the_newest_and_rejects_old_revisions() {
    let mut state = with_nodes(1);
    let first = state.header().revision;
    let mut stored = StoredRows::of(&state);
    for round in 0..DELTAS_KEPT as u64 + 5 {
        let to = if round % 2 == 0 { NodeState::Down } else { NodeState::Up };
        let set = v1::SetNodeState { node_id: 101, state: to.into() };
        let (_, effects) = apply(&mut state, Term(1), command(Kind::SetNodeState(set))).unwrap();
        stored.write(effects);
    }
    assert_eq!(
        stored,
        StoredRows::of(&state),
        "deltas that leave the ring are deleted from the store"
    );
    let revision = state.header().revision;
    assert_eq!(state.deltas_since(first, 10), None);
    assert_eq!(state.deltas_since(revision, 10), Some(vec![]));
    assert_eq!(state.deltas_since((revision.get() + 1).into(), 10), None);
    let oldest = revision.get() - DELTAS_KEPT as u64;
    let kept = state.deltas_since(oldest.into(), usize::MAX).unwrap();
    assert_eq!(kept.len(), DELTAS_KEPT);
    assert_eq!(kept[0].revision, oldest + 1);
    assert_eq!(state.deltas_since((oldest - 1).into(), 1), None);
    state.verify().unwrap();
    let reloaded = MetaState::from_rows(state.rows().unwrap()).unwrap();
    assert_eq!(reloaded, state);
}
