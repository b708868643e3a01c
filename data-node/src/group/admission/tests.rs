use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use tidewater_common::rows::encode_batch;

use super::*;
use crate::group::testing::{
    append_only, delete, ledger, ledger_delete, ledger_write, region, rows, write,
};

fn checked(write: &WriteRequest, limits: &WriteLimits) -> Option<Reason> {
    let descriptor = Descriptor::new(&region(7, Some(0), Some(100))).unwrap();
    check(&descriptor, limits, write).err().map(|refusal| refusal.reason)
}

fn null_key() -> bytes::Bytes {
    let schema = Schema::new(vec![
        Field::new("id", DataType::Int64, true),
        Field::new("name", DataType::Utf8, true),
    ]);
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None]));
    let names: ArrayRef = Arc::new(StringArray::from(vec!["a", "b"]));
    encode_batch(&RecordBatch::try_new(Arc::new(schema), vec![ids, names]).unwrap()).unwrap()
}

#[test]
fn valid_writes_pass_admission() {
    let limits = WriteLimits::default();
    assert_eq!(checked(&write(1, 1, &[]), &limits), None);
    assert_eq!(checked(&write(1, 2, &[0, 1, 1, 99]), &limits), None);
}

#[test]
fn each_invalid_write_is_refused_with_its_reason() {
    let limits = WriteLimits { rows: 4, bytes: 4_096, ..WriteLimits::default() };
    let many: Vec<i64> = (0..5).collect();
    let cases = [
        ("unsorted", write(1, 2, &[2, 1]), Reason::InvalidArgument),
        ("above the range", write(1, 2, &[5, 100]), Reason::KeyOutsideRegion),
        ("below the range", write(1, 2, &[-1, 5]), Reason::KeyOutsideRegion),
        ("too many rows", write(1, 2, &many), Reason::MessageTooLarge),
        (
            "too many bytes",
            WriteRequest { rows: vec![0; 5_000].into(), ..write(1, 2, &[1]) },
            Reason::MessageTooLarge,
        ),
        (
            "wrong count",
            WriteRequest { row_count: 2, ..write(1, 2, &[1]) },
            Reason::InvalidArgument,
        ),
        (
            "garbage",
            WriteRequest { rows: vec![7; 64].into(), ..write(1, 2, &[1]) },
            Reason::SchemaMismatch,
        ),
        (
            "null key",
            WriteRequest { rows: null_key(), row_count: 2, ..write(1, 2, &[1]) },
            Reason::SchemaMismatch,
        ),
        (
            "old schema",
            WriteRequest { schema_version: 0, ..write(1, 2, &[1]) },
            Reason::SchemaVersionStale,
        ),
        (
            "new schema",
            WriteRequest { schema_version: 2, ..write(1, 2, &[1]) },
            Reason::SchemaVersionBehind,
        ),
        (
            "no producer",
            WriteRequest { producer_id: Default::default(), ..write(1, 2, &[1]) },
            Reason::InvalidArgument,
        ),
        (
            "rows declared, none sent",
            WriteRequest { row_count: 3, ..write(1, 1, &[]) },
            Reason::InvalidArgument,
        ),
        (
            "catalog version",
            WriteRequest { catalog_version: 1 << 63, ..write(1, 2, &[1]) },
            Reason::InvalidArgument,
        ),
        (
            "origin",
            WriteRequest { origin_region_id: 1 << 63, ..write(1, 2, &[1]) },
            Reason::InvalidArgument,
        ),
        ("serial", WriteRequest { serial: u64::MAX, ..write(1, 2, &[1]) }, Reason::InvalidArgument),
        ("opening with rows", write(1, 1, &[1]), Reason::InvalidArgument),
        (
            "no opening named",
            WriteRequest { opening: 0, ..write(1, 2, &[1]) },
            Reason::InvalidArgument,
        ),
        ("unknown operation", WriteRequest { op: 7, ..write(1, 2, &[1]) }, Reason::Unsupported),
    ];
    for (name, write, reason) in cases {
        assert_eq!(checked(&write, &limits), Some(reason), "{name}");
    }
}

// The decoder accepts nulls in non-nullable columns, and the keys are valid in this batch.
#[test]
fn null_in_non_nullable_column_is_refused() {
    let mut description = region(7, None, None);
    description.schema.as_mut().unwrap().columns[1].nullable = false;
    let descriptor = Descriptor::new(&description).unwrap();
    let schema = Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("name", DataType::Utf8, true),
    ]);
    let encoded = |names: Vec<Option<&str>>| {
        let ids: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
        let names: ArrayRef = Arc::new(StringArray::from(names));
        let batch = RecordBatch::try_new(Arc::new(schema.clone()), vec![ids, names]).unwrap();
        WriteRequest { rows: encode_batch(&batch).unwrap(), ..write(1, 2, &[1, 2]) }
    };
    let limits = WriteLimits::default();
    assert!(check(&descriptor, &limits, &encoded(vec![Some("a"), Some("b")])).is_ok());
    let refusal = check(&descriptor, &limits, &encoded(vec![Some("a"), None])).unwrap_err();
    assert_eq!(refusal.reason, Reason::SchemaMismatch);
    assert!(refusal.message.contains("name"), "{refusal:?}");
}

