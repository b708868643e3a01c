//! Model tests: every sequence of commands keeps the catalog's invariants.

use proptest::prelude::*;
use tidewater_proto::v1::{self, NodeState, meta_command::Kind};

use super::testing::*;
use super::*;
use crate::catalog::{CursorWork, DELTAS_KEPT, digest};

pub(crate) fn any_command() -> impl Strategy<Value = Kind> {
    let name = prop_oneof![Just("t"), Just("u"), Just("v")];
    prop_oneof![
        (1u64..6, 0u64..5, 1u64..4, any_release()).prop_map(|(number, boot, process, release)| {
            let start_id = if boot == 0 { String::new() } else { directory(process) };
            let registered = registration(number);
            Kind::RegisterNode(v1::RegisterNode { boot, start_id, release, ..registered })
        }),
        any_raise().prop_map(Kind::RaiseFeatureLevel),
        (200u64..206, 1u64..3).prop_map(|(number, at)| Kind::RegisterNode(compactor(number, at))),
        any_state().prop_map(Kind::SetNodeState),
        proptest::collection::vec(101u64..105, 0..4)
            .prop_map(|first_members| Kind::CreateGroup(v1::CreateGroup { first_members })),
        (1u64..5).prop_map(|group_id| Kind::ActivateGroup(v1::ActivateGroup { group_id })),
        (1u64..5).prop_map(|group_id| Kind::AbandonGroup(v1::AbandonGroup { group_id })),
        any_report().prop_map(Kind::ReportGroup),
        (hook_name(), 3u64..30, 0u64..12, 0u32..5).prop_map(
            |(hook, generation, from_region_id, regions)| {
                Kind::StepHook(v1::StepHook { hook, generation, from_region_id, regions })
            }
        ),
        (
            proptest::collection::vec(any_state(), 0..4),
            proptest::collection::vec(any_report(), 0..4)
        )
            .prop_map(|(nodes, groups)| {
                Kind::RecordObservations(v1::RecordObservations { nodes, groups })
            }),
        (10u64..30, name.clone(), 0u32..9, any::<bool>()).prop_map(|(id, name, regions, hash)| {
            let hash_columns = if hash { vec!["b".into()] } else { vec![] };
            Kind::CreateTable(v1::CreateTableRequest { regions, hash_columns, ..table(id, name) })
        }),
        (1u32..6).prop_map(|table_id| Kind::ActivateTable(v1::ActivateTable { table_id })),
        (10u64..40, name).prop_map(|(id, name)| drop_table(id, name)),
        (1u32..6).prop_map(|table_id| Kind::FinishDropTable(v1::FinishDropTable { table_id })),
        (10u64..40, hook_name(), hook_table(), any::<bool>(), 0i32..3).prop_map(
            |(id, name, table, durable, start)| {
                let start = if durable { start } else { 0 };
                Kind::AddHook(v1::AddHookRequest {
                    request_id: directory(id),
                    name,
                    kind: "jsonl".to_owned(),
                    config: "{}".to_owned(),
                    table,
                    durable,
                    start,
                    version: if start == 2 { 1 } else { 0 },
                })
            }
        ),
        proptest::collection::vec(any_advance(), 0..6)
            .prop_map(|advances| Kind::AdvanceCursors(v1::AdvanceCursors { advances })),
        (hook_name(), any::<bool>()).prop_map(|(name, paused)| {
            Kind::SetHookPaused(v1::SetHookPausedRequest { name, paused })
        }),
        (10u64..40, hook_name()).prop_map(|(id, name)| {
            Kind::RemoveHook(v1::RemoveHookRequest { request_id: directory(id), name })
        }),
        (0u64..100_000)
            .prop_map(|now_ms| Kind::AdvanceTime(v1::AdvanceTime { now_ms, agreed_ms: 0 })),
    ]
}

fn any_state() -> impl Strategy<Value = v1::SetNodeState> {
    (100u64..106, 0i32..4).prop_map(|(node_id, state)| v1::SetNodeState { node_id, state })
}

