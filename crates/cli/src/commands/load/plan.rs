//! Definition of the table that `load --create` creates.

use tidewater_client::admin::{NewColumn, NewTable};
use tidewater_common::ids::{ColumnId, SchemaVersion};
use tidewater_common::schema::{
    Column as TableColumn, ColumnType, SchemaError, TableSchema, TypeError, WriteMode,
    check_table_name,
};

use crate::exit::{Exit, Failure};
use crate::load::infer::error::InferError;
use crate::load::infer::{Column, Place};
use crate::output;

/// Options of the definition, from the command line.
#[derive(Debug, Default, Clone)]
pub(crate) struct Wanted {
    pub(crate) name: String,
    /// Empty: an append-only table, which is sorted by a column of the files.
    pub(crate) primary_key: Vec<String>,
    pub(crate) time_column: Option<String>,
    /// Columns whose types are not inferred.
    pub(crate) given: Vec<NewColumn>,
    /// Limit of bad rows. A row without a key is a bad row.
    pub(crate) skip_bad: u64,
}

/// Table that cannot be defined.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlanError {
    #[error("{option}: `{name}` is not among the columns of the files: {columns}")]
    NoColumn { option: &'static str, name: String, columns: String },
    #[error(
        "{place}, column `{column}`: the primary key value is missing: choose other columns for \
         --primary-key, or leave it out for an append-only table"
    )]
    NullKey { column: String, place: Place },
    #[error(
        "an append-only table needs a column to sort by, but each column of the files misses a value \
         or is a float: choose one with --primary-key"
    )]
    NoSortColumn,
    #[error("the table cannot be created: {0}")]
    Schema(#[from] SchemaError),
    #[error("the table cannot be created: {0}")]
    Type(#[from] TypeError),
    #[error(transparent)]
    Infer(#[from] InferError),
}

impl From<PlanError> for Failure {
    fn from(error: PlanError) -> Self {
        let exit = match error {
            PlanError::Infer(error) => return error.into(),
            // An option does not fit the files.
            PlanError::NoColumn { .. } | PlanError::Schema(_) | PlanError::Type(_) => Exit::Usage,
            PlanError::NullKey { .. } | PlanError::NoSortColumn => Exit::Other,
        };
        Self::new(exit, error.to_string())
    }
}

/// A table to be created, and its schema for the check of the rows.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) table: NewTable,
    pub(crate) schema: TableSchema,
}

/// Defines the table for the columns of the files.
pub(crate) fn plan(wanted: &Wanted, columns: &[Column]) -> Result<Plan, PlanError> {
    check_table_name(&wanted.name)?;
    let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
    let check = |option: &'static str, name: &str| {
        let columns = || names.join(", ");
        let known = names.contains(&name);
        known.then_some(()).ok_or_else(|| PlanError::NoColumn {
            option,
            name: name.to_owned(),
            columns: columns(),
        })
    };
    wanted.primary_key.iter().try_for_each(|name| check("--primary-key", name))?;
    wanted.time_column.iter().try_for_each(|name| check("--time-column", name))?;
    wanted.given.iter().try_for_each(|column| check("--columns", &column.name))?;

    let given = |name: &str| wanted.given.iter().find(|column| column.name == name);
    let mut typed = Vec::with_capacity(columns.len());
    for column in columns {
        let data_type = match given(&column.name) {
            Some(given) => given.data_type.parse()?,
            None => column.data_type()?,
        };
        typed.push((column, data_type));
    }
    let primary_key = match wanted.primary_key.as_slice() {
        [] => vec![sort_column(wanted.time_column.as_deref(), &typed)?],
        key => key.to_vec(),
    };
    if wanted.skip_bad == 0 {
        check_key_values(&primary_key, &typed)?;
    }
    let columns: Vec<NewColumn> = typed
        .iter()
        .map(|(column, data_type)| {
            let in_key = primary_key.contains(&column.name);
            let given = given(&column.name);
            NewColumn {
                name: column.name.clone(),
                data_type: data_type.to_string(),
                nullable: !in_key && given.is_none_or(|given| given.nullable),
                default: given.and_then(|given| given.default.clone()),
            }
        })
        .collect();
    let types: Vec<ColumnType> = typed.into_iter().map(|(_, data_type)| data_type).collect();
    let schema = schema(&columns, types, &primary_key, wanted.time_column.as_deref())?;
    let is_append_only = wanted.primary_key.is_empty();
    let table = NewTable {
        name: wanted.name.clone(),
        columns,
        primary_key,
        time_column: wanted.time_column.clone(),
        write_mode: if is_append_only { WriteMode::AppendOnly } else { WriteMode::Upsert },
        hash_columns: Vec::new(),
        vnode_count: 0,
        regions: 0,
        ttl_ms: None,
        compaction_window: None,
        holds_events: false,
        refresh: None,
    };
    Ok(Plan { table, schema })
}

