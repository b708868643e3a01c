//! Reader of NDJSON files: one JSON object per line, with column names as keys.
//!
//! A missing key and `null` are a missing value. Texts are parsed like CSV cells. Numbers and booleans
//! are accepted only by columns of such types.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use arrow::array::RecordBatch;
use serde::Deserializer;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use tidewater_common::schema::ColumnType;

use super::bad_rows::BadRows;
use super::error::{LoadError, RowError, RowFault, RowPosition};
use super::header::match_columns;
use super::input::Input;
use super::lines::Lines;
use super::row_numbers::RowNumbers;
use super::{ReadOptions, RowSource};
use crate::value::cell_error::CellError;
use crate::value::rows::RowsBuilder;

/// An NDJSON input whose first object matches the table.
pub struct NdjsonSource {
    input: Input,
    lines: Lines,
    /// Position in the table by column name.
    columns: HashMap<String, usize>,
    types: Vec<ColumnType>,
    options: ReadOptions,
    rows: RowsBuilder,
    /// True until the first line, which `open` has read, becomes a row.
    first_pending: bool,
    /// Lines of the good rows since the last batch.
    good_lines: RowNumbers,
}

impl NdjsonSource {
    /// Opens `input` and matches the keys of its first object with the table.
    pub fn open(
        input: Input,
        options: ReadOptions,
        read: &Arc<AtomicU64>,
    ) -> Result<Self, LoadError> {
        let table = &options.table;
        let columns = table.columns();
        let mut source = Self {
            lines: Lines::open(&input, read)?,
            input,
            columns: columns.iter().enumerate().map(|(i, c)| (c.name.clone(), i)).collect(),
            types: columns.iter().map(|column| column.data_type.clone()).collect(),
            rows: RowsBuilder::new(table, options.batch_rows),
            options,
            first_pending: true,
            good_lines: RowNumbers::default(),
        };
        if !source.lines.advance(&source.input)? {
            return Err(LoadError::Empty { file: source.input.name.clone() });
        }
        if let Ok(keys) = serde_json::from_slice::<Keys>(source.lines.line()) {
            let names: Vec<&str> = keys.0.iter().map(String::as_str).collect();
            match_columns(&source.input.name, &names, &source.options.table)?;
        }
        Ok(source)
    }

    fn take_line(&mut self) -> Result<(), RowFault> {
        let mut object = Object {
            columns: &self.columns,
            cells: vec![None; self.types.len()],
            unknown: Vec::new(),
            duplicate: None,
        };
        let mut json = serde_json::Deserializer::from_slice(self.lines.line());
        (&mut object)
            .deserialize(&mut json)
            .and_then(|()| json.end())
            .map_err(|error| RowFault::Json(json_message(&error, self.lines.line())))?;
        let Object { cells, unknown, duplicate, .. } = object;
        if let Some(name) = duplicate {
            return Err(RowFault::DuplicateColumn(name));
        }
        if !unknown.is_empty() {
            return Err(RowFault::UnknownColumns(unknown));
        }
        for (cell, data_type) in cells.into_iter().zip(&self.types) {
            let taken = match cell {
                None | Some(Cell::Null) => self.rows.null(),
                Some(Cell::Text(text)) if *data_type == ColumnType::Utf8 => self.rows.text(&text),
                Some(Cell::Text(text)) if text.is_empty() => self.rows.null(),
                Some(Cell::Text(text)) if self.options.nulls.iter().any(|null| *null == text) => {
                    self.rows.null()
                }
                Some(Cell::Text(text)) => self.rows.text(&text),
                Some(Cell::Number(text)) if accepts_numbers(data_type) => self.rows.text(&text),
                Some(Cell::Bool(value)) if *data_type == ColumnType::Bool => {
                    self.rows.text(if value { "true" } else { "false" })
                }
                Some(cell) => {
                    let data_type = data_type.clone();
                    Err(self.rows.cell_problem(CellError::Kind { found: cell.kind(), data_type }))
                }
            };
            taken.map_err(RowFault::Cell)?;
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<Option<RecordBatch>, LoadError> {
        self.rows
            .finish()
            .map_err(|source| LoadError::Batch { file: self.input.name.clone(), source })
    }
}

impl RowSource for NdjsonSource {
    fn next_batch(&mut self, bad: &mut BadRows) -> Result<Option<RecordBatch>, LoadError> {
        self.good_lines.clear();
        loop {
            while self.rows.rows() < self.options.batch_rows {
                if !std::mem::take(&mut self.first_pending) && !self.lines.advance(&self.input)? {
                    return self.finish();
                }
                match self.take_line() {
                    Ok(()) => {
                        self.rows.end_row();
                        self.good_lines.push(self.lines.number());
                    }
                    Err(fault) => {
                        self.rows.abandon_row();
                        bad.report(RowError {
                            file: self.input.name.clone(),
                            position: RowPosition::Line(self.lines.number()),
                            fault,
                        })?;
                    }
                }
            }
            if let Some(batch) = self.finish()? {
                return Ok(Some(batch));
            }
        }
    }

    fn position(&self, row: usize) -> RowPosition {
        RowPosition::Line(self.good_lines.get(row).unwrap_or(0))
    }
}

fn accepts_numbers(data_type: &ColumnType) -> bool {
    !matches!(
        data_type,
        ColumnType::Utf8
            | ColumnType::Binary
            | ColumnType::Bool
            | ColumnType::Date32
            | ColumnType::Timestamp(..)
    )
}

/// Returns the message of the parser. Invalid UTF-8 has a message of its own, because the parser only
/// reports an unexpected byte.
pub fn json_message(error: &serde_json::Error, line: &[u8]) -> String {
    if std::str::from_utf8(line).is_err() {
        return "the line is not valid UTF-8".to_owned();
    }
    let text = error.to_string();
    let end = text.find(" at line").unwrap_or(text.len());
    format!("{} (at byte {})", &text[..end], error.column())
}

#[derive(Debug, Clone, PartialEq)]
enum Cell<'a> {
    Null,
    Bool(bool),
    Number(String),
    Text(Cow<'a, str>),
    List,
    Object,
}

impl Cell<'_> {
    fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Number(_) => "a number",
            Self::Text(_) => "a text",
            Self::List => "a list",
            Self::Object => "an object",
        }
    }
}

