//! Inference of the columns of a table from the rows of files. Every row is read, because a sample
//! may miss the one value that decides the type.
//!
//! # Terms
//!
//! - Observation: one value of a column. [`texts`] (cells of CSV, strings of NDJSON) and [`values`]
//!   (JSON values) collect the observations of a column; [`mod@join`] combines types of several files.
//! - Missing value: no observation. It has no influence on the type.
//! - Given column: its type is on the command line; only its missing values are recorded.

pub(crate) mod csv;
pub(crate) mod error;
pub(crate) mod join;
pub(crate) mod ndjson;
pub(crate) mod parquet;
pub(crate) mod scan;
pub(crate) mod texts;
pub(crate) mod value_kind;
pub(crate) mod values;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use tidewater_common::schema::{ColumnType, MAX_COLUMNS};

use self::error::InferError;
use self::join::join;
use self::texts::Texts;
use self::values::{Value, Values};
use tidewater_readers::delimiter::Delimiter;
use tidewater_readers::error::{LoadError, RowPosition};

/// Options of the inference.
#[derive(Debug, Clone)]
pub(crate) struct InferOptions {
    /// Texts that represent a missing value, in addition to the empty text.
    pub(crate) nulls: Arc<[String]>,
    /// Delimiter of CSV cells.
    pub(crate) delimiter: Delimiter,
    /// Names of the given columns.
    pub(crate) given: Arc<HashSet<String>>,
    /// Limit of bad rows.
    pub(crate) skip_bad: u64,
}

impl InferOptions {
    /// Returns true if a text represents a missing value.
    fn is_blank(&self, text: &str) -> bool {
        text.is_empty() || self.nulls.iter().any(|null| null == text)
    }
}

/// A row of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) file: Arc<str>,
    pub(crate) position: RowPosition,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file, self.position)
    }
}

/// Observations of one column.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Column {
    pub(crate) name: String,
    given: bool,
    texts: Texts,
    values: Values,
    /// Type in Parquet files.
    exact: Option<ColumnType>,
    missing: Option<Place>,
    /// First JSON string that is a missing value unless the column is a text column.
    blank: Option<Place>,
}

impl Column {
    fn new(name: &str, options: &InferOptions) -> Self {
        Self { name: name.to_owned(), given: options.given.contains(name), ..Self::default() }
    }

    fn observe_missing(&mut self, place: impl FnOnce() -> Place) {
        self.missing.get_or_insert_with(place);
    }

    fn observe_text(&mut self, text: &str) {
        if !self.given {
            self.texts.observe(text);
        }
    }

    fn observe_value(
        &mut self,
        value: &Value<'_>,
        place: impl Fn() -> Place,
    ) -> Result<(), InferError> {
        if self.given { Ok(()) } else { self.values.observe(&self.name, value, place) }
    }

    /// Joins the observations of the same column in another file.
    fn join(&mut self, other: Self) -> Result<(), InferError> {
        self.texts.join(other.texts);
        self.values.join(&self.name, other.values)?;
        self.exact = match (self.exact.take(), other.exact) {
            (Some(one), Some(two)) => Some(self.join_types(one, two)?),
            (one, two) => one.or(two),
        };
        self.missing = self.missing.take().or(other.missing);
        self.blank = self.blank.take().or(other.blank);
        Ok(())
    }

    fn join_types(&self, one: ColumnType, two: ColumnType) -> Result<ColumnType, InferError> {
        let joined = join(&one, &two);
        // Texts and JSON numbers are parsed with rounding, without an error.
        let rounds = matches!(joined, Some(ColumnType::Float32 | ColumnType::Float64))
            && (self.texts.has_wide_integer() || self.values.has_wide_integer());
        joined.filter(|_| !rounds).ok_or_else(|| InferError::Differs {
            column: self.name.clone(),
            one: one.to_string(),
            two: two.to_string(),
        })
    }

    /// Returns the type that all observations have in common.
    ///
    /// # Errors
    ///
    /// When there is no observation, or no common type.
    pub(crate) fn data_type(&self) -> Result<ColumnType, InferError> {
        let types =
            [self.texts.data_type(), self.values.data_type(&self.name)?, self.exact.clone()];
        let mut joined = None;
        for data_type in types.into_iter().flatten() {
            joined = Some(match joined {
                None => data_type,
                Some(before) => self.join_types(before, data_type)?,
            });
        }
        match joined {
            Some(data_type) => Ok(data_type),
            None if self.blank.is_some() => Ok(ColumnType::Utf8),
            None => Err(InferError::NoValue { column: self.name.clone() }),
        }
    }

    /// Returns the first row in which the column has no value, if its type is `data_type`.
    pub(crate) fn missing(&self, data_type: &ColumnType) -> Option<&Place> {
        let blank = self.blank.as_ref().filter(|_| *data_type != ColumnType::Utf8);
        self.missing.as_ref().or(blank)
    }
}

/// Columns in the order of their first appearance, with unique names.
#[derive(Debug, Default)]
pub(crate) struct Columns {
    list: Vec<Column>,
    positions: HashMap<String, usize>,
}

impl Columns {
    /// Creates the columns of a file whose names are known before its rows.
    fn with_names<'n>(
        file: &str,
        names: impl Iterator<Item = &'n str>,
        options: &InferOptions,
    ) -> Result<Self, InferError> {
        let mut columns = Self::default();
        for name in names {
            if columns.positions.contains_key(name) {
                let (file, name) = (file.to_owned(), name.to_owned());
                return Err(LoadError::DuplicateColumn { file, name }.into());
            }
            columns.position(file, name, options)?;
        }
        Ok(columns)
    }

    /// Returns the position of a column; adds it if it is new.
    fn position(
        &mut self,
        file: &str,
        name: &str,
        options: &InferOptions,
    ) -> Result<usize, InferError> {
        if let Some(position) = self.positions.get(name) {
            return Ok(*position);
        }
        let position = self.list.len();
        if position == MAX_COLUMNS {
            return Err(InferError::TooManyColumns { file: file.to_owned(), limit: MAX_COLUMNS });
        }
        self.list.push(Column::new(name, options));
        self.positions.insert(name.to_owned(), position);
        Ok(position)
    }

    /// Joins the columns of `file`, which must have the same names as those of `first`.
    fn join(&mut self, first: &str, file: &str, other: Self) -> Result<(), InferError> {
        let lacks = |columns: &Self, names: &Self| -> Vec<String> {
            let names = names.list.iter().map(|column| &column.name);
            names.filter(|name| !columns.positions.contains_key(*name)).cloned().collect()
        };
        let (lacking, extra) = (lacks(&other, self), lacks(self, &other));
        if !lacking.is_empty() || !extra.is_empty() {
            let (first, file) = (first.to_owned(), file.to_owned());
            return Err(InferError::Names { first, file, lacking, extra });
        }
        for column in other.list {
            if let Some(mine) =
                self.positions.get(&column.name).and_then(|at| self.list.get_mut(*at))
            {
                mine.join(column)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "infer/tests.rs"]
mod tests;
