//! Ids of collections that are handed out before their creation, the creation of a batch of collections with such ids, all of
//! them or none, and the drop of ids that are not used.
//!
//! An id is handed out once, belongs to one collection at most, and is never used again. The record of a table has a checksum of
//! the description with which it was created: a repeated creation changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use prost::Message;
use tidewater_common::feature_level::FeatureLevel;
use tidewater_common::ids::TableId;
use tidewater_proto::v1::{self, LockMode};
use uuid::Uuid;

use super::procedures::kind::{ProcedureBegin, ProcedureKind};
use super::procedures::{self, NewProcedure};
use super::requests::IdentifiedRequest;
use super::tables::{self, Placement};
use super::{CollectionCommandError, CommandError, CommandReply, Rules};
use crate::catalog::{CatalogChange, Header, MetaState, OutcomeKind, TableLock};

/// Level of allocated ids.
pub(crate) const ALLOCATED_IDS: FeatureLevel = FeatureLevel::HELD_DROPS;
/// Level of drops of allocated ids.
pub(crate) const DROPPED_IDS: FeatureLevel = FeatureLevel::HELD_REFRESHES;
/// Greatest number of ids of a request. Apply depends on this limit and those below, so they never change.
const MAX_COUNT: u32 = 1_000;
/// Greatest number of ids that are handed out and not used.
const MAX_UNUSED: usize = 100_000;
/// Greatest number of collections of a batch that is created or dropped, and of the regions of a created one.
const MAX_BATCH: usize = 100;
const MAX_BATCH_REGIONS: usize = 2_048;
/// First half of the ids of the procedures that create collections; the second one is the id of the table.
const PROCEDURE: u64 = 0x636f_6c6c_6563_8000;

/// Hands out ids. A repeated request has the same ones.
pub(super) fn allocate(
    state: &MetaState,
    request: &v1::AllocateIdsRequest,
    rules: Rules,
) -> Result<(CommandReply, CatalogChange), CommandError> {
    let count = request.count.to_string();
    let key = (request.request_id.as_str(), count.as_str());
    let identified = IdentifiedRequest::new(rules, OutcomeKind::AllocateIds, key, request)?;
    if let Some(first) = identified.find_repeated(state)? {
        return Ok((CommandReply::Table(first), CatalogChange::default()));
    }
    if !(1..=MAX_COUNT).contains(&request.count) {
        return Err(bad("1 to 1,000 ids are handed out at a time".to_owned()));
    }
    if state.unused_id_count() + request.count as usize > MAX_UNUSED {
        return Err(CollectionCommandError::TooManyIds(state.unused_id_count()).into());
    }
    let first = state.header().next_table_id;
    // The next id is the upper bound of the last one's keys, so the greatest id is never handed out.
    let next = first.get().checked_add(request.count).ok_or(CommandError::IdsUsedUp("table"))?;
    let header = Header { next_table_id: TableId(next), ..state.header().clone() };
    let change = CatalogChange {
        header: Some(header),
        ids_allocated: (first.get()..next).map(TableId).collect(),
        ..CatalogChange::default()
    };
    Ok(identified.begun(state, (first, change)))
}

/// Creates the collections of a batch that do not exist yet.
pub(super) fn create(
    state: &MetaState,
    request: &v1::CreateCollectionsRequest,
) -> Result<CatalogChange, CommandError> {
    if !(1..=MAX_BATCH).contains(&request.collections.len()) {
        return Err(bad("a batch has 1 to 100 collections".to_owned()));
    }
    let mut seen = BTreeMap::new();
    let mut names = BTreeSet::new();
    let mut placement = Placement::new(state);
    let mut batch = CatalogChange::default();
    for of in &request.collections {
        let id = TableId(of.id);
        let definition = of.definition.as_ref();
        let definition =
            definition.ok_or_else(|| bad(format!("collection {id} has no definition")))?;
        let description = description(definition)?;
        match seen.insert(id, description) {
            Some(other) if other != description => return Err(reused(id)),
            Some(_) => continue,
            None => {}
        }
        if is_created(state, id, description)? {
            continue;
        }
        if !names.insert(&definition.name) {
            return Err(CommandError::TableExists(definition.name.clone()));
        }
        let change = creation(state, &mut placement, (id, description), definition)?;
        add(&mut batch, change);
        if batch.routes.len() > MAX_BATCH_REGIONS {
            return Err(bad(format!("a batch has at most {MAX_BATCH_REGIONS} regions")));
        }
    }
    let begun = batch.procedures.len();
    batch.procedure_deletes = procedures::make_room(state, begun)?;
    Ok(batch)
}

