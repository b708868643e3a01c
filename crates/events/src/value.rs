//! Columns and values that a type of events has in addition to those of all events.

use tidewater_proto::v1;

use crate::event::EventError;
use crate::name::{COMMON_COLUMNS, check_name};

/// Most extra columns of a type.
pub const MAX_EXTRA_COLUMNS: usize = 64;

/// Type of an extra column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ValueType {
    /// True or false.
    Bool,
    /// 64-bit signed integer.
    Int64,
    /// 64-bit unsigned integer.
    UInt64,
    /// 64-bit floating-point number.
    Float64,
    /// UTF-8 text.
    Text,
    /// Bytes.
    Binary,
    /// Nanoseconds since the Unix epoch, UTC.
    Timestamp,
}

impl ValueType {
    /// Name of the type, as tables name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::Int64 => "int64",
            Self::UInt64 => "uint64",
            Self::Float64 => "float64",
            Self::Text => "utf8",
            Self::Binary => "binary",
            Self::Timestamp => "timestamp(ns, UTC)",
        }
    }

    pub(crate) fn to_wire(self) -> v1::EventValueType {
        match self {
            Self::Bool => v1::EventValueType::Bool,
            Self::Int64 => v1::EventValueType::Int64,
            Self::UInt64 => v1::EventValueType::Uint64,
            Self::Float64 => v1::EventValueType::Float64,
            Self::Text => v1::EventValueType::Text,
            Self::Binary => v1::EventValueType::Binary,
            Self::Timestamp => v1::EventValueType::Timestamp,
        }
    }

    pub(crate) fn from_wire(wire: v1::EventValueType) -> Option<Self> {
        match wire {
            v1::EventValueType::Unspecified => None,
            v1::EventValueType::Bool => Some(Self::Bool),
            v1::EventValueType::Int64 => Some(Self::Int64),
            v1::EventValueType::Uint64 => Some(Self::UInt64),
            v1::EventValueType::Float64 => Some(Self::Float64),
            v1::EventValueType::Text => Some(Self::Text),
            v1::EventValueType::Binary => Some(Self::Binary),
            v1::EventValueType::Timestamp => Some(Self::Timestamp),
        }
    }
}

/// Extra column of a type of events. All are nullable.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ExtraColumn {
    /// Name of the column.
    pub name: String,
    /// Type of its values.
    pub value_type: ValueType,
}

impl ExtraColumn {
    /// Creates a column.
    pub fn new(name: &str, value_type: ValueType) -> Self {
        Self { name: name.to_owned(), value_type }
    }
}

/// Value of an extra column.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// No value.
    Null,
    /// See [`ValueType::Bool`].
    Bool(bool),
    /// See [`ValueType::Int64`].
    Int64(i64),
    /// See [`ValueType::UInt64`].
    UInt64(u64),
    /// See [`ValueType::Float64`].
    Float64(f64),
    /// See [`ValueType::Text`].
    Text(String),
    /// See [`ValueType::Binary`].
    Binary(Vec<u8>),
    /// See [`ValueType::Timestamp`].
    Timestamp(i64),
}

impl Value {
    /// Type of the value; `None` for null.
    pub fn value_type(&self) -> Option<ValueType> {
        match self {
            Self::Null => None,
            Self::Bool(_) => Some(ValueType::Bool),
            Self::Int64(_) => Some(ValueType::Int64),
            Self::UInt64(_) => Some(ValueType::UInt64),
            Self::Float64(_) => Some(ValueType::Float64),
            Self::Text(_) => Some(ValueType::Text),
            Self::Binary(_) => Some(ValueType::Binary),
            Self::Timestamp(_) => Some(ValueType::Timestamp),
        }
    }

