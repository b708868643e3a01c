//! Inference from NDJSON.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use serde::Deserializer;
use serde::de::{Deserialize, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::error::InferError;
use super::values::Value;
use super::{Columns, InferOptions, Place};
use tidewater_readers::bad_rows::BadRows;
use tidewater_readers::error::{LoadError, RowError, RowFault, RowPosition};
use tidewater_readers::input::Input;
use tidewater_readers::lines::Lines;
use tidewater_readers::ndjson::json_message;

/// Observes all rows of an NDJSON input. Calls `observed` after each row.
pub(super) fn observe(
    input: &Input,
    options: &InferOptions,
    bad: &mut BadRows,
    read: &Arc<AtomicU64>,
    observed: &mut dyn FnMut(),
) -> Result<Columns, InferError> {
    let mut lines = Lines::open(input, read)?;
    let mut rows = Rows {
        columns: Columns::default(),
        last_row: Vec::new(),
        row: 0,
        first: None,
        file: Arc::from(input.name.as_str()),
        options,
    };
    let mut is_empty = true;
    while lines.advance(input)? {
        is_empty = false;
        let position = RowPosition::Line(lines.number());
        let parsed = serde_json::from_slice::<Object<'_>>(lines.line())
            .map_err(|error| RowFault::Json(json_message(&error, lines.line())));
        match parsed.and_then(Object::distinct) {
            Ok(object) => rows.observe(&object, position)?,
            Err(fault) => bad.report(RowError { file: input.name.clone(), position, fault })?,
        }
        observed();
    }
    if is_empty {
        return Err(LoadError::Empty { file: input.name.clone() }.into());
    }
    Ok(rows.columns)
}

/// Columns during the inference.
struct Rows<'o> {
    columns: Columns,
    /// Number of the last row with a key for the column.
    last_row: Vec<u64>,
    row: u64,
    /// Position of the first row.
    first: Option<RowPosition>,
    file: Arc<str>,
    options: &'o InferOptions,
}

impl Rows<'_> {
    fn observe(&mut self, object: &Object<'_>, position: RowPosition) -> Result<(), InferError> {
        self.row += 1;
        let first = *self.first.get_or_insert(position);
        let place = |position| Place { file: Arc::clone(&self.file), position };
        for (name, value) in &object.0 {
            let at = self.columns.position(&self.file, name, self.options)?;
            let is_new = at == self.last_row.len();
            if is_new {
                self.last_row.push(0);
            }
            if let Some(last) = self.last_row.get_mut(at) {
                *last = self.row;
            }
            let Some(column) = self.columns.list.get_mut(at) else { continue };
            // Rows before the first appearance have no value.
            if is_new && self.row > 1 {
                column.observe_missing(|| place(first));
            }
            match value {
                Value::Null => column.observe_missing(|| place(position)),
                Value::Text(text) if self.options.is_blank(text) => {
                    column.blank.get_or_insert_with(|| place(position));
                }
                value => column.observe_value(value, || place(position))?,
            }
        }
        for (column, last) in self.columns.list.iter_mut().zip(&self.last_row) {
            if *last != self.row {
                column.observe_missing(|| place(position));
            }
        }
        Ok(())
    }
}

/// An object with its keys in the order of the text.
struct Object<'a>(Vec<(Cow<'a, str>, Value<'a>)>);

impl Object<'_> {
    /// Rejects a repeated key.
    fn distinct(self) -> Result<Self, RowFault> {
        let mut names: Vec<&str> = self.0.iter().map(|(name, _)| name.as_ref()).collect();
        names.sort_unstable();
        match names.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(RowFault::DuplicateColumn(pair[0].to_owned())),
            None => Ok(self),
        }
    }
}

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor)
    }
}

struct ObjectVisitor;

impl<'de> Visitor<'de> for ObjectVisitor {
    type Value = Object<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
        let mut entries = Vec::new();
        while let Some((Name(name), value)) = map.next_entry::<Name<'de>, Value<'de>>()? {
            entries.push((name, value));
        }
        Ok(Object(entries))
    }
}

/// A key, which is copied only if it has escapes.
struct Name<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match deserializer.deserialize_str(ValueVisitor)? {
            Value::Text(name) => Ok(Self(name)),
            _ => Err(serde::de::Error::custom("expected a key")),
        }
    }
}

impl<'de> Deserialize<'de> for Value<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }
    fn visit_unit<E>(self) -> Result<Value<'de>, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E>(self, _: bool) -> Result<Value<'de>, E> {
        Ok(Value::Bool)
    }
    fn visit_i64<E>(self, value: i64) -> Result<Value<'de>, E> {
        Ok(Value::Integer(value.into()))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Value<'de>, E> {
        Ok(Value::Integer(value.into()))
    }
    fn visit_f64<E>(self, _: f64) -> Result<Value<'de>, E> {
        Ok(Value::Float)
    }
    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Borrowed(value)))
    }
    fn visit_str<E>(self, value: &str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Owned(value.to_owned())))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value<'de>, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::List)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value<'de>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Value::Object)
    }
}
