//! Columns of batches from fields of the binary format, by PostgreSQL type and type of the table's column (pure).
//!
//! A conversion loses nothing, except that a decimal becomes the nearest float. A pair of types that cannot promise it is rejected when the source is listed; a value
//! that does not fit is rejected with its row.
//!
//! # Layout
//!
//! - `numbers`: integers and floats. `numeric`: decimals of any length. `times`: dates and timestamps. `bytes`: texts
//!   and bytes.

mod bytes;
mod numbers;
mod numeric;
mod times;

use std::sync::Arc;

use arrow::array::{
    ArrayRef, ArrowPrimitiveType, BooleanBuilder, PrimitiveArray, PrimitiveBuilder,
};
use arrow::datatypes::DataType;
use tidewater_common::schema::ColumnType;
use tokio_postgres::types::{Kind, Type};

/// Reason why a field is not a value of its column.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ValueError {
    /// The bytes are not those of the PostgreSQL type: the connection or the server is damaged.
    #[error("{0}")]
    Damaged(String),
    /// The column cannot hold the value, which is given for people.
    #[error("{0}")]
    DoesNotFit(String),
    /// The text is not UTF-8: the database does not declare its encoding.
    #[error("the text is not valid UTF-8")]
    NotUtf8,
}

impl ValueError {
    fn length(bytes: &[u8]) -> Self {
        Self::Damaged(format!("a field has {} bytes", bytes.len()))
    }

    fn does_not_fit(value: impl ToString) -> Self {
        Self::DoesNotFit(value.to_string())
    }
}

/// Builder of a column.
pub(super) trait ColumnBuilder: Send {
    /// Appends the value of a field.
    ///
    /// # Errors
    /// [`ValueError`]; nothing is appended.
    fn append(&mut self, field: &[u8]) -> Result<(), ValueError>;

    /// Appends a null.
    fn append_null(&mut self);

    /// Returns the appended values, and begins the next column with this capacity.
    fn finish(&mut self, capacity: usize) -> ArrayRef;
}

/// Returns the builder of a column, or `None` if a conversion of these types may lose a part of a value.
pub(super) fn column_builder(from: &Type, to: &ColumnType) -> Option<Box<dyn ColumnBuilder>> {
    if matches!(from.kind(), Kind::Enum(_)) || from.name() == "citext" {
        return bytes::text(to);
    }
    match *from {
        Type::BOOL => matches!(to, ColumnType::Bool).then(|| Box::new(Bools::default()) as _),
        Type::INT2 => numbers::integer(numbers::int2, to),
        Type::INT4 => numbers::integer(numbers::int4, to),
        Type::INT8 => numbers::integer(numbers::int8, to),
        Type::FLOAT4 => numbers::float4_column(to),
        Type::FLOAT8 => numbers::float8_column(to),
        Type::NUMERIC => numeric::numeric(to),
        Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME | Type::JSON => bytes::text(to),
        Type::JSONB => bytes::jsonb(to),
        Type::UUID => bytes::uuid(to),
        Type::BYTEA => bytes::bytea(to),
        Type::DATE => times::date(to),
        Type::TIMESTAMP => times::timestamp(to),
        Type::TIMESTAMPTZ => times::timestamptz(to),
        _ => None,
    }
}

/// Returns a field of fixed width.
fn fixed<const N: usize>(field: &[u8]) -> Result<[u8; N], ValueError> {
    field.try_into().map_err(|_| ValueError::length(field))
}

/// Builder of a column of fixed width. `read` converts a field.
struct Fixed<T: ArrowPrimitiveType, F> {
    builder: PrimitiveBuilder<T>,
    data_type: DataType,
    read: F,
}

/// Returns the builder of a column of fixed width.
fn fixed_column<T, F>(to: &ColumnType, read: F) -> Option<Box<dyn ColumnBuilder>>
where
    T: ArrowPrimitiveType,
    F: Fn(&[u8]) -> Result<T::Native, ValueError> + Send + 'static,
{
    let data_type = to.arrow();
    // The builder asserts this: a wrong row of the conversion table must not end the process.
    if !PrimitiveArray::<T>::is_compatible(&data_type) {
        return None;
    }
    let builder = PrimitiveBuilder::<T>::new().with_data_type(data_type.clone());
    Some(Box::new(Fixed { builder, data_type, read }))
}

impl<T, F> ColumnBuilder for Fixed<T, F>
where
    T: ArrowPrimitiveType,
    F: Fn(&[u8]) -> Result<T::Native, ValueError> + Send,
{
    fn append(&mut self, field: &[u8]) -> Result<(), ValueError> {
        self.builder.append_value((self.read)(field)?);
        Ok(())
    }

    fn append_null(&mut self) {
        self.builder.append_null();
    }

    fn finish(&mut self, capacity: usize) -> ArrayRef {
        let next = PrimitiveBuilder::with_capacity(capacity).with_data_type(self.data_type.clone());
        Arc::new(std::mem::replace(&mut self.builder, next).finish())
    }
}

#[derive(Default)]
struct Bools(BooleanBuilder);

impl ColumnBuilder for Bools {
    fn append(&mut self, field: &[u8]) -> Result<(), ValueError> {
        let value = match fixed::<1>(field)? {
            [0] => false,
            [1] => true,
            [other] => return Err(ValueError::Damaged(format!("a bool has the byte {other}"))),
        };
        self.0.append_value(value);
        Ok(())
    }

    fn append_null(&mut self) {
        self.0.append_null();
    }

    fn finish(&mut self, _capacity: usize) -> ArrayRef {
        Arc::new(self.0.finish())
    }
}

#[cfg(test)]
mod tests;