/// Drops the ids that are not used: no collection can be created with them, and they are never handed out again. Ids of
/// collections are unchanged: procedures drop these.
pub(super) fn drop_unused(
    state: &MetaState,
    request: &v1::DropCollectionsRequest,
) -> Result<CatalogChange, CommandError> {
    if request.ids.len() > MAX_BATCH {
        return Err(bad("a call drops at most 100 collections".to_owned()));
    }
    let ids: BTreeSet<TableId> = request.ids.iter().copied().map(TableId).collect();
    if let Some(id) = ids.iter().find(|id| !is_handed_out(state, **id)) {
        return Err(CollectionCommandError::IdentifierMissing(*id).into());
    }
    let ids_used = ids.into_iter().filter(|id| state.is_unused_id(*id)).collect();
    Ok(CatalogChange { ids_used, ..CatalogChange::default() })
}

/// Returns whether an id is or was that of a collection, or was handed out for one.
fn is_handed_out(state: &MetaState, id: TableId) -> bool {
    id != TableId(0) && id < state.header().next_table_id
}

/// Returns whether a collection with this description has the id already.
///
/// # Errors
/// The id was not handed out, was dropped, or is that of another collection.
fn is_created(state: &MetaState, id: TableId, description: u32) -> Result<bool, CommandError> {
    match state.table(id) {
        Some(table) if table.is_named() && table.description == Some(description) => Ok(true),
        Some(table) if table.is_named() => Err(reused(id)),
        None if state.is_unused_id(id) => Ok(false),
        None if !is_handed_out(state, id) => {
            Err(CollectionCommandError::IdentifierMissing(id).into())
        }
        _ => Err(CollectionCommandError::IdentifierInvalid(id).into()),
    }
}

/// Returns the checksum of a description.
///
/// # Errors
/// It has parts that no batch can create.
fn description(definition: &v1::CreateTableRequest) -> Result<u32, CommandError> {
    if definition.refresh.is_some() {
        return Err(bad("a refreshable table is created by CreateTable".to_owned()));
    }
    if !definition.request_id.is_empty() {
        return Err(bad("the id of a collection is its request id".to_owned()));
    }
    // 0 is no checksum in the record of a table. A later release that adds a field to the definition needs a level for it:
    // replicas that drop the field would store other checksums.
    Ok(crc32c::crc32c(&definition.encode_to_vec()).max(1))
}

/// Returns the change that begins the creation of a collection.
fn creation(
    state: &MetaState,
    placement: &mut Placement,
    (id, description): (TableId, u32),
    definition: &v1::CreateTableRequest,
) -> Result<CatalogChange, CommandError> {
    let mut change = tables::creation_as(state, placement, id, definition)?;
    for table in &mut change.tables {
        table.description = Some(description);
    }
    change.ids_used = vec![id];
    let procedure = Uuid::from_u64_pair(PROCEDURE, id.get().into());
    let request_id = procedure.to_string();
    let arguments = v1::CreateTableRequest { request_id, ..definition.clone() };
    let arguments = Bytes::from(arguments.encode_to_vec());
    let kind: &'static dyn ProcedureKind = procedures::creation_kind();
    let checksum = crc32c::crc32c(&arguments);
    let new = NewProcedure { id: procedure, kind, arguments, checksum };
    let locks = vec![TableLock { table: id, mode: LockMode::Exclusive }];
    let begun = ProcedureBegin { change, ..ProcedureBegin::new(id, locks) };
    procedures::recorded(state, new, begun).map(|(_, change)| change)
}

/// Adds the creation of a collection to a batch.
fn add(batch: &mut CatalogChange, of: CatalogChange) {
    // The ids of tables were advanced when they were handed out.
    batch.next_route_id = of.next_route_id.or(batch.next_route_id);
    batch.tables.extend(of.tables);
    batch.routes.extend(of.routes);
    batch.cursors.extend(of.cursors);
    batch.procedures.extend(of.procedures);
    batch.ids_used.extend(of.ids_used);
}

fn reused(id: TableId) -> CommandError {
    CollectionCommandError::IdReused(id).into()
}

fn bad(text: String) -> CommandError {
    CollectionCommandError::BadRequest(text).into()
}

#[cfg(test)]
mod tests;
