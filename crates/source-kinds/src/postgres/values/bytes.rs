//! Texts and bytes.

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryBuilder, StringBuilder};
use tidewater_common::schema::ColumnType;
use uuid::Uuid;

use super::{ColumnBuilder, ValueError, fixed};

/// Bytes of values that a builder begins with; it grows by doubling.
const INITIAL_BYTES: usize = 16 << 10;
/// First byte of the binary form of `jsonb`.
const JSONB_VERSION: u8 = 1;

/// Returns the builder of a column whose fields are texts.
pub(super) fn text(to: &ColumnType) -> Option<Box<dyn ColumnBuilder>> {
    texts(to, |field, builder| {
        builder.append_value(utf8(field)?);
        Ok(())
    })
}

/// Returns the builder of a column whose fields are `jsonb`: the text of the JSON.
pub(super) fn jsonb(to: &ColumnType) -> Option<Box<dyn ColumnBuilder>> {
    texts(to, |field, builder| match field.split_first() {
        Some((&JSONB_VERSION, text)) => {
            builder.append_value(utf8(text)?);
            Ok(())
        }
        Some((version, _)) => Err(ValueError::Damaged(format!("jsonb has the version {version}"))),
        None => Err(ValueError::length(field)),
    })
}

/// Returns the builder of a column whose fields are UUIDs: lower-case text, or 16 bytes.
pub(super) fn uuid(to: &ColumnType) -> Option<Box<dyn ColumnBuilder>> {
    match to {
        ColumnType::Utf8 => texts(to, |field, builder| {
            let mut text = Uuid::encode_buffer();
            let uuid = Uuid::from_bytes(fixed(field)?).hyphenated();
            builder.append_value(uuid.encode_lower(&mut text));
            Ok(())
        }),
        _ => binary(to, Some(16)),
    }
}

/// Returns the builder of a column whose fields are bytes.
pub(super) fn bytea(to: &ColumnType) -> Option<Box<dyn ColumnBuilder>> {
    binary(to, None)
}

fn utf8(field: &[u8]) -> Result<&str, ValueError> {
    std::str::from_utf8(field).map_err(|_| ValueError::NotUtf8)
}

struct Texts<F> {
    builder: StringBuilder,
    append: F,
}

fn texts<F>(to: &ColumnType, append: F) -> Option<Box<dyn ColumnBuilder>>
where
    F: Fn(&[u8], &mut StringBuilder) -> Result<(), ValueError> + Send + 'static,
{
    let builder = StringBuilder::new();
    matches!(to, ColumnType::Utf8).then(|| Box::new(Texts { builder, append }) as _)
}

impl<F> ColumnBuilder for Texts<F>
where
    F: Fn(&[u8], &mut StringBuilder) -> Result<(), ValueError> + Send,
{
    fn append(&mut self, field: &[u8]) -> Result<(), ValueError> {
        (self.append)(field, &mut self.builder)
    }

    fn append_null(&mut self) {
        self.builder.append_null();
    }

    fn finish(&mut self, capacity: usize) -> ArrayRef {
        let next = StringBuilder::with_capacity(capacity, INITIAL_BYTES);
        Arc::new(std::mem::replace(&mut self.builder, next).finish())
    }
}

struct Binaries {
    builder: BinaryBuilder,
    /// Length of each value, if all have one.
    length: Option<usize>,
}

fn binary(to: &ColumnType, length: Option<usize>) -> Option<Box<dyn ColumnBuilder>> {
    let builder = BinaryBuilder::new();
    matches!(to, ColumnType::Binary).then(|| Box::new(Binaries { builder, length }) as _)
}

impl ColumnBuilder for Binaries {
    fn append(&mut self, field: &[u8]) -> Result<(), ValueError> {
        if self.length.is_some_and(|length| length != field.len()) {
            return Err(ValueError::length(field));
        }
        self.builder.append_value(field);
        Ok(())
    }

    fn append_null(&mut self) {
        self.builder.append_null();
    }

    fn finish(&mut self, capacity: usize) -> ArrayRef {
        let next = BinaryBuilder::with_capacity(capacity, INITIAL_BYTES);
        Arc::new(std::mem::replace(&mut self.builder, next).finish())
    }
}