    /// Bytes that the value takes, nearly.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Binary(bytes) => bytes.len(),
            _ => 8,
        }
    }

    pub(crate) fn to_wire(&self) -> Option<v1::event_field::Value> {
        use v1::event_field::Value as Wire;
        Some(match self {
            Self::Null => return None,
            Self::Bool(value) => Wire::Bool(*value),
            Self::Int64(value) => Wire::Int64(*value),
            Self::UInt64(value) => Wire::Uint64(*value),
            Self::Float64(value) => Wire::Float64(*value),
            Self::Text(value) => Wire::Text(value.clone()),
            Self::Binary(value) => Wire::Binary(value.clone().into()),
            Self::Timestamp(value) => Wire::TimestampNs(*value),
        })
    }

    pub(crate) fn from_wire(wire: Option<v1::event_field::Value>) -> Self {
        use v1::event_field::Value as Wire;
        match wire {
            None => Self::Null,
            Some(Wire::Bool(value)) => Self::Bool(value),
            Some(Wire::Int64(value)) => Self::Int64(value),
            Some(Wire::Uint64(value)) => Self::UInt64(value),
            Some(Wire::Float64(value)) => Self::Float64(value),
            Some(Wire::Text(value)) => Self::Text(value),
            Some(Wire::Binary(value)) => Self::Binary(value.into()),
            Some(Wire::TimestampNs(value)) => Self::Timestamp(value),
        }
    }
}

/// Checks an extra row against its schema.
pub(crate) fn check_extra(schema: &[ExtraColumn], row: &[Value]) -> Result<(), EventError> {
    let unfit = |text: String| Err(EventError::ExtraRow(text));
    if schema.len() > MAX_EXTRA_COLUMNS {
        return unfit(format!("{} columns, at most {MAX_EXTRA_COLUMNS}", schema.len()));
    }
    if schema.len() != row.len() {
        return unfit(format!("{} columns, {} values", schema.len(), row.len()));
    }
    for (at, (column, value)) in schema.iter().zip(row).enumerate() {
        check_name("column", &column.name)?;
        let name = &column.name;
        if COMMON_COLUMNS.contains(&name.as_str()) {
            return unfit(format!("column {name} is one of all events"));
        }
        if schema.iter().take(at).any(|earlier| earlier.name == *name) {
            return unfit(format!("column {name} is there twice"));
        }
        match value.value_type() {
            Some(found) if found != column.value_type => {
                let expected = column.value_type.as_str();
                return unfit(format!("column {name} is {expected}, its value {}", found.as_str()));
            }
            Some(_) | None => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str) -> ExtraColumn {
        ExtraColumn::new(name, ValueType::Int64)
    }

    #[test]
    fn extra_row_fits_its_schema_only() {
        let schema = [column("a"), ExtraColumn::new("b", ValueType::Text)];
        let text = Value::Text("x".to_owned());
        assert_eq!(check_extra(&schema, &[Value::Int64(1), text.clone()]), Ok(()));
        assert_eq!(check_extra(&schema, &[Value::Null, Value::Null]), Ok(()));
        assert_eq!(check_extra(&[], &[]), Ok(()));
        for (schema, row) in [
            (vec![column("a")], vec![]),
            (vec![column("a")], vec![text]),
            (vec![column("id")], vec![Value::Null]),
            (vec![column("a b")], vec![Value::Null]),
            (vec![column("a"), column("a")], vec![Value::Null, Value::Null]),
            (
                (0..=MAX_EXTRA_COLUMNS).map(|n| column(&format!("c{n}"))).collect(),
                vec![Value::Null; MAX_EXTRA_COLUMNS + 1],
            ),
        ] {
            assert!(check_extra(&schema, &row).is_err(), "{schema:?}");
        }
    }

    #[test]
    fn values_equal_their_stored_form() {
        for value in [
            Value::Null,
            Value::Bool(true),
            Value::Int64(-1),
            Value::UInt64(u64::MAX),
            Value::Float64(0.5),
            Value::Text("ä".to_owned()),
            Value::Binary(vec![0, 255]),
            Value::Timestamp(i64::MIN),
        ] {
            assert_eq!(Value::from_wire(value.to_wire()), value);
            if let Some(value_type) = value.value_type() {
                assert_eq!(ValueType::from_wire(value_type.to_wire()), Some(value_type));
            }
        }
    }
}