// A delete row has no values, which no file of an append-only table accepts: the region could never
// be flushed.
#[test]
fn admission_refuses_deletes_from_append_only_tables() {
    let limits = WriteLimits::default();
    let upsert = Descriptor::new(&region(7, None, None)).unwrap();
    assert!(check(&upsert, &limits, &delete(1, 2, &[1])).is_ok());
    let append_only = Descriptor::new(&append_only(7)).unwrap();
    assert!(check(&append_only, &limits, &write(1, 2, &[1])).is_ok());
    let refusal = check(&append_only, &limits, &delete(1, 2, &[1])).unwrap_err();
    assert_eq!(refusal.reason, Reason::InvalidArgument);
    assert!(refusal.message.contains("append-only"), "{refusal:?}");
}

#[test]
fn admission_refuses_values_that_files_cannot_store() {
    let descriptor = Descriptor::new(&ledger(7)).unwrap();
    let check = |write| check(&descriptor, &WriteLimits::default(), &write);
    let most = 999_999_999;
    assert!(check(ledger_write(1, 2, i64::MAX / 1_000, most)).is_ok());
    assert!(check(ledger_delete(1, 2, -most)).is_ok());
    let cases = [
        (ledger_write(1, 2, i64::MAX, 0), "\"at\""),
        (ledger_write(1, 2, 0, most + 1), "\"price\""),
        (ledger_write(1, 2, 0, 1_000_000_000_000), "\"price\""),
        (ledger_delete(1, 2, -most - 1), "\"price\""),
    ];
    for (write, column) in cases {
        let refusal = check(write).unwrap_err();
        assert_eq!(refusal.reason, Reason::SchemaMismatch);
        assert!(refusal.message.contains(column), "{refusal:?}");
    }
}

// Each producer record holds two keys, and snapshots hold the records.
#[test]
fn row_key_above_the_limit_is_refused() {
    let mut description = region(7, None, None);
    let schema = description.schema.as_mut().unwrap();
    schema.columns[1].nullable = false;
    schema.primary_key.push(schema.columns[1].id);
    let descriptor = Descriptor::new(&description).unwrap();
    let fields = descriptor.row_schema(tidewater_proto::v1::RowOp::Put);
    let limits = WriteLimits::default();
    let check = |bytes: usize| {
        let ids: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
        let names = ["a".to_owned(), "x".repeat(bytes), "b".to_owned()];
        let names: ArrayRef = Arc::new(StringArray::from(names.to_vec()));
        let batch = RecordBatch::try_new(fields.clone(), vec![ids, names]).unwrap();
        let rows = encode_batch(&batch).unwrap();
        check(&descriptor, &limits, &WriteRequest { rows, ..write(1, 2, &[1, 2, 3]) })
    };
    // Encoded key: eight bytes of the integer, one non-null marker, and nine bytes for each eight
    // of the text.
    let groups = (limits.key_bytes - 8 - 1) / 9;
    assert!(check(8 * groups).is_ok());
    let refusal = check(8 * groups + 1).unwrap_err();
    assert_eq!(refusal.reason, Reason::InvalidArgument);
    assert!(refusal.message.contains("row key"), "{refusal:?}");
}

#[test]
fn damaged_rows_do_not_panic_admission() {
    let whole = rows(&[1, 2, 3]);
    for bit in 0..whole.len() * 8 {
        let mut flipped = whole.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let damaged = WriteRequest { rows: flipped.into(), ..write(1, 2, &[1, 2, 3]) };
        let _ = checked(&damaged, &WriteLimits::default());
    }
}

#[test]
fn refusal_for_a_region_behind_has_a_retry_delay() {
    let descriptor = Descriptor::new(&region(7, None, None)).unwrap();
    assert!(served(&descriptor, 2).unwrap_err().retry_after.is_some());
    assert!(served(&descriptor, 0).unwrap_err().retry_after.is_none());
}

#[test]
fn full_disk_refuses_writes() {
    assert!(check_disk(&DiskHealth::Ok).is_ok());
    let full = check_disk(&DiskHealth::Full).unwrap_err();
    assert_eq!(full.reason, Reason::DiskFull);
    assert!(full.retry_after.is_some());
    let failed = check_disk(&DiskHealth::Failed("x".into())).unwrap_err();
    assert_eq!(failed.reason, Reason::ShuttingDown);
}
