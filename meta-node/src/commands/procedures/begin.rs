//! Begins of procedures: repeated requests, locks and numbers.

use std::collections::BTreeSet;

use bytes::Bytes;
use tidewater_common::ids::TableId;
use tidewater_proto::v1::{self, AbandonCause, ProcedureState};
use uuid::Uuid;

use super::kind::{ProcedureBegin, ProcedureKind};
use super::{kind_of, known_kind, parse_id, published, published_route};
use crate::catalog::{
    CatalogChange, MAX_OUTCOMES, MetaState, OutcomeKind, Procedure, Table, lock_conflict,
};
use crate::commands::requests::RETRY_WINDOW_MS;
use crate::commands::{CommandError, CommandReply};

/// Maximum length of the arguments of a procedure, in bytes: that of a request. Apply depends on it, so it never
/// changes.
const MAX_ARGUMENTS: usize = 4 * 1024 * 1024;

/// Begins a procedure. A repeated request has the same reply, also after the end of the procedure.
pub(in crate::commands) fn begin(
    state: &MetaState,
    command: &v1::BeginProcedure,
) -> Result<(CommandReply, CatalogChange), CommandError> {
    let id = parse_id(&command.id)?;
    if command.arguments.len() > MAX_ARGUMENTS {
        let text = format!("the arguments of a procedure are limited to {MAX_ARGUMENTS} bytes");
        return Err(CommandError::Malformed(text));
    }
    let kind = known_kind(command.kind)?;
    let checksum = crc32c::crc32c(&kind.identity(&command.arguments)?);
    if let Some(procedure) = state.procedures().get(id) {
        return repeat(state, procedure, kind, (checksum, &command.arguments));
    }
    if let Some(table) = find_earlier(state, id, kind, checksum)? {
        return Ok((CommandReply::Table(table), CatalogChange::default()));
    }
    let level = state.header().feature_level;
    if kind.facts().level > level {
        return Err(CommandError::FeatureLevel { needed: kind.facts().level, level });
    }
    let forgotten = make_room(state, 1)?;
    let begun = kind.begin(state, command.arguments.clone())?;
    let new = NewProcedure { id, kind, arguments: command.arguments.clone(), checksum };
    let (table, mut change) = recorded(state, new, begun)?;
    change.procedure_deletes.extend(forgotten);
    Ok((CommandReply::Table(table), change))
}

/// A procedure that begins.
pub(in crate::commands) struct NewProcedure {
    pub(in crate::commands) id: Uuid,
    pub(in crate::commands) kind: &'static dyn ProcedureKind,
    pub(in crate::commands) arguments: Bytes,
    /// Checksum of the part of the arguments that identifies the request.
    pub(in crate::commands) checksum: u32,
}

/// Returns the table and the change of a begin, with the record of its procedure.
///
/// # Errors
/// Another operation has the locks.
pub(in crate::commands) fn recorded(
    state: &MetaState,
    new: NewProcedure,
    begun: ProcedureBegin,
) -> Result<(TableId, CatalogChange), CommandError> {
    let NewProcedure { id, kind, arguments, checksum } = new;
    let ProcedureBegin {
        table,
        locks,
        routes,
        has_precedence,
        ended,
        deadline_ms,
        plan,
        mut change,
    } = begun;
    let is_new = |row: &&mut Table| row.id == table;
    let of_table = match change.tables.iter_mut().find(is_new) {
        Some(row) => row,
        None => {
            let row = state.table(table).ok_or(CommandError::TableIdNotFound(table))?;
            change.tables.push(row.as_ref().clone());
            change.tables.last_mut().ok_or(CommandError::TableIdNotFound(table))?
        }
    };
    if !has_precedence && let Some((locked, holder)) = lock_conflict(state, &locks, &routes) {
        let locked = state.table(locked).map(|table| table.name.clone());
        let table = locked.unwrap_or_else(|| of_table.name.clone());
        return Err(CommandError::Locked { table, holder });
    }
    of_table.changes = of_table.changes.checked_add(1).ok_or(CommandError::IdsUsedUp("change"))?;
    let mut procedure = Procedure {
        id,
        kind: kind.facts().number,
        arguments,
        arguments_checksum: checksum,
        locks,
        routes,
        number: of_table.changes,
        step: 1,
        state: ProcedureState::Running,
        cause: AbandonCause::Unspecified,
        done: BTreeSet::new(),
        failure: None,
        begun_ms: state.header().time_ms,
        step_begun_ms: state.header().time_ms,
        deadline_ms,
        ended_ms: None,
        plan,
        published: None,
        published_route: None,
        table,
        // Before the command: a dropped table gets another name.
        table_name: state.table(table).map_or_else(|| of_table.name.clone(), |of| of.name.clone()),
    };
    procedure.published = published(kind, &procedure);
    procedure.published_route = published_route(kind, &procedure);
    change.procedures.extend(ended);
    change.procedures.push(procedure);
    Ok((table, change))
}

