//! Random commands of every kind, with few names and ids, so that many of them fit together.

use proptest::prelude::*;
use prost::Message;
use tidewater_proto::v1::{self, column_change, meta_command::Kind};

use super::any_collection_change::any_collection_change;
use crate::commands::procedures::testing::{begin, test, wire_id};
use crate::commands::testing::{compactor, directory, drop_table, registration, report, table};

pub(crate) fn any_command() -> impl Strategy<Value = Kind> {
    let reserve = reserved_name().prop_map(|name| {
        let definition = Some(v1::CreateTableRequest { regions: 0, ..table(0, name) });
        Kind::ReserveTable(v1::ReserveTableRequest { definition })
    });
    prop_oneof![
        15 => any_single_command(),
        8 => any_table_change(),
        11 => any_procedure_command(),
        1 => reserve,
        4 => any_group_count(),
        1 => any_replacement(),
        1 => any_refresh(),
        4 => any_collection_change(),
        1 => (100u64..106, any::<bool>()).prop_map(|(node_id, draining)| {
            let replacement_id = if node_id % 2 == 0 { 0 } else { node_id - 1 };
            Kind::SetNodeDraining(v1::SetNodeDraining { node_id, draining, replacement_id })
        }),
        1 => (100u64..106).prop_map(|node_id| Kind::RemoveNode(v1::RemoveNode { node_id })),
        2 => any_save(),
    ]
}

/// Refreshable tables, their refreshes and settings.
fn any_refresh() -> impl Strategy<Value = Kind> {
    let settings =
        (prop_oneof![Just(0), Just(5_000u64)], 0u32..120).prop_map(|(interval_ms, percent)| {
            v1::RefreshSettings { interval_ms, deadline_ms: 0, min_rows_percent: Some(percent) }
        });
    prop_oneof![
        2 => (70u64..80, settings.clone()).prop_map(|(request, settings)| {
            let refresh = v1::RefreshDefinition {
                settings: Some(settings),
                ..v1::RefreshDefinition::default()
            };
            let create =
                v1::CreateTableRequest { refresh: Some(refresh), ..table(request, "mirror") };
            begin(v1::ProcedureKind::Create, request, &create)
        }),
        2 => (70u64..80, 1u32..8).prop_map(|(request, table_id)| {
            let request_id = directory(request);
            let refresh =
                v1::RefreshRequest { request_id, table_id, ..v1::RefreshRequest::default() };
            begin(v1::ProcedureKind::Refresh, request, &refresh)
        }),
        1 => (proptest::option::of(any::<bool>()), proptest::option::of(settings)).prop_map(
            |(paused, settings)| {
                let table = "mirror".to_owned();
                Kind::AlterRefresh(v1::AlterRefreshRequest { table, paused, settings })
            }
        ),
    ]
}

/// Replacements of members of the meta group.
fn any_replacement() -> impl Strategy<Value = Kind> {
    let nodes = || (1u64..4, 3u64..6);
    prop_oneof![
        2 => (nodes(), any::<bool>()).prop_map(|((old_node_id, new_node_id), cancel)| {
            let address = format!("meta-{new_node_id}:1");
            Kind::ReplaceMetaMember(v1::ReplaceMetaMemberRequest {
                old_node_id,
                new_node_id,
                address,
                cancel,
            })
        }),
        1 => nodes().prop_map(|(old_node_id, new_node_id)| {
            Kind::EndMemberReplacement(v1::EndMemberReplacement { old_node_id, new_node_id })
        }),
    ]
}

/// Retirements of groups, and settings of the balance.
fn any_group_count() -> impl Strategy<Value = Kind> {
    prop_oneof![
        1 => (1u64..5, any::<bool>()).prop_map(|(group_id, retiring)| {
            Kind::SetGroupRetiring(v1::SetGroupRetiring { group_id, retiring })
        }),
        1 => (1u64..5).prop_map(|group_id| Kind::RetireGroup(v1::RetireGroup { group_id })),
        2 => (
            proptest::option::of(any::<bool>()),
            proptest::option::of(900u64..3_000),
            prop_oneof![2 => Just(Some(v1::HotspotMode::On.into())), 1 => proptest::option::of(0i32..4)],
        )
            .prop_map(|(spread, rest_ms, hotspots)| {
                let settings = v1::SetBalanceRequest { spread, rest_ms, hotspots, ..Default::default() };
                Kind::SetBalance(settings)
            }),
    ]
}

