//! Observations of JSON values.

use std::borrow::Cow;

use tidewater_common::schema::ColumnType;

use super::Place;
use super::error::InferError;
use super::texts::{MAX_EXACT, Texts};
use super::value_kind::ValueKind;

/// One JSON value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value<'a> {
    Null,
    Bool,
    Integer(i128),
    Float,
    Text(Cow<'a, str>),
    List,
    Object,
}

/// Observations of the JSON values of a column, which have one kind.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Values {
    /// ValueKind, and the first row that has a value.
    kind: Option<(ValueKind, Place)>,
    floats: bool,
    negative: bool,
    /// True if an integer exceeds 64 bits with sign.
    beyond_i64: bool,
    /// First integer that is not exact as a float.
    wide: Option<Place>,
    texts: Texts,
}

impl Values {
    /// Adds a value of `column`. A null has no influence.
    ///
    /// # Errors
    ///
    /// When the value is nested or of another kind than the values before.
    pub(crate) fn observe(
        &mut self,
        column: &str,
        value: &Value<'_>,
        place: impl Fn() -> Place,
    ) -> Result<(), InferError> {
        let nested =
            |found| InferError::Nested { column: column.to_owned(), place: place(), found };
        let kind = match value {
            Value::Null => return Ok(()),
            Value::List => return Err(nested("a list")),
            Value::Object => return Err(nested("an object")),
            Value::Bool => ValueKind::Bool,
            Value::Integer(_) | Value::Float => ValueKind::Number,
            Value::Text(_) => ValueKind::Text,
        };
        self.observe_kind(column, kind, &place)?;
        match value {
            Value::Integer(value) => {
                self.negative |= *value < 0;
                self.beyond_i64 |= i64::try_from(*value).is_err();
                if value.unsigned_abs() > u128::from(MAX_EXACT) {
                    self.wide.get_or_insert_with(place);
                }
            }
            Value::Float => self.floats = true,
            Value::Text(text) => self.texts.observe(text),
            Value::Null | Value::Bool | Value::List | Value::Object => {}
        }
        Ok(())
    }

    fn observe_kind(
        &mut self,
        column: &str,
        kind: ValueKind,
        place: impl Fn() -> Place,
    ) -> Result<(), InferError> {
        match &self.kind {
            Some((found, _)) if *found == kind => Ok(()),
            Some((found, first)) => Err(InferError::Mixed {
                column: column.to_owned(),
                first: first.clone(),
                first_kind: *found,
                second: place(),
                second_kind: kind,
            }),
            None => {
                self.kind = Some((kind, place()));
                Ok(())
            }
        }
    }

    /// Adds the observations of another file.
    pub(crate) fn join(&mut self, column: &str, other: Self) -> Result<(), InferError> {
        if let Some((kind, place)) = other.kind {
            self.observe_kind(column, kind, || place.clone())?;
        }
        self.floats |= other.floats;
        self.negative |= other.negative;
        self.beyond_i64 |= other.beyond_i64;
        self.wide = self.wide.take().or(other.wide);
        self.texts.join(other.texts);
        Ok(())
    }

    /// Returns true if an integer occurred that is not exact as a float.
    pub(crate) fn has_wide_integer(&self) -> bool {
        self.wide.is_some()
    }

    /// Returns the type; `None` without observations.
    ///
    /// # Errors
    ///
    /// When the column has fractions and integers that are not exact as floats.
    pub(crate) fn data_type(&self, column: &str) -> Result<Option<ColumnType>, InferError> {
        let Some((kind, _)) = &self.kind else { return Ok(None) };
        Ok(match (kind, &self.wide) {
            (ValueKind::Bool, _) => Some(ColumnType::Bool),
            (ValueKind::Text, _) => self.texts.string_type(),
            (ValueKind::Number, Some(place)) if self.floats => {
                return Err(InferError::Inexact {
                    column: column.to_owned(),
                    place: place.clone(),
                });
            }
            (ValueKind::Number, _) if self.floats => Some(ColumnType::Float64),
            (ValueKind::Number, _) if !self.beyond_i64 => Some(ColumnType::Int64),
            (ValueKind::Number, _) if !self.negative => Some(ColumnType::UInt64),
            // The range of both: 20 digits.
            (ValueKind::Number, _) => Some(ColumnType::Decimal128(20, 0)),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use tidewater_readers::error::RowPosition;

    fn place(line: u64) -> Place {
        Place { file: Arc::from("a.ndjson"), position: RowPosition::Line(line) }
    }

    fn text(text: &str) -> Value<'_> {
        Value::Text(Cow::Borrowed(text))
    }

    fn observed(values: &[Value<'_>]) -> Result<Values, InferError> {
        let mut observed = Values::default();
        for (value, line) in values.iter().zip(1..) {
            observed.observe("c", value, || place(line))?;
        }
        Ok(observed)
    }

    #[test]
    fn json_values_have_a_type_without_loss() {
        let above = i128::from(i64::MAX) + 1;
        for (values, expected) in [
            (&[Value::Bool, Value::Null][..], "bool"),
            (&[Value::Integer(1), Value::Integer(-1)], "int64"),
            (&[Value::Integer(i128::from(i64::MIN))], "int64"),
            (&[Value::Integer(above), Value::Integer(0)], "uint64"),
            (&[Value::Integer(above), Value::Integer(-1)], "decimal128(20, 0)"),
            (&[Value::Integer(1), Value::Float], "float64"),
            (&[text("12")], "utf8"),
            (&[text("2013-01-01")], "date32"),
            (&[text("2013-01-01T00:00:00.5Z")], "timestamp(ms, UTC)"),
            (&[text("2013-01-01"), text("12")], "utf8"),
        ] {
            let data_type = observed(values).unwrap().data_type("c").unwrap().unwrap();
            assert_eq!(data_type.to_string(), expected, "{values:?}");
        }
        assert_eq!(observed(&[Value::Null]).unwrap().data_type("c").unwrap(), None);
    }

    #[test]
    fn mixed_values_error_names_both_lines() {
        for (values, parts) in [
            ([Value::Integer(1), text("x")], ["line 1 has a number", "line 2 has a text"]),
            ([text("1"), Value::Float], ["line 1 has a text", "line 2 has a number"]),
            ([Value::Bool, Value::Integer(0)], ["line 1 has a boolean", "line 2 has a number"]),
        ] {
            let error = observed(&values).unwrap_err();
            assert!(matches!(&error, InferError::Mixed { column, .. } if column == "c"));
            let message = error.to_string();
            assert!(parts.iter().all(|part| message.contains(part)), "{message}");
            let mut first = observed(&values[..1]).unwrap();
            let joined = first.join("c", observed(&values[1..]).unwrap());
            assert!(matches!(joined, Err(InferError::Mixed { .. })));
        }
    }

    #[test]
    fn nested_values_are_rejected_with_their_line() {
        for (value, part) in [(Value::List, "a list"), (Value::Object, "an object")] {
            let error = observed(&[Value::Null, value]).unwrap_err();
            assert!(matches!(error, InferError::Nested { .. }));
            let message = error.to_string();
            assert!(message.contains("line 2") && message.contains(part), "{message}");
        }
    }

    #[test]
    fn wide_integers_do_not_become_floats() {
        let values = [Value::Float, Value::Integer(i128::from(MAX_EXACT) + 1)];
        let error = observed(&values).unwrap().data_type("c").unwrap_err();
        assert!(matches!(&error, InferError::Inexact { place: found, .. } if *found == place(2)));
    }
}
