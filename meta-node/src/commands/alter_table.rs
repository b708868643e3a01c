//! Alter and truncate. A change begins with a command, is applied by the regions one by one, and ends
//! with a command. In between, the table's record is unchanged, and the table accepts no other change.

use std::time::Duration;

use tidewater_common::ids::TableId;
use tidewater_common::schema::{ColumnType, SchemaChange, SchemaError, TableOptions, TableSchema};
use tidewater_proto::v1::{self, LockMode, TableState, column_change};

use super::requests::IdentifiedRequest;
use super::{CommandError, CommandReply, Rules, clone_table, collections, procedures};
use crate::catalog::{CatalogChange, MetaState, OutcomeKind, Table, TableChange};

pub(super) fn begin_alter(
    state: &MetaState,
    request: &v1::AlterTableRequest,
    rules: Rules,
) -> Result<(CommandReply, CatalogChange), CommandError> {
    let key = (request.request_id.as_str(), request.name.as_str());
    let id = IdentifiedRequest::new(rules, OutcomeKind::AlterTable, key, request)?;
    begin(state, &id, &request.name, |table| {
        let (schema, options) = altered(state, table, request)?;
        Ok(TableChange::Alter { schema: Box::new(schema), options })
    })
}

/// Returns schema and options of a table after an alteration.
pub(super) fn altered(
    state: &MetaState,
    table: &Table,
    request: &v1::AlterTableRequest,
) -> Result<(TableSchema, TableOptions), CommandError> {
    let changes =
        request.columns.iter().map(column_change).collect::<Result<Vec<_>, CommandError>>()?;
    let mut options = table.options.clone();
    if let Some(ttl_ms) = request.ttl_ms {
        options.ttl_ms = (ttl_ms != 0).then_some(ttl_ms);
    }
    if let Some(window_ms) = request.compaction_window_ms {
        options.compaction_window = (window_ms != 0).then_some(Duration::from_millis(window_ms));
    }
    if request.explicit_since {
        collections::check_level(state, table)?;
        options.explicit_since = true;
    }
    if changes.is_empty() && options == table.options {
        return Err(CommandError::NothingToAlter(table.name.clone()));
    }
    let schema = table.schema.altered(&changes)?;
    options.validate(&schema)?;
    Ok((schema, options))
}

pub(super) fn begin_truncate(
    state: &MetaState,
    request: &v1::TruncateTableRequest,
    rules: Rules,
) -> Result<(CommandReply, CatalogChange), CommandError> {
    let key = (request.request_id.as_str(), request.name.as_str());
    let id = IdentifiedRequest::new(rules, OutcomeKind::TruncateTable, key, request)?;
    let (reply, mut change) = begin(state, &id, &request.name, |table| {
        collections::check_not_held(state, table, "truncated")?;
        Ok(TableChange::Truncate)
    })?;
    let begun = change.tables.first();
    let record = begun.and_then(|table| collections::with_unknown_since(state, table.id));
    change.collections.extend(record);
    Ok((reply, change))
}

/// Begins a change of a table. Idempotent by request id.
pub(super) fn begin(
    state: &MetaState,
    request: &IdentifiedRequest<'_>,
    name: &str,
    change: impl FnOnce(&Table) -> Result<TableChange, CommandError>,
) -> Result<(CommandReply, CatalogChange), CommandError> {
    if let Some(table) = request.find_repeated(state)? {
        return Ok((CommandReply::Table(table), CatalogChange::default()));
    }
    let table =
        state.table_named(name).ok_or_else(|| CommandError::TableNotFound(name.to_owned()))?;
    if table.state != TableState::Active {
        return Err(CommandError::TableState { table: table.id, state: table.state });
    }
    if let Some(change) = &table.change {
        return Err(CommandError::busy(table, change.verb()));
    }
    clone_table::check_not_being_cloned(state, table)?;
    procedures::check_lock(state, table, LockMode::Exclusive)?;
    let changed = Table {
        change: Some(change(table)?),
        changes: table.changes.checked_add(1).ok_or(CommandError::IdsUsedUp("change"))?,
        ..table.as_ref().clone()
    };
    let change = CatalogChange { tables: vec![changed], ..CatalogChange::default() };
    Ok(request.begun(state, (table.id, change)))
}

/// Finishes a change that all regions have applied. A delayed command for an earlier change has no
/// effect.
pub(super) fn finish(
    state: &MetaState,
    command: &v1::FinishTableChange,
) -> Result<CatalogChange, CommandError> {
    let id = TableId(command.table_id);
    let table = state.table(id).ok_or(CommandError::TableIdNotFound(id))?;
    let Some(change) = table.change.clone().filter(|_| table.changes == command.number) else {
        return Ok(CatalogChange::default());
    };
    let mut table = Table { change: None, ..table.as_ref().clone() };
    if let TableChange::Alter { schema, options } = change {
        table.schema = *schema;
        table.options = options;
    }
    Ok(CatalogChange { tables: vec![table], ..CatalogChange::default() })
}

