//! Values of Rust as values of extra columns.

use tidewater_events::{Value, ValueType};

/// A value that an extra column can have.
pub trait ColumnValue {
    /// Type of the column.
    const TYPE: ValueType;

    /// Returns the value.
    fn to_value(&self) -> Value;
}

impl ColumnValue for u64 {
    const TYPE: ValueType = ValueType::UInt64;

    fn to_value(&self) -> Value {
        Value::UInt64(*self)
    }
}

impl ColumnValue for bool {
    const TYPE: ValueType = ValueType::Bool;

    fn to_value(&self) -> Value {
        Value::Bool(*self)
    }
}

impl ColumnValue for String {
    const TYPE: ValueType = ValueType::Text;

    fn to_value(&self) -> Value {
        Value::Text(self.clone())
    }
}

impl<T: ColumnValue> ColumnValue for Option<T> {
    const TYPE: ValueType = T::TYPE;

    fn to_value(&self) -> Value {
        self.as_ref().map_or(Value::Null, ColumnValue::to_value)
    }
}