/// Begins of procedures, and the commands that continue, complete and abandon them.
fn any_procedure_command() -> impl Strategy<Value = Kind> {
    let id = || (70u64..80).prop_map(wire_id);
    let begin = prop_oneof![
        2 => prop_oneof![any_single_command(), any_table_change()].prop_map(as_procedure),
        1 => (70u64..80, 1u8..6).prop_map(|(request, table)| test(request, table)),
        3 => any_split(),
        1 => any_merge(),
        3 => any_move(),
        1 => any_opening(),
    ];
    let cause = prop_oneof![
        2 => Just(v1::AbandonCause::Operator),
        2 => Just(v1::AbandonCause::Deadline),
        1 => Just(v1::AbandonCause::Superseded),
    ];
    let failure = proptest::option::of((20i32..22).prop_map(|reason| v1::ProcedureFailure {
        reason,
        message: "no leader".to_owned(),
        since_ms: 7,
    }));
    let regions = proptest::collection::vec(1u64..12, 0..3);
    prop_oneof![
        3 => begin,
        4 => (id(), 1u64..5, 1u32..6, any::<bool>(), (regions, failure)).prop_map(
            |(id, number, step, completed, (done_regions, failure))| {
                Kind::AdvanceProcedure(v1::AdvanceProcedure {
                    id,
                    number,
                    step,
                    completed,
                    done_regions,
                    failure,
                    requested: number.is_multiple_of(2),
                    ..Default::default()
                })
            }
        ),
        1 => (id(), 1u64..5, cause).prop_map(|(id, number, cause)| {
            let (cause, step) = (cause.into(), 1);
            Kind::AbandonProcedure(v1::AbandonProcedure { id, number, cause, step })
        }),
    ]
}

fn any_split() -> impl Strategy<Value = Kind> {
    let key = proptest::collection::vec(any::<u8>(), 0..3);
    (40u64..70, 0u64..8, key, any::<bool>(), any::<bool>()).prop_map(
        |(request, route_id, key, is_stale, for_load)| {
            let split = v1::SplitRouteRequest {
                request_id: directory(request),
                route_id,
                split_key: key.into(),
                expected_version: u64::from(is_stale && route_id == 0),
                for_load,
            };
            begin(v1::ProcedureKind::Split, request, &split)
        },
    )
}

fn any_merge() -> impl Strategy<Value = Kind> {
    (40u64..70, 0u64..8, 0u64..8).prop_map(|(request, route_id, neighbour_id)| {
        let merge = v1::MergeRoutesRequest {
            request_id: directory(request),
            route_id,
            neighbour_id,
            expected_version: 0,
        };
        begin(v1::ProcedureKind::Merge, request, &merge)
    })
}

fn any_move() -> impl Strategy<Value = Kind> {
    (40u64..70, 0u64..8, 0u64..5).prop_map(|(request, route_id, target_group_id)| {
        let request_id = directory(request);
        let relocate =
            v1::MoveRouteRequest { request_id, route_id, target_group_id, expected_version: 0 };
        begin(v1::ProcedureKind::Move, request, &relocate)
    })
}

/// Seldom the name of another table.
fn reserved_name() -> impl Strategy<Value = &'static str> {
    prop_oneof![6 => Just("r"), 1 => Just("t")]
}

fn any_opening() -> impl Strategy<Value = Kind> {
    (40u64..70, reserved_name()).prop_map(|(request, name)| {
        let open = v1::OpenTableRequest { request_id: directory(request), name: name.to_owned() };
        begin(v1::ProcedureKind::Open, request, &open)
    })
}

/// Routes that begin at random row keys. They become those of a reserved table, if there is one.
fn any_save() -> impl Strategy<Value = Kind> {
    let route = (0u64..12, any::<u8>(), 0u64..4).prop_map(|(route_id, key, group_id)| v1::Route {
        route_id: if route_id < 6 { 0 } else { route_id },
        start: vec![key].into(),
        group_id,
        ..v1::Route::default()
    });
    let routes = proptest::collection::vec(route, 0..4);
    (80u64..99, 1u32..6, 0u64..9, routes).prop_map(|(request, table_id, expected, routes)| {
        Kind::SaveRoutes(v1::SaveRoutesRequest {
            request_id: directory(request),
            table_id,
            expected_version: expected,
            routes,
        })
    })
}

/// The same operation, begun as a procedure.
fn as_procedure(kind: Kind) -> Kind {
    use v1::ProcedureKind as Number;
    let begin = |number, id: &str, request: &dyn Fn() -> Vec<u8>| {
        let id: uuid::Uuid = id.parse().unwrap();
        let id = bytes::Bytes::copy_from_slice(id.as_bytes());
        let (kind, arguments) = (number as u32, request().into());
        Kind::BeginProcedure(v1::BeginProcedure { id, kind, arguments })
    };
    match &kind {
        Kind::CreateTable(of) => begin(Number::Create, &of.request_id, &|| of.encode_to_vec()),
        Kind::BeginDropTable(of) => begin(Number::Drop, &of.request_id, &|| of.encode_to_vec()),
        Kind::CloneTable(of) => begin(Number::Clone, &of.request_id, &|| of.encode_to_vec()),
        Kind::BeginLoad(of) => begin(Number::Load, &of.request_id, &|| of.encode_to_vec()),
        Kind::BeginAlterTable(of) => begin(Number::Alter, &of.request_id, &|| of.encode_to_vec()),
        Kind::BeginTruncateTable(of) => {
            begin(Number::Truncate, &of.request_id, &|| of.encode_to_vec())
        }
        _ => kind,
    }
}