/// The keys of an object, for the check of the first line.
struct Keys(Vec<String>);

impl<'de> serde::Deserialize<'de> for Keys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeysVisitor;
        impl<'de> Visitor<'de> for KeysVisitor {
            type Value = Keys;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Keys, A::Error> {
                let mut keys = Vec::new();
                while let Some((key, _)) = map.next_entry::<String, IgnoredAny>()? {
                    keys.push(key);
                }
                Ok(Keys(keys))
            }
        }
        deserializer.deserialize_map(KeysVisitor)
    }
}

/// An object during deserialization, with its values at the positions of their columns.
struct Object<'c, 'a> {
    columns: &'c HashMap<String, usize>,
    cells: Vec<Option<Cell<'a>>>,
    unknown: Vec<String>,
    duplicate: Option<String>,
}

impl<'de> DeserializeSeed<'de> for &mut Object<'_, 'de> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for &mut Object<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key_seed(KeySeed(self.columns))? {
            match key {
                Key::Unknown(name) => {
                    self.unknown.push(name);
                    map.next_value::<IgnoredAny>()?;
                }
                Key::Column(position) => {
                    let cell = map.next_value_seed(CellSeed)?;
                    if let Some(slot) = self.cells.get_mut(position)
                        && slot.replace(cell).is_some()
                    {
                        self.duplicate = self
                            .columns
                            .iter()
                            .find(|(_, found)| **found == position)
                            .map(|(name, _)| name.clone());
                    }
                }
            }
        }
        Ok(())
    }
}

/// A key of an object. Only keys that the table lacks are copied.
enum Key {
    Column(usize),
    Unknown(String),
}

struct KeySeed<'c>(&'c HashMap<String, usize>);

impl<'de> DeserializeSeed<'de> for KeySeed<'_> {
    type Value = Key;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Key, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeySeed<'_> {
    type Value = Key;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }
    fn visit_str<E>(self, key: &str) -> Result<Key, E> {
        Ok(match self.0.get(key) {
            Some(position) => Key::Column(*position),
            None => Key::Unknown(key.to_owned()),
        })
    }
}

struct CellSeed;

impl<'de> DeserializeSeed<'de> for CellSeed {
    type Value = Cell<'de>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Cell<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for CellSeed {
    type Value = Cell<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }
    fn visit_unit<E>(self) -> Result<Cell<'de>, E> {
        Ok(Cell::Null)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Cell<'de>, E> {
        Ok(Cell::Bool(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Cell<'de>, E> {
        Ok(Cell::Number(value.to_string()))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Cell<'de>, E> {
        Ok(Cell::Number(value.to_string()))
    }
    fn visit_f64<E>(self, value: f64) -> Result<Cell<'de>, E> {
        Ok(Cell::Number(value.to_string()))
    }
    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Cell<'de>, E> {
        Ok(Cell::Text(Cow::Borrowed(value)))
    }
    fn visit_str<E>(self, value: &str) -> Result<Cell<'de>, E> {
        Ok(Cell::Text(Cow::Owned(value.to_owned())))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Cell<'de>, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Cell::List)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Cell<'de>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Cell::Object)
    }
}
