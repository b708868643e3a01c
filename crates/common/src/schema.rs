//! Tables: columns, keys, options. Definitions are validated here, once; other code relies on it.
//!
//! A column has an id that is never reused within its table. SSTs are matched to a schema by that id
//! (their Parquet field id), never by name, so that a column dropped and added again does not bring
//! old values back.

mod alter;
pub mod column_type;
mod constant;
pub mod options;
mod wire;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{Field, Schema, SchemaRef};

pub use self::alter::SchemaChange;
pub use self::column_type::{ColumnType, TypeError};
pub use self::constant::ConstantError;
pub use self::options::{
    DEFAULT_VNODES, HashDistribution, MAX_VNODES, MIN_COMPACTION_WINDOW, MIN_NEW_COMPACTION_WINDOW,
    TableOptions, WriteMode,
};
use crate::ids::{ColumnId, SchemaVersion, TableId};
use crate::quote::quoted;

/// Metadata key of a field's id in Parquet files.
pub const FIELD_ID_KEY: &str = "PARQUET:field_id";

/// Prefix of names of tables and columns that are reserved for Tidewater.
pub const INTERNAL_PREFIX: &str = "_tw_";

/// Maximum number of columns of a table.
pub const MAX_COLUMNS: usize = 1_024;

/// Maximum length of the name of a table or column, in bytes.
pub const MAX_NAME_BYTES: usize = 128;

/// One column of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Id of the column. Never reused within the table; starts at 1.
    pub id: ColumnId,
    /// Name of the column, unique within the table.
    pub name: String,
    /// Type of its values.
    pub data_type: ColumnType,
    /// True if it may be null; key columns may not.
    pub nullable: bool,
    /// Value of rows that were written without the column, in the canonical text of its type;
    /// `None`: null. Never changes while the column exists.
    pub default: Option<String>,
}

/// The columns and keys of a table at one version.
#[derive(Debug, Clone)]
pub struct TableSchema {
    version: SchemaVersion,
    columns: Vec<Column>,
    primary_key: Vec<ColumnId>,
    time_column: Option<ColumnId>,
    next_column_id: ColumnId,
    key_indices: Vec<usize>,
    arrow: SchemaRef,
    key_arrow: SchemaRef,
}

impl PartialEq for TableSchema {
    fn eq(&self, other: &Self) -> bool {
        self.version == other.version
            && self.columns == other.columns
            && self.primary_key == other.primary_key
            && self.time_column == other.time_column
            && self.next_column_id == other.next_column_id
    }
}

impl Eq for TableSchema {}