/// Returns the column by which an append-only table is sorted: the time column, otherwise the first one
/// that has a value in every row and a type with an order.
fn sort_column(time: Option<&str>, typed: &[(&Column, ColumnType)]) -> Result<String, PlanError> {
    let usable = |(column, data_type): &&(&Column, ColumnType)| {
        data_type.allowed_in_key() && column.missing(data_type).is_none()
    };
    let by_time =
        typed.iter().filter(usable).find(|(column, _)| Some(column.name.as_str()) == time);
    let found = by_time.or_else(|| typed.iter().find(usable));
    found.map(|(column, _)| column.name.clone()).ok_or(PlanError::NoSortColumn)
}

fn check_key_values(key: &[String], typed: &[(&Column, ColumnType)]) -> Result<(), PlanError> {
    for (column, data_type) in typed.iter().filter(|(column, _)| key.contains(&column.name)) {
        if let Some(place) = column.missing(data_type) {
            let (column, place) = (column.name.clone(), place.clone());
            return Err(PlanError::NullKey { column, place });
        }
    }
    Ok(())
}

/// Returns the schema that the cluster assigns to the new table.
fn schema(
    columns: &[NewColumn],
    types: Vec<ColumnType>,
    primary_key: &[String],
    time_column: Option<&str>,
) -> Result<TableSchema, SchemaError> {
    let ids = (1..).map(ColumnId);
    let columns: Vec<TableColumn> = ids
        .zip(columns.iter().zip(types))
        .map(|(id, (column, data_type))| TableColumn {
            id,
            name: column.name.clone(),
            data_type,
            nullable: column.nullable,
            default: column.default.clone(),
        })
        .collect();
    let id = |name: &str| {
        let found = columns.iter().find(|column| column.name == name);
        found.map(|column| column.id).ok_or_else(|| SchemaError::ColumnMissing(name.to_owned()))
    };
    let key = primary_key.iter().map(|name| id(name)).collect::<Result<_, _>>()?;
    let time = time_column.map(id).transpose()?;
    let next = columns.last().map_or(1, |column| column.id.0.saturating_add(1));
    TableSchema::new(SchemaVersion(1), columns, key, time, ColumnId(next))
}

impl Plan {
    /// Returns the columns as a table for people.
    pub(crate) fn text(&self) -> String {
        let headings = ["COLUMN", "TYPE", "NULL", "KEY"];
        let rows = self.table.columns.iter().map(|column| {
            let null = if column.nullable { "null" } else { "not null" };
            let key = self.table.primary_key.iter().position(|name| *name == column.name);
            let key = key.map(|at| (at + 1).to_string()).unwrap_or_default();
            vec![column.name.clone(), column.data_type.clone(), null.to_owned(), key]
        });
        output::table(&headings, rows)
    }

    /// Returns the command line that creates the same table.
    pub(crate) fn command(&self) -> String {
        let table = &self.table;
        let columns: Vec<String> =
            table.columns.iter().map(|column| definition(column, &table.primary_key)).collect();
        let mut words = vec![
            "tidewater table create".to_owned(),
            shell_word(&table.name),
            "--columns".to_owned(),
            shell_word(&columns.join(", ")),
            "--primary-key".to_owned(),
            shell_word(&table.primary_key.join(",")),
        ];
        if let Some(time) = &table.time_column {
            words.extend(["--time-column".to_owned(), shell_word(time)]);
        }
        if table.write_mode == WriteMode::AppendOnly {
            words.push("--append-only".to_owned());
        }
        words.join(" ")
    }
}

fn definition(column: &NewColumn, key: &[String]) -> String {
    let mut text = format!("{} {}", quoted(&column.name), column.data_type);
    if !column.nullable && !key.contains(&column.name) {
        text.push_str(" not null");
    }
    if let Some(default) = &column.default {
        text.push_str(&format!(" default '{}'", default.replace('\'', "''")));
    }
    text
}

/// Returns a column name as `--columns` reads it.
fn quoted(name: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ':' | '/');
    if !name.is_empty() && name.chars().all(is_plain) {
        return name.to_owned();
    }
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Returns a word as a POSIX shell reads it.
fn shell_word(word: &str) -> String {
    let is_plain =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ',' | '/' | ':');
    if !word.is_empty() && !word.starts_with('-') && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
