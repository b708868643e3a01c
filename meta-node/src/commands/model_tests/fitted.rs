//! Random commands, fitted to the state: commands that name a position, a number or nodes of the state would be
//! accepted almost never.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use tidewater_common::ids::{GroupId, NodeId, TableId};
use tidewater_common::keys::split_global_key;
use tidewater_proto::v1::{self, meta_command::Kind};

use crate::catalog::{MetaState, Procedure, RouteDescriptor, Table, TableChange, table_bounds};
use crate::commands::Rules;
use crate::commands::testing::command;

/// Returns the command that a leader proposes, under the rules of the state's level. About half of the commands
/// of these kinds keep their random values.
pub(super) fn proposed(state: &MetaState, kind: Kind) -> v1::MetaCommand {
    let rules = Rules::at(state.header().feature_level).0;
    v1::MetaCommand { rules, ..command(fitted(state, kind)) }
}

fn fitted(state: &MetaState, kind: Kind) -> Kind {
    match kind {
        Kind::StepHook(step) if step.from_region_id > 3 => Kind::StepHook(next_step(state, step)),
        Kind::RaiseFeatureLevel(raise) if raise.nodes.len() > 2 => {
            let nodes = state
                .nodes()
                .map(|node| v1::SupportingNode { node_id: node.id.get(), boot: node.boot.get() });
            Kind::RaiseFeatureLevel(v1::RaiseFeatureLevel { nodes: nodes.collect(), ..raise })
        }
        Kind::AdvanceCursors(moves) => {
            let fit = |(at, advance)| at_cursor(state, at, advance);
            let advances = moves.advances.into_iter().enumerate().map(fit).collect();
            Kind::AdvanceCursors(v1::AdvanceCursors { advances })
        }
        Kind::ChangeCollections(of) => {
            let learned = |table: &Arc<Table>| v1::LearnedSince {
                table: Some(v1::TableSince { table_id: table.id.get(), since: 5 }),
                changes: table.changes,
            };
            let learned = state.tables().map(learned).collect();
            Kind::ChangeCollections(v1::ChangeCollections { learned, ..of })
        }
        Kind::FinishTableChange(finish) if finish.number > 1 => {
            let number = last_change(state, finish.table_id).unwrap_or(finish.number);
            Kind::FinishTableChange(v1::FinishTableChange { number, ..finish })
        }
        Kind::LoadOpened(load) if load.number > 1 => Kind::LoadOpened(in_progress(state, load)),
        Kind::ExpireLoad(load) if load.number > 1 => Kind::ExpireLoad(in_progress(state, load)),
        Kind::EndLoad(end) if end.name == "t" => Kind::EndLoad(fitted_end(state, end)),
        Kind::BeginProcedure(begin) if begin.kind == v1::ProcedureKind::Split as u32 => {
            Kind::BeginProcedure(fitted_split(state, begin))
        }
        Kind::BeginProcedure(begin) if begin.kind == v1::ProcedureKind::Merge as u32 => {
            Kind::BeginProcedure(fitted_merge(state, begin))
        }
        Kind::BeginProcedure(begin) if begin.kind == v1::ProcedureKind::Move as u32 => {
            Kind::BeginProcedure(fitted_move(state, begin))
        }
        Kind::AdvanceProcedure(advance) if advance.number > 1 => {
            Kind::AdvanceProcedure(at_step(state, advance))
        }
        Kind::AbandonProcedure(abandon) if abandon.number > 1 => {
            Kind::AbandonProcedure(match running(state, abandon.number) {
                Some(of) => v1::AbandonProcedure { id: wire(of), number: of.number, ..abandon },
                None => abandon,
            })
        }
        Kind::CreateGroup(create) => Kind::CreateGroup(fitted_creation(state, create)),
        Kind::SaveRoutes(save) if save.expected_version > 1 => {
            Kind::SaveRoutes(fitted_save(state, save))
        }
        other => other,
    }
}

/// A group whose home has the number of groups that its leader knows, unless it is one of four first members.
fn fitted_creation(state: &MetaState, create: v1::CreateGroup) -> v1::CreateGroup {
    let home = create.first_members.first().copied().map(NodeId);
    let known = state.live_groups().filter(|group| group.home() == home).count();
    let home_groups = if create.first_members.len() > 3 { 0 } else { known };
    v1::CreateGroup { home_groups: u32::try_from(home_groups).unwrap(), ..create }
}

/// A save on the current version, mostly of routes that tile a reserved table if there is one.
fn fitted_save(state: &MetaState, save: v1::SaveRoutesRequest) -> v1::SaveRoutesRequest {
    let is_reserved = |table: &&Arc<Table>| table.state == v1::TableState::Reserved;
    let Some(table) = state.tables().find(is_reserved) else { return save };
    let (first, last) = table_bounds(table.id).unwrap();
    let mut routes = save.routes;
    routes.sort_by(|left, right| left.start.cmp(&right.start));
    let starts = routes.iter().map(|route| [first.as_slice(), &route.start].concat());
    let mut starts: Vec<Vec<u8>> = starts.collect();
    if save.expected_version > 3
        && let Some(start) = starts.first_mut()
    {
        start.clone_from(&first);
    }
    let ends = starts.iter().skip(1).chain([&last]).cloned();
    for ((route, start), end) in routes.iter_mut().zip(&starts).zip(ends) {
        (route.start, route.end) = (start.clone().into(), Some(end.into()));
    }
    let expected_version = state.catalog_version().get();
    v1::SaveRoutesRequest { table_id: table.id.get(), expected_version, routes, ..save }
}

