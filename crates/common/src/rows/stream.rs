//! Rows with their schema: an Arrow IPC stream of one record batch, which every Arrow library reads
//! and writes.
//!
//! ```text
//! message   0xFFFFFFFF, metadata length (i32, little endian), metadata (flatbuffer), body
//! stream    schema message, record batch message, end of stream (optional)
//! ```
//!
//! The compact encoding of [`rows`](crate::rows) never begins with 0xFFFFFFFF, so the first four
//! bytes decide which of the two a sender chose. Logs and snapshots contain the compact encoding only.

use std::collections::HashMap;

use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, Schema, SchemaRef, TimeUnit};
use arrow::ipc::reader::read_record_batch;
use arrow::ipc::writer::StreamWriter;
use arrow::ipc::{self, Message, root_as_message};
use bytes::Bytes;

use super::{RowsError, check_layout};

/// First bytes of each message of a stream.
const CONTINUATION: [u8; 4] = [0xff; 4];

/// Returns whether encoded rows are a stream.
pub fn is_stream(bytes: &[u8]) -> bool {
    bytes.starts_with(&CONTINUATION)
}

/// Encodes a batch together with its schema.
///
/// # Errors
/// [`RowsError::Encode`] for types that IPC cannot carry without a dictionary.
pub fn encode_stream(batch: &RecordBatch) -> Result<Bytes, RowsError> {
    let mut writer =
        StreamWriter::try_new(Vec::new(), &batch.schema()).map_err(RowsError::Encode)?;
    writer.write(batch).map_err(RowsError::Encode)?;
    writer.into_inner().map(Bytes::from).map_err(RowsError::Encode)
}

/// Decodes a stream of one batch whose columns must have the names, order and types of `schema`.
/// Nullability and metadata of the stream's schema are ignored; the caller checks for nulls.
///
/// # Errors
/// [`RowsError::Truncated`] or [`RowsError::Malformed`], which names the first column that differs.
/// Damaged bytes never panic.
pub fn decode_stream(bytes: &Bytes, schema: &SchemaRef) -> Result<RecordBatch, RowsError> {
    let mut rest = bytes.clone();
    let first = next_message(&mut rest)?
        .ok_or_else(|| malformed("the stream has no schema; send a schema and one record batch"))?;
    let message = message(&first.metadata)?;
    let header = message
        .header_as_schema()
        .ok_or_else(|| malformed("the first message of the stream is not a schema"))?;
    check_columns(header, schema)?;

    let second = next_message(&mut rest)?
        .ok_or_else(|| malformed("the stream has a schema but no record batch"))?;
    let batch = decode_body(&second, schema)?;
    match next_message(&mut rest)? {
        None => Ok(batch),
        Some(_) => Err(malformed("the stream has more than one record batch; combine them")),
    }
}

struct Encapsulated {
    metadata: Bytes,
    body: Bytes,
}

/// Takes one message from the front of `rest`; `None` at the end of the stream.
fn next_message(rest: &mut Bytes) -> Result<Option<Encapsulated>, RowsError> {
    if rest.is_empty() {
        return Ok(None);
    }
    let prefix = take(rest, 8)?;
    let (marker, length) = prefix.split_at(4);
    if marker != CONTINUATION {
        return Err(malformed("a message of the stream does not begin with 0xFFFFFFFF"));
    }
    let length = length.first_chunk().map_or(-1, |bytes| i32::from_le_bytes(*bytes));
    let length = usize::try_from(length).map_err(|_| malformed("a negative metadata length"))?;
    if length == 0 {
        return Ok(None);
    }
    let metadata = take(rest, length)?;
    let body_length = usize::try_from(message(&metadata)?.bodyLength())
        .map_err(|_| malformed("a negative body length"))?;
    let body = take(rest, body_length)?;
    Ok(Some(Encapsulated { metadata, body }))
}

fn decode_body(encapsulated: &Encapsulated, schema: &SchemaRef) -> Result<RecordBatch, RowsError> {
    let message = message(&encapsulated.metadata)?;
    let header = message
        .header_as_record_batch()
        .ok_or_else(|| malformed("the second message of the stream is not a record batch"))?;
    check_layout(&header, schema, encapsulated.body.len())?;
    read_record_batch(
        &Buffer::from(encapsulated.body.clone()),
        header,
        schema.clone(),
        &HashMap::new(),
        None,
        &message.version(),
    )
    .map_err(|error| RowsError::Malformed(error.to_string()))
}