fn any_report() -> impl Strategy<Value = v1::ReportGroup> {
    (1u64..5, 1u64..4, 101u64..104).prop_map(|(group, term, leader)| report(group, term, leader))
}

fn any_release() -> impl Strategy<Value = Option<v1::ReleaseInfo>> {
    proptest::option::of((1u32..3, 0u32..3).prop_map(|(lowest_level, more)| {
        let highest_level = lowest_level + more;
        v1::ReleaseInfo { release: String::new(), lowest_level, highest_level }
    }))
}

/// A raise by a leader that has asked all nodes that the model can have, or some of them.
fn any_raise() -> impl Strategy<Value = v1::RaiseFeatureLevel> {
    let all = (101u64..125).flat_map(|node| (0..5).map(move |boot| (node, boot)));
    let named = prop_oneof![
        Just(all.collect::<Vec<_>>()),
        proptest::collection::vec((101u64..105, 0u64..5), 0..6),
    ];
    (0u32..4, named).prop_map(|(level, nodes)| {
        let nodes = nodes.into_iter().map(|(node_id, boot)| v1::SupportingNode { node_id, boot });
        v1::RaiseFeatureLevel { level, nodes: nodes.collect() }
    })
}

/// Few versions and generations, so that many expectations match.
fn any_advance() -> impl Strategy<Value = v1::CursorAdvance> {
    let state = || 1i32..7;
    let versions = (0u64..3, 0u64..3);
    (hook_name(), 3u64..20, 1u64..12, versions, (state(), state()), any::<bool>()).prop_map(
        |(hook, generation, region_id, (expected_version, version), states, done)| {
            v1::CursorAdvance {
                hook,
                generation,
                region_id,
                expected_version,
                expected_state: states.0,
                version,
                state: states.1,
                done,
            }
        },
    )
}

/// A cluster with data nodes 101 and 102 and one group, at the first or the second level.
fn start(is_raised: bool) -> MetaState {
    let mut state = with_groups(2, 1);
    if is_raised {
        raise(&mut state, 2, &[(NodeId(101), 0), (NodeId(102), 0)]);
    }
    state
}

/// Returns the command that a leader proposes, under the rules of the state's level. A step of a hook is
/// mostly the next one, if the hook has a procedure.
fn proposed(state: &MetaState, kind: Kind) -> v1::MetaCommand {
    let kind = match kind {
        Kind::StepHook(step) => Kind::StepHook(match state.hook_procedure(&step.hook) {
            Some(procedure) if step.from_region_id > 3 => v1::StepHook {
                generation: procedure.generation.get(),
                from_region_id: procedure.next_region.get(),
                ..step
            },
            _ => step,
        }),
        other => other,
    };
    let rules = Rules::at(state.header().feature_level).0;
    v1::MetaCommand { rules, ..command(kind) }
}

/// Checks that every region that a durable hook observes has one cursor of the hook, apart from those that
/// the hook's procedure has not reached.
fn cursors_fit(state: &MetaState) -> Result<(), TestCaseError> {
    let live: Vec<_> = state.tables().filter(|table| table.is_live()).collect();
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

fn hook_name() -> impl Strategy<Value = String> {
    prop_oneof![Just("h".to_owned()), Just("i".to_owned())]
}

fn hook_table() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), Just("t".to_owned())]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

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
            let command = proposed(&state, kind.clone());
            let reply = run_command(&mut state, command.clone());
            prop_assert_eq!(reply, run_command(&mut replica, command));
            let changed = routes != state.routes().cloned().collect::<Vec<_>>();
            prop_assert_eq!(state.catalog_version().get(), version.get() + u64::from(changed));
            prop_assert!(state.header().revision.get() - revision.get() <= 1);
            prop_assert!(state.header().time_ms >= time);
            cursors_fit(&state)?;
            cursors_grow(&before, &state)?;
            starts_grow(&before, &state)?;
            level_rises(&before, &kind, &state)?;
        }
        prop_assert_eq!(digest(&state).unwrap(), digest(&replica).unwrap());
    }

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