/// A split of a route that exists, mostly at one of its keys, and for the load only if hotspots are on.
fn fitted_split(state: &MetaState, begin: v1::BeginProcedure) -> v1::BeginProcedure {
    let request = v1::SplitRouteRequest::decode(begin.arguments.clone()).unwrap();
    let at = usize::try_from(request.route_id).unwrap();
    let Some(route) = state.routes().nth(at) else { return begin };
    let (_, start) = split_global_key(&route.start).unwrap();
    let request = v1::SplitRouteRequest {
        route_id: route.route_id.get(),
        split_key: [start, &request.split_key].concat().into(),
        for_load: request.for_load && state.balance().hotspots == v1::HotspotMode::On,
        ..request
    };
    v1::BeginProcedure { arguments: request.encode_to_vec().into(), ..begin }
}

/// A merge of routes that exist, mostly of neighbours in one group.
fn fitted_merge(state: &MetaState, begin: v1::BeginProcedure) -> v1::BeginProcedure {
    let request = v1::MergeRoutesRequest::decode(begin.arguments.clone()).unwrap();
    let at = usize::try_from(request.route_id).unwrap();
    let routes: Vec<_> = state.routes().collect();
    let are_mergeable = |pair: &&[&Arc<RouteDescriptor>]| {
        pair[0].end.as_ref() == Some(&pair[1].start) && pair[0].group_id == pair[1].group_id
    };
    let is_any = request.neighbour_id < 2;
    let mut pairs = routes.windows(2).filter(|pair| is_any || are_mergeable(pair));
    let Some(pair) = pairs.nth(at % 3) else { return begin };
    let [route_id, neighbour_id] = [pair[0], pair[1]].map(|route| route.route_id.get());
    let request = v1::MergeRoutesRequest { route_id, neighbour_id, ..request };
    v1::BeginProcedure { arguments: request.encode_to_vec().into(), ..begin }
}

/// A move of a route that exists, mostly to a group in which it is not.
fn fitted_move(state: &MetaState, begin: v1::BeginProcedure) -> v1::BeginProcedure {
    let request = v1::MoveRouteRequest::decode(begin.arguments.clone()).unwrap();
    let at = usize::try_from(request.route_id).unwrap();
    let routes: Vec<_> = state.routes().collect();
    let Some(route) = routes.get(at % routes.len().max(1)) else { return begin };
    let other = |(id, _): &(GroupId, usize)| *id != route.group_id;
    let target = state.open_groups().find(other).filter(|_| request.target_group_id > 0);
    let target_group_id = target.map_or(request.target_group_id, |(id, _)| id.get());
    let request =
        v1::MoveRouteRequest { route_id: route.route_id.get(), target_group_id, ..request };
    v1::BeginProcedure { arguments: request.encode_to_vec().into(), ..begin }
}

/// The step of a procedure that runs, if there is one: often of the one with the greatest step, so that long ones end.
fn at_step(state: &MetaState, advance: v1::AdvanceProcedure) -> v1::AdvanceProcedure {
    let of = match advance.number {
        3.. => state.procedures().running().max_by_key(|of| of.step).map(AsRef::as_ref),
        _ => running(state, u64::from(advance.step)),
    };
    match of {
        Some(of) => {
            v1::AdvanceProcedure { id: wire(of), number: of.number, step: of.step, ..advance }
        }
        None => advance,
    }
}

/// One of the procedures that run, by a random number.
fn running(state: &MetaState, number: u64) -> Option<&Procedure> {
    let all: Vec<_> = state.procedures().running().collect();
    let at = usize::try_from(number).unwrap().checked_rem(all.len())?;
    Some(all[at].as_ref())
}

fn wire(procedure: &Procedure) -> Bytes {
    Bytes::copy_from_slice(procedure.id.as_bytes())
}

/// The next step of the hook's procedure, if it has one.
fn next_step(state: &MetaState, step: v1::StepHook) -> v1::StepHook {
    match state.hook_procedure(&step.hook) {
        Some(procedure) => v1::StepHook {
            generation: procedure.generation.get(),
            from_region_id: procedure.next_region.get(),
            ..step
        },
        None => step,
    }
}

/// Every second move is of a cursor that exists.
fn at_cursor(state: &MetaState, at: usize, advance: v1::CursorAdvance) -> v1::CursorAdvance {
    let region = usize::try_from(advance.region_id).unwrap();
    match state.cursors().iter().nth(region + at) {
        Some(cursor) if advance.region_id.is_multiple_of(2) => v1::CursorAdvance {
            hook: cursor.hook.clone(),
            generation: cursor.generation.get(),
            region_id: cursor.region.get(),
            expected_version: cursor.version.get(),
            expected_state: cursor.state.into(),
            version: cursor.version.get() + advance.version,
            ..advance
        },
        _ => advance,
    }
}

/// The load that is in progress, if there is one.
fn in_progress(state: &MetaState, load: v1::AdvanceLoad) -> v1::AdvanceLoad {
    let is_loaded = |table: &&Arc<Table>| matches!(table.change, Some(TableChange::Load(_)));
    match state.tables().find(is_loaded) {
        Some(table) => v1::AdvanceLoad { table_id: table.id.get(), number: table.changes },
        None => load,
    }
}

/// The end of a load that a request has begun, if there is one.
fn fitted_end(state: &MetaState, end: v1::EndLoadRequest) -> v1::EndLoadRequest {
    let load = |table: &Arc<Table>| match &table.change {
        Some(TableChange::Load(load)) => Some((table.name.clone(), load.area.to_string())),
        _ => None,
    };
    match state.tables().find_map(load) {
        Some((name, request_id)) => v1::EndLoadRequest { name, request_id, ..end },
        None => end,
    }
}

/// Number of the last change of a table.
fn last_change(state: &MetaState, table: u32) -> Option<u64> {
    state.table(TableId(table)).map(|table| table.changes)
}