fn check_columns(sent: ipc::Schema<'_>, expected: &Schema) -> Result<(), RowsError> {
    if sent.endianness() != ipc::Endianness::Little {
        return Err(malformed("the stream is big endian; only little endian is supported"));
    }
    let sent: Vec<ipc::Field<'_>> = sent.fields().into_iter().flatten().collect();
    if sent.len() != expected.fields().len() {
        let expected = expected.fields().len();
        return Err(malformed(&format!("{} columns instead of {expected}", sent.len())));
    }
    for (index, (sent, expected)) in sent.iter().zip(expected.fields()).enumerate() {
        let name = sent.name().unwrap_or_default();
        if name != expected.name() {
            let expected = expected.name();
            return Err(malformed(&format!("column {index} is {name:?} instead of {expected:?}")));
        }
        let expected = expected.data_type();
        match column_type(sent) {
            Some(sent) if sent == *expected => {}
            Some(sent) => {
                return Err(malformed(&format!("column {name:?} is {sent} instead of {expected}")));
            }
            None => {
                let sent = sent.type_type().variant_name().unwrap_or("of an unknown type");
                return Err(malformed(&format!("column {name:?} is {sent} instead of {expected}")));
            }
        }
    }
    Ok(())
}

/// Returns the type of a column, `None` for types that no table column has. The conversion of the
/// Arrow library panics on damaged schemas.
fn column_type(field: &ipc::Field<'_>) -> Option<DataType> {
    if field.dictionary().is_some() {
        return None;
    }
    Some(match field.type_type() {
        ipc::Type::Bool => DataType::Boolean,
        ipc::Type::Utf8 => DataType::Utf8,
        ipc::Type::Binary => DataType::Binary,
        ipc::Type::Int => {
            let int = field.type_as_int()?;
            match (int.bitWidth(), int.is_signed()) {
                (8, true) => DataType::Int8,
                (16, true) => DataType::Int16,
                (32, true) => DataType::Int32,
                (64, true) => DataType::Int64,
                (8, false) => DataType::UInt8,
                (16, false) => DataType::UInt16,
                (32, false) => DataType::UInt32,
                (64, false) => DataType::UInt64,
                _ => return None,
            }
        }
        ipc::Type::FloatingPoint => match field.type_as_floating_point()?.precision() {
            ipc::Precision::SINGLE => DataType::Float32,
            ipc::Precision::DOUBLE => DataType::Float64,
            _ => return None,
        },
        ipc::Type::Date => match field.type_as_date()?.unit() {
            ipc::DateUnit::DAY => DataType::Date32,
            _ => return None,
        },
        ipc::Type::Timestamp => {
            let timestamp = field.type_as_timestamp()?;
            let unit = match timestamp.unit() {
                ipc::TimeUnit::SECOND => TimeUnit::Second,
                ipc::TimeUnit::MILLISECOND => TimeUnit::Millisecond,
                ipc::TimeUnit::MICROSECOND => TimeUnit::Microsecond,
                ipc::TimeUnit::NANOSECOND => TimeUnit::Nanosecond,
                _ => return None,
            };
            DataType::Timestamp(unit, timestamp.timezone().map(Into::into))
        }
        ipc::Type::Decimal => {
            let decimal = field.type_as_decimal()?;
            if decimal.bitWidth() != 128 {
                return None;
            }
            let precision = u8::try_from(decimal.precision()).ok()?;
            DataType::Decimal128(precision, i8::try_from(decimal.scale()).ok()?)
        }
        _ => return None,
    })
}

fn message(metadata: &[u8]) -> Result<Message<'_>, RowsError> {
    root_as_message(metadata).map_err(|error| RowsError::Malformed(error.to_string()))
}

fn take(rest: &mut Bytes, length: usize) -> Result<Bytes, RowsError> {
    if rest.len() < length {
        return Err(RowsError::Truncated { have: rest.len(), need: length });
    }
    Ok(rest.split_to(length))
}