/// A problem with a table definition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// No column at all.
    #[error("a table needs at least one column")]
    NoColumns,
    /// More than [`MAX_COLUMNS`].
    #[error("a table may have at most {MAX_COLUMNS} columns, not {0}")]
    TooManyColumns(usize),
    /// Empty, too long, reserved or with control characters.
    #[error("{what} name {name_text} {problem}", name_text = quoted(.name))]
    BadName {
        /// "table" or "column".
        what: &'static str,
        /// The offending name.
        name: String,
        /// Description of the problem.
        problem: String,
    },
    /// A refreshable table that is append-only, whose rows expire, or that is made for events.
    #[error(
        "a refreshable table mirrors its source: it cannot be append-only or hold events, and its rows do not expire"
    )]
    BadRefreshable,
    /// A compaction window that is too short, or not whole seconds.
    #[error("compaction window {0:?} is invalid: use whole seconds, at least 1h")]
    BadCompactionWindow(Duration),
    /// A compaction window of a table in which a key can have versions of several times.
    #[error(
        "a compaction window needs the time column in the primary key, unless the table is append-only: all versions of \
         a key are in one window"
    )]
    WindowTimeNotInKey,
    /// Two columns of one name.
    #[error("column {name} is named twice", name = quoted(.0))]
    DuplicateColumn(String),
    /// Two columns of one id, or an id that is 0 or not below the next one.
    #[error("column {name_text} has the invalid or repeated id {id}", name_text = quoted(.name))]
    BadColumnId {
        /// The column's name.
        name: String,
        /// Its id.
        id: ColumnId,
    },
    /// A table without a primary key.
    #[error("a table needs a primary key: name one or more of its columns")]
    NoPrimaryKey,
    /// A primary key column that does not exist.
    #[error("primary key column {0} is not among the table's columns")]
    KeyColumnMissing(String),
    /// A column named twice in the primary key.
    #[error("primary key column {name} is named twice", name = quoted(.0))]
    KeyColumnTwice(String),
    /// A primary key column that may be null.
    #[error("primary key column {name} must be not null", name = quoted(.0))]
    KeyColumnNullable(String),
    /// A primary key column of a type that is not allowed in keys.
    #[error("column {name_text} of type {data_type} cannot be part of a primary key", name_text = quoted(.name))]
    KeyColumnType {
        /// The column's name.
        name: String,
        /// Its type.
        data_type: ColumnType,
    },
    /// The time column is missing or not a timestamp.
    #[error("time column {0} must be one of the table's timestamp or date32 columns")]
    BadTimeColumn(String),
    /// A hash column that is not in the primary key, or none, or a bad vnode count.
    #[error("hash distribution: {0}")]
    BadDistribution(String),
    /// A column to add that already exists.
    #[error("column {name} already exists", name = quoted(.0))]
    ColumnExists(String),
    /// A column to drop that does not exist.
    #[error("column {name} does not exist", name = quoted(.0))]
    ColumnMissing(String),
    /// A key column cannot be dropped.
    #[error("column {name} is part of the primary key and cannot be dropped", name = quoted(.0))]
    KeyColumnDropped(String),
    /// The time column cannot be dropped.
    #[error("column {name} is the time column and cannot be dropped", name = quoted(.0))]
    TimeColumnDropped(String),
    /// A new column without a value for existing rows.
    #[error("column {name} must be nullable or have a default: existing rows need a value", name = quoted(.0))]
    DefaultMissing(String),
    /// A default on a key column, or one that is not a value of the column's type.
    #[error("default of column {name_text}: {problem}", name_text = quoted(.name))]
    BadDefault {
        /// The column's name.
        name: String,
        /// Description of the problem.
        problem: String,
    },
    /// More changes than ids and versions can count.
    #[error("the table has no column ids or schema versions left: it was altered too often")]
    IdsUsedUp,
    /// A version of 0.
    #[error("invalid schema version 0: versions start at 1")]
    BadVersion,
    /// A type that does not parse.
    #[error(transparent)]
    Type(#[from] TypeError),
    /// A wire or stored record with a field missing.
    #[error("the table definition has no {0}")]
    FieldMissing(&'static str),
}

impl TableSchema {
    /// Validates a definition.
    ///
    /// # Errors
    /// [`SchemaError`] with the first problem found.
    pub fn new(
        version: SchemaVersion,
        columns: Vec<Column>,
        primary_key: Vec<ColumnId>,
        time_column: Option<ColumnId>,
        next_column_id: ColumnId,
    ) -> Result<Self, SchemaError> {
        if version.get() == 0 {
            return Err(SchemaError::BadVersion);
        }
        check_columns(&columns, next_column_id)?;
        let key_indices = check_key(&columns, &primary_key)?;
        check_time_column(&columns, time_column)?;
        let fields: Vec<Field> = columns.iter().map(arrow_field).collect();
        let key_fields: Vec<Field> = key_indices.iter().map(|i| fields[*i].clone()).collect();
        Ok(Self {
            version,
            columns,
            primary_key,
            time_column,
            next_column_id,
            key_indices,
            arrow: Arc::new(Schema::new(fields)),
            key_arrow: Arc::new(Schema::new(key_fields)),
        })
    }

    /// Version of this schema; starts at 1.
    pub fn version(&self) -> SchemaVersion {
        self.version
    }

    /// All columns, in the order of the values in a row.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// Ids of the key columns, in key order; never empty.
    pub fn primary_key(&self) -> &[ColumnId] {
        &self.primary_key
    }

    /// The column that determines the age of rows, if there is one.
    pub fn time_column(&self) -> Option<ColumnId> {
        self.time_column
    }

    /// Id of the next new column: greater than every id ever used in this table.
    pub fn next_column_id(&self) -> ColumnId {
        self.next_column_id
    }

    /// Positions of the key columns in [`columns`](Self::columns), in key order.
    pub fn key_indices(&self) -> &[usize] {
        &self.key_indices
    }

    /// The column with this id.
    pub fn column(&self, id: ColumnId) -> Option<&Column> {
        self.columns.iter().find(|column| column.id == id)
    }

    /// Position of the column with this id.
    pub fn index_of(&self, id: ColumnId) -> Option<usize> {
        self.columns.iter().position(|column| column.id == id)
    }

    /// The column with this name.
    pub fn column_named(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// All columns as an Arrow schema; field ids are in the field metadata.
    pub fn arrow(&self) -> SchemaRef {
        self.arrow.clone()
    }

    /// The key columns, in key order, as an Arrow schema.
    pub fn key_arrow(&self) -> SchemaRef {
        self.key_arrow.clone()
    }
}

fn arrow_field(column: &Column) -> Field {
    Field::new(&column.name, column.data_type.arrow(), column.nullable)
        .with_metadata(HashMap::from([(FIELD_ID_KEY.to_owned(), column.id.to_string())]))
}

/// Checks the name of a new table, which is also part of commands, paths and labels: letters, digits,
/// `_`, `-` and `.`, the first a letter, a digit or `_`. Tables of earlier releases keep their names.
///
/// # Errors
/// [`SchemaError::BadName`].
pub fn check_table_name(name: &str) -> Result<(), SchemaError> {
    check_name("table", name)?;
    let is_first = |first: char| first.is_alphanumeric() || first == '_';
    let is_rest = |rest: char| is_first(rest) || matches!(rest, '-' | '.');
    if name.starts_with(is_first) && name.chars().all(is_rest) {
        return Ok(());
    }
    let problem = "is not the name of a table: use letters, digits, '_', '-' and '.', and begin with \
                   a letter, a digit or '_'";
    Err(SchemaError::BadName { what: "table", name: name.to_owned(), problem: problem.to_owned() })
}

/// Returns the name of a table that was dropped while holds keep its rows, e.g. `_tw_dropped_17`.
pub fn dropped_table_name(id: TableId) -> String {
    format!("{INTERNAL_PREFIX}dropped_{id}")
}

/// Returns the id in a name of [`dropped_table_name`]; `None`: it is another name.
pub fn dropped_table_id(name: &str) -> Option<TableId> {
    let id = name.strip_prefix(INTERNAL_PREFIX)?.strip_prefix("dropped_")?;
    id.parse().ok().map(TableId)
}

/// Checks the name of a table or column: 1 to [`MAX_NAME_BYTES`] bytes, no control characters, not
/// reserved.
pub fn check_name(what: &'static str, name: &str) -> Result<(), SchemaError> {
    let problem = if name.is_empty() {
        "is empty".to_owned()
    } else if name.len() > MAX_NAME_BYTES {
        format!("is longer than {MAX_NAME_BYTES} bytes")
    } else if name.chars().any(char::is_control) {
        "has control characters".to_owned()
    } else if name.starts_with(INTERNAL_PREFIX) {
        format!("is reserved: names that begin with {INTERNAL_PREFIX} belong to Tidewater")
    } else {
        return Ok(());
    };
    Err(SchemaError::BadName { what, name: name.to_owned(), problem })
}

fn check_columns(columns: &[Column], next_column_id: ColumnId) -> Result<(), SchemaError> {
    if columns.is_empty() {
        return Err(SchemaError::NoColumns);
    }
    if columns.len() > MAX_COLUMNS {
        return Err(SchemaError::TooManyColumns(columns.len()));
    }
    let mut names = HashSet::new();
    let mut ids = HashSet::new();
    for column in columns {
        check_name("column", &column.name)?;
        if !names.insert(column.name.as_str()) {
            return Err(SchemaError::DuplicateColumn(column.name.clone()));
        }
        if column.id.get() == 0 || column.id >= next_column_id || !ids.insert(column.id) {
            return Err(SchemaError::BadColumnId { name: column.name.clone(), id: column.id });
        }
        if let Some(text) = &column.default {
            column.data_type.constant(text).map_err(|error| SchemaError::BadDefault {
                name: column.name.clone(),
                problem: error.to_string(),
            })?;
        }
    }
    Ok(())
}

fn check_key(columns: &[Column], primary_key: &[ColumnId]) -> Result<Vec<usize>, SchemaError> {
    if primary_key.is_empty() {
        return Err(SchemaError::NoPrimaryKey);
    }
    let mut indices = Vec::with_capacity(primary_key.len());
    for id in primary_key {
        let Some(index) = columns.iter().position(|column| column.id == *id) else {
            return Err(SchemaError::KeyColumnMissing(format!("with id {id}")));
        };
        let column = &columns[index];
        if indices.contains(&index) {
            return Err(SchemaError::KeyColumnTwice(column.name.clone()));
        }
        if column.nullable {
            return Err(SchemaError::KeyColumnNullable(column.name.clone()));
        }
        if column.default.is_some() {
            return Err(SchemaError::BadDefault {
                name: column.name.clone(),
                problem: "a key column cannot have a default".to_owned(),
            });
        }
        if !column.data_type.allowed_in_key() {
            return Err(SchemaError::KeyColumnType {
                name: column.name.clone(),
                data_type: column.data_type.clone(),
            });
        }
        indices.push(index);
    }
    Ok(indices)
}

fn check_time_column(columns: &[Column], id: Option<ColumnId>) -> Result<(), SchemaError> {
    let Some(id) = id else { return Ok(()) };
    match columns.iter().find(|column| column.id == id) {
        None => Err(SchemaError::BadTimeColumn(format!("with id {id}"))),
        Some(column) => match column.data_type {
            ColumnType::Timestamp(..) | ColumnType::Date32 => Ok(()),
            _ => Err(SchemaError::BadTimeColumn(format!("{:?}", column.name))),
        },
    }
}

#[cfg(test)]
#[path = "schema/tests.rs"]
mod tests;