/// Decides on a repeated request.
fn repeat(
    state: &MetaState,
    procedure: &Procedure,
    kind: &dyn ProcedureKind,
    (checksum, arguments): (u32, &Bytes),
) -> Result<(CommandReply, CatalogChange), CommandError> {
    if procedure.kind != kind.facts().number || procedure.arguments_checksum != checksum {
        return Err(CommandError::RequestIdReused(procedure.id));
    }
    let reply = CommandReply::Table(procedure.table);
    let repeated = if procedure.is_running() {
        kind.repeated(state, procedure, arguments.clone())?
    } else {
        None
    };
    let procedures = repeated.into_iter().collect();
    Ok((reply, CatalogChange { procedures, ..CatalogChange::default() }))
}

/// Returns the table of an identical request that an earlier release has carried out.
fn find_earlier(
    state: &MetaState,
    id: Uuid,
    kind: &dyn ProcedureKind,
    checksum: u32,
) -> Result<Option<TableId>, CommandError> {
    let Some(outcome) = state.outcome(id) else { return Ok(None) };
    let is_same = kind.facts().earlier_outcome == Some(outcome.kind)
        && outcome.arguments.is_none_or(|recorded| recorded == checksum);
    if is_same { Ok(Some(outcome.table_id)) } else { Err(CommandError::RequestIdReused(id)) }
}

/// Returns the table of an identical request that has begun a procedure. `arguments`: their checksum; `None`: any.
///
/// # Errors
/// [`CommandError::RequestIdReused`]: the id has begun another procedure.
pub(in crate::commands) fn find_begun(
    state: &MetaState,
    id: Uuid,
    outcome: OutcomeKind,
    arguments: Option<u32>,
) -> Result<Option<TableId>, CommandError> {
    let Some(procedure) = state.procedures().get(id) else { return Ok(None) };
    let is_same = kind_of(procedure.kind).and_then(|kind| kind.facts().earlier_outcome)
        == Some(outcome)
        && arguments.is_none_or(|checksum| checksum == procedure.arguments_checksum);
    if is_same { Ok(Some(procedure.table)) } else { Err(CommandError::RequestIdReused(id)) }
}

/// Returns the ended procedures to forget for new ones, when too many are recorded.
pub(in crate::commands) fn make_room(
    state: &MetaState,
    new: usize,
) -> Result<Vec<Uuid>, CommandError> {
    let count = state.procedures().count();
    let excess = (count + new).saturating_sub(MAX_OUTCOMES);
    if excess == 0 {
        return Ok(Vec::new());
    }
    let before_ms = state.header().time_ms.saturating_sub(RETRY_WINDOW_MS);
    let oldest = state.procedures().ended_before(before_ms, excess);
    if oldest.len() < excess { Err(CommandError::OutcomesFull(count)) } else { Ok(oldest) }
}