fn malformed(problem: &str) -> RowsError {
    RowsError::Malformed(problem.to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray, TimestampSecondArray};
    use arrow::datatypes::Field;
    use proptest::prelude::*;

    use super::*;

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("name", DataType::Utf8, true),
            Field::new("id", DataType::Int64, false),
            Field::new("at", DataType::Timestamp(TimeUnit::Second, Some("UTC".into())), true),
        ]))
    }

    fn batch(rows: usize) -> RecordBatch {
        let names: StringArray = (0..rows).map(|i| (i % 3 != 0).then(|| format!("{i}"))).collect();
        let ids: Int64Array = (0..rows as i64).map(Some).collect();
        let times: TimestampSecondArray = (0..rows as i64).map(Some).collect();
        let columns = vec![
            Arc::new(names) as ArrayRef,
            Arc::new(ids) as ArrayRef,
            Arc::new(times.with_timezone("UTC")) as ArrayRef,
        ];
        RecordBatch::try_new(schema(), columns).unwrap()
    }

    fn problem(bytes: &Bytes, schema: &SchemaRef) -> String {
        decode_stream(bytes, schema).unwrap_err().to_string()
    }

    #[test]
    fn streams_round_trip() {
        for rows in [0, 1, 7, 1_000] {
            let bytes = encode_stream(&batch(rows)).unwrap();
            assert!(is_stream(&bytes));
            assert_eq!(decode_stream(&bytes, &schema()).unwrap(), batch(rows), "{rows} rows");
        }
    }

    #[test]
    fn compact_rows_are_no_stream() {
        for rows in [0, 1, 1_000] {
            assert!(!is_stream(&super::super::encode_batch(&batch(rows)).unwrap()));
        }
    }

    #[test]
    fn slices_carry_their_rows_only() {
        let slice = batch(100_000).slice(500, 3);
        let bytes = encode_stream(&slice).unwrap();
        assert!(bytes.len() < 2_000, "{}", bytes.len());
        assert_eq!(decode_stream(&bytes, &schema()).unwrap(), slice);
    }

    #[test]
    fn different_columns_are_named() {
        let bytes = encode_stream(&batch(3)).unwrap();
        let fields = schema().fields().clone();
        let fewer = Arc::new(Schema::new(fields[..2].to_vec()));
        assert!(problem(&bytes, &fewer).contains("3 columns instead of 2"));
        let swapped =
            Arc::new(Schema::new(vec![fields[1].clone(), fields[0].clone(), fields[2].clone()]));
        assert!(problem(&bytes, &swapped).contains("column 0 is \"name\" instead of \"id\""));
        let mut typed = fields.to_vec();
        typed[1] = Arc::new(Field::new("id", DataType::Int32, false));
        let typed = Arc::new(Schema::new(typed));
        assert!(problem(&bytes, &typed).contains("column \"id\" is Int64 instead of Int32"));
    }

    #[test]
    fn streams_of_several_batches_are_refused() {
        let mut writer = StreamWriter::try_new(Vec::new(), &schema()).unwrap();
        writer.write(&batch(2)).unwrap();
        writer.write(&batch(2)).unwrap();
        let two = Bytes::from(writer.into_inner().unwrap());
        assert!(problem(&two, &schema()).contains("more than one record batch"));
        let none = StreamWriter::try_new(Vec::new(), &schema()).unwrap().into_inner().unwrap();
        assert!(problem(&Bytes::from(none), &schema()).contains("no record batch"));
    }

    #[test]
    fn every_truncation_is_an_error_or_equal() {
        let bytes = encode_stream(&batch(20)).unwrap();
        for length in 0..bytes.len() {
            if let Ok(decoded) = decode_stream(&bytes.slice(..length), &schema()) {
                // Only the end of stream marker may be missing.
                assert!(length >= bytes.len() - 8, "cut at {length}");
                assert_eq!(decoded, batch(20));
            }
        }
    }

    proptest! {
        #[test]
        fn flipped_bytes_never_panic(at in 0_usize..2_000, bits in 1_u8..) {
            let mut bytes = encode_stream(&batch(20)).unwrap().to_vec();
            let at = at % bytes.len();
            bytes[at] ^= bits;
            let _ = decode_stream(&Bytes::from(bytes), &schema());
        }
    }
}