fn any_single_command() -> impl Strategy<Value = Kind> {
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
        proptest::collection::vec(101u64..105, 0..4).prop_map(|first_members| Kind::CreateGroup(
            v1::CreateGroup { first_members, home_groups: 0 }
        )),
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
            proptest::collection::vec(any_report(), 0..4),
            proptest::collection::vec(any_observed_node(), 0..4)
        )
            .prop_map(|(nodes, groups, observed_nodes)| {
                Kind::RecordObservations(v1::RecordObservations { nodes, groups, observed_nodes })
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

/// Alters, truncates, clones and loads of tables, and the commands that continue them. Few numbers, so that many
/// are those of the change in progress.
fn any_table_change() -> impl Strategy<Value = Kind> {
    let name = || prop_oneof![Just("t".to_owned()), Just("u".to_owned()), Just("v".to_owned())];
    let request = || (40u64..60).prop_map(directory);
    let load_request = || (60u64..63).prop_map(directory);
    let change = || (1u32..6, 0u64..4);
    let load = || change().prop_map(|(table_id, number)| v1::AdvanceLoad { table_id, number });
    prop_oneof![
        (request(), name(), any_columns(), proptest::option::of(0u64..2)).prop_map(
            |(request_id, name, columns, ttl_ms)| {
                Kind::BeginAlterTable(v1::AlterTableRequest {
                    request_id,
                    name,
                    columns,
                    ttl_ms,
                    compaction_window_ms: None,
                    by_node: false,
                    explicit_since: false,
                })
            }
        ),
        (request(), name()).prop_map(|(request_id, name)| {
            Kind::BeginTruncateTable(v1::TruncateTableRequest { request_id, name })
        }),
        change().prop_map(|(table_id, number)| {
            Kind::FinishTableChange(v1::FinishTableChange { table_id, number })
        }),
        (request(), name(), name()).prop_map(|(request_id, name, new_name)| {
            Kind::CloneTable(v1::CloneTableRequest { request_id, name, new_name })
        }),
        (load_request(), name(), 0u64..500).prop_map(|(request_id, name, timeout_ms)| {
            Kind::BeginLoad(v1::BeginLoadRequest { request_id, name, timeout_ms })
        }),
        load().prop_map(Kind::LoadOpened),
        load().prop_map(Kind::ExpireLoad),
        (load_request(), name(), any::<bool>()).prop_map(|(request_id, name, publish)| {
            Kind::EndLoad(v1::EndLoadRequest { request_id, name, publish })
        }),
    ]
}

fn any_columns() -> impl Strategy<Value = Vec<v1::ColumnChange>> {
    let column = |name: &str| v1::NewColumn {
        name: name.to_owned(),
        r#type: "int64".to_owned(),
        nullable: true,
        default: None,
    };
    let change = prop_oneof![
        Just(column_change::Change::Add(column("x"))),
        Just(column_change::Change::Drop("x".to_owned())),
        Just(column_change::Change::Drop("a".to_owned())),
    ];
    let change = change.prop_map(|change| v1::ColumnChange { change: Some(change) });
    proptest::collection::vec(change, 0..3)
}

fn any_state() -> impl Strategy<Value = v1::SetNodeState> {
    (100u64..106, 0i32..4).prop_map(|(node_id, state)| v1::SetNodeState { node_id, state })
}

/// Observed states of the members of the meta group, and of data nodes with few starts.
fn any_observed_node() -> impl Strategy<Value = v1::ObservedNode> {
    let node = prop_oneof![1u64..4, 101u64..106];
    (node, 0i32..4, 0u64..3, 1u64..4).prop_map(|(node_id, state, boot, process)| {
        let start_id = if boot == 0 { String::new() } else { directory(process) };
        v1::ObservedNode { node_id, state, boot, start_id }
    })
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

/// A raise by a leader that has asked some nodes, or all that the model can have.
fn any_raise() -> impl Strategy<Value = v1::RaiseFeatureLevel> {
    let named = prop_oneof![
        Just((101u64..125).map(|node| (node, 0)).collect::<Vec<_>>()),
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

fn hook_name() -> impl Strategy<Value = String> {
    prop_oneof![Just("h".to_owned()), Just("i".to_owned())]
}

fn hook_table() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), Just("t".to_owned())]
}