fn column_change(wire: &v1::ColumnChange) -> Result<SchemaChange, CommandError> {
    match &wire.change {
        Some(column_change::Change::Add(column)) => Ok(SchemaChange::AddColumn {
            name: column.name.clone(),
            data_type: column.r#type.parse::<ColumnType>().map_err(SchemaError::Type)?,
            nullable: column.nullable,
            default: column.default.clone(),
        }),
        Some(column_change::Change::Drop(name)) => {
            Ok(SchemaChange::DropColumn { name: name.clone() })
        }
        None => Err(CommandError::Malformed("a column change is empty".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use tidewater_proto::v1::meta_command::Kind;
    use uuid::Uuid;

    use super::*;
    use crate::catalog::MetaState;
    use crate::commands::testing::{run, table, with_groups};

    fn with_table() -> MetaState {
        let mut state = with_groups(1, 1);
        run(&mut state, Kind::CreateTable(table(1, "t"))).unwrap();
        run(&mut state, Kind::ActivateTable(v1::ActivateTable { table_id: 1 })).unwrap();
        state
    }

    fn request_id(number: u128) -> String {
        Uuid::from_u128(number).to_string()
    }

    fn add(name: &str, nullable: bool) -> v1::ColumnChange {
        let column = v1::NewColumn {
            name: name.to_owned(),
            r#type: "int8".to_owned(),
            nullable,
            default: None,
        };
        v1::ColumnChange { change: Some(column_change::Change::Add(column)) }
    }

    fn alter(id: u128, columns: Vec<v1::ColumnChange>) -> Kind {
        Kind::BeginAlterTable(v1::AlterTableRequest {
            request_id: request_id(id),
            name: "t".to_owned(),
            columns,
            ttl_ms: None,
            compaction_window_ms: None,
            by_node: false,
            explicit_since: false,
        })
    }

    fn truncate(id: u128) -> Kind {
        let name = "t".to_owned();
        Kind::BeginTruncateTable(v1::TruncateTableRequest { request_id: request_id(id), name })
    }

    fn finish(number: u64) -> Kind {
        Kind::FinishTableChange(v1::FinishTableChange { table_id: 1, number })
    }

    fn the_table(state: &MetaState) -> &Table {
        state.table(TableId(1)).unwrap()
    }

    #[test]
    fn altered_schema_takes_effect_when_all_regions_have_it() {
        let mut state = with_table();
        let before = the_table(&state).schema.clone();
        run(&mut state, alter(10, vec![add("x", true)])).unwrap();
        assert_eq!(the_table(&state).schema, before);
        // A repeated request does not begin another change.
        run(&mut state, alter(10, vec![add("x", true)])).unwrap();
        assert_eq!(the_table(&state).changes, 1);
        run(&mut state, finish(1)).unwrap();
        let after = the_table(&state).schema.clone();
        assert_eq!(after.version().get(), before.version().get() + 1);
        assert!(after.column_named("x").is_some());
        assert_eq!(the_table(&state).change, None);
    }

    #[test]
    fn table_accepts_one_change_at_a_time() {
        let mut state = with_table();
        run(&mut state, truncate(10)).unwrap();
        for next in [truncate(11), alter(12, vec![add("x", true)])] {
            let error = run(&mut state, next).unwrap_err();
            assert!(
                matches!(error, CommandError::TableBusy { operation: "truncated", .. }),
                "{error}"
            );
        }
        run(&mut state, finish(1)).unwrap();
        run(&mut state, truncate(11)).unwrap();
        // A delayed command for the first change.
        run(&mut state, finish(1)).unwrap();
        assert_eq!(the_table(&state).change, Some(TableChange::Truncate));
        assert_eq!(the_table(&state).changes, 2);
    }

    #[test]
    fn invalid_alter_changes_nothing() {
        let state = with_table();
        let key = the_table(&state).schema.columns()[0].name.clone();
        let drop = |name: &str| v1::ColumnChange {
            change: Some(column_change::Change::Drop(name.to_owned())),
        };
        let ttl = v1::AlterTableRequest {
            request_id: request_id(10),
            name: "t".to_owned(),
            columns: Vec::new(),
            ttl_ms: Some(5),
            compaction_window_ms: None,
            by_node: false,
            explicit_since: false,
        };
        let cases = [
            alter(10, Vec::new()),
            alter(10, vec![drop(&key)]),
            alter(10, vec![drop("nowhere")]),
            alter(10, vec![add(&key, true)]),
            alter(10, vec![add("x", false)]),
            alter(10, vec![v1::ColumnChange { change: None }]),
            Kind::BeginAlterTable(v1::AlterTableRequest { name: "u".to_owned(), ..ttl.clone() }),
            // A time to live requires a time column.
            Kind::BeginAlterTable(ttl),
        ];
        for case in cases {
            let mut after = state.clone();
            run(&mut after, case).unwrap_err();
            assert_eq!(after.rows().unwrap(), state.rows().unwrap());
        }
    }

    #[test]
    fn drop_aborts_a_change_in_progress() {
        let mut state = with_table();
        run(&mut state, truncate(10)).unwrap();
        let drop =
            v1::DropTableRequest { request_id: request_id(11), name: "t".to_owned(), table_id: 0 };
        run(&mut state, Kind::BeginDropTable(drop)).unwrap();
        assert_eq!(the_table(&state).change, None);
        run(&mut state, finish(1)).unwrap();
    }
}
