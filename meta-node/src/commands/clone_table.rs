//! Clones: tables that start with the rows of another table.
//!
//! Until a clone is active, its regions adopt the files of the source's regions by reference, one by
//! one, and the source is not altered, truncated, loaded or dropped. The clone's region ids are higher
//! than the source's, as required of a region that refers to another region's files.

use std::sync::Arc;

use tidewater_common::ids::TableId;
use tidewater_common::schema::{TableOptions, check_name};
use tidewater_proto::v1::{self, LockMode, TableState};

use super::requests::IdentifiedRequest;
use super::tables::{self, TableCreation, TableDefinition, new_id};
use super::{CommandError, CommandReply, Rules, procedures, refreshes};
use crate::catalog::{CatalogChange, MetaState, OutcomeKind, RouteDescriptor, Table, table_bounds};

pub(super) fn begin(
    state: &MetaState,
    request: &v1::CloneTableRequest,
    rules: Rules,
) -> Result<(CommandReply, CatalogChange), CommandError> {
    let key = (request.request_id.as_str(), request.new_name.as_str());
    let identified = IdentifiedRequest::new(rules, OutcomeKind::CloneTable, key, request)?;
    if let Some(table) = identified.find_repeated(state)? {
        return Ok((CommandReply::Table(table), CatalogChange::default()));
    }
    let (source, creation) = creation(state, request)?;
    if let Some(change) = &source.change {
        return Err(CommandError::busy(source, change.verb()));
    }
    procedures::check_lock(state, source, LockMode::Source)?;
    Ok(identified.begun(state, creation))
}

/// Returns the source table and the change that begins its clone. The caller checks the locks of the source.
pub(super) fn creation<'a>(
    state: &'a MetaState,
    request: &v1::CloneTableRequest,
) -> Result<(&'a Table, TableCreation), CommandError> {
    check_name("table", &request.new_name)?;
    let source = state
        .table_named(&request.name)
        .ok_or_else(|| CommandError::TableNotFound(request.name.clone()))?;
    let id = new_id(state, &request.new_name)?;
    if source.state != TableState::Active {
        procedures::check_lock(state, source, LockMode::Source)?;
        return Err(CommandError::TableState { table: source.id, state: source.state });
    }
    refreshes::check_written_by_clients(state, source, "cloned")?;
    let ranges = translate_ranges(state.routes_of(source.id), source.id, id)
        .ok_or(CommandError::IdsUsedUp("table"))?;
    let new = TableDefinition {
        id,
        name: request.new_name.clone(),
        schema: source.schema.clone(),
        // Holds and policies are of the source: the clone follows the history of the cluster.
        options: TableOptions { explicit_since: false, ..source.options.clone() },
        clone_of: Some(source.id),
    };
    Ok((source.as_ref(), tables::begin(state, new, ranges)?))
}

/// Translates the ranges of one table's routes to another table.
fn translate_ranges<'a>(
    routes: impl Iterator<Item = &'a Arc<RouteDescriptor>>,
    from: TableId,
    to: TableId,
) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
    let (start, end) = table_bounds(from)?;
    let (new_start, new_end) = table_bounds(to)?;
    let key = |key: &[u8]| {
        if *key == *end {
            return Some(new_end.clone());
        }
        Some([&new_start, key.strip_prefix(start.as_slice())?].concat())
    };
    routes.map(|route| Some((key(&route.start)?, key(route.end.as_deref()?)?))).collect()
}

/// Rejects a change of a table that is the source of a clone in progress.
pub(super) fn check_not_being_cloned(state: &MetaState, table: &Table) -> Result<(), CommandError> {
    let mut clones = state
        .tables_in_progress()
        .filter(|clone| clone.state == TableState::Creating && clone.clone_of == Some(table.id));
    match clones.next() {
        Some(clone) => {
            Err(CommandError::BeingCloned { table: table.name.clone(), clone: clone.name.clone() })
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use tidewater_proto::v1::meta_command::Kind;

    use super::*;
    use crate::commands::testing::{directory, run, table, with_groups};

    fn with_table() -> MetaState {
        let mut state = with_groups(1, 2);
        let request = v1::CreateTableRequest { regions: 3, ..table(1, "t") };
        run(&mut state, Kind::CreateTable(request)).unwrap();
        run(&mut state, Kind::ActivateTable(v1::ActivateTable { table_id: 1 })).unwrap();
        state
    }

    fn clone_of(id: u64, name: &str, new_name: &str) -> Kind {
        Kind::CloneTable(v1::CloneTableRequest {
            request_id: directory(id),
            name: name.to_owned(),
            new_name: new_name.to_owned(),
        })
    }

    #[test]
    fn clone_has_the_same_ranges_with_higher_ids() {
        let mut state = with_table();
        run(&mut state, clone_of(10, "t", "u")).unwrap();
        let clone = state.table_named("u").unwrap().clone();
        assert_eq!((clone.state, clone.clone_of), (TableState::Creating, Some(TableId(1))));
        assert_eq!(clone.schema, state.table(TableId(1)).unwrap().schema);
        let keys = |table: u32| -> Vec<_> {
            let routes = state.routes_of(TableId(table));
            routes.map(|route| route.start[4..].to_vec()).collect()
        };
        assert_eq!(keys(1), keys(2));
        let highest = state.routes_of(TableId(1)).map(|route| route.route_id).max();
        let routes: Vec<_> = state.routes_of(TableId(2)).collect();
        assert!(routes.iter().all(|route| Some(route.route_id) > highest));
        assert_eq!(routes.len(), 3);
        // A repeated request does not create another clone.
        run(&mut state, clone_of(10, "t", "u")).unwrap();
        assert_eq!(state.tables().count(), 2);
        run(&mut state, Kind::ActivateTable(v1::ActivateTable { table_id: 2 })).unwrap();
        assert_eq!(state.table(TableId(2)).unwrap().clone_of, None);
    }

    #[test]
    fn source_table_rejects_changes_while_it_is_cloned() {
        let mut state = with_table();
        run(&mut state, clone_of(10, "t", "u")).unwrap();
        let truncate = |id| {
            let name = "t".to_owned();
            Kind::BeginTruncateTable(v1::TruncateTableRequest { request_id: directory(id), name })
        };
        let drop = |id, name: &str| {
            let name = name.to_owned();
            Kind::BeginDropTable(v1::DropTableRequest {
                request_id: directory(id),
                name,
                table_id: 0,
            })
        };
        for change in [truncate(11), drop(12, "t")] {
            let error = run(&mut state, change).unwrap_err();
            assert!(matches!(error, CommandError::BeingCloned { .. }), "{error}");
        }
        // Drop the clone.
        run(&mut state, drop(13, "u")).unwrap();
        run(&mut state, truncate(14)).unwrap();
        let error = run(&mut state, clone_of(15, "t", "v")).unwrap_err();
        assert!(matches!(error, CommandError::TableBusy { operation: "truncated", .. }), "{error}");
    }

    #[test]
    fn invalid_clone_changes_nothing() {
        let mut state = with_table();
        for case in [
            clone_of(10, "nowhere", "u"),
            clone_of(10, "t", "t"),
            clone_of(10, "t", ""),
            Kind::CloneTable(v1::CloneTableRequest::default()),
        ] {
            run(&mut state, case).unwrap_err();
        }
        assert_eq!(state.tables().count(), 1);
    }
}
