use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Int8Array,
    Int16Array, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
    UInt8Array, UInt16Array, UInt32Array, UInt64Array,
};
use arrow::datatypes::TimeUnit;
use proptest::prelude::*;

use super::*;
use crate::ids::{ColumnId, SchemaVersion, TableId};
use crate::schema::{Column, ColumnType, HashDistribution, TableOptions, TableSchema};

fn table(types: &[ColumnType]) -> TableSchema {
    let columns = types
        .iter()
        .zip(1..)
        .map(|(data_type, id)| Column {
            id: ColumnId(id),
            name: format!("k{id}"),
            data_type: data_type.clone(),
            nullable: false,
            default: None,
        })
        .collect();
    let ids = (1..=types.len() as u32).map(ColumnId).collect();
    TableSchema::new(SchemaVersion(1), columns, ids, None, ColumnId(types.len() as u32 + 1))
        .unwrap()
}

fn codec(types: &[ColumnType], vnodes: Option<u32>) -> KeyCodec {
    let options = TableOptions {
        hash: vnodes
            .map(|vnode_count| HashDistribution { columns: vec![ColumnId(1)], vnode_count }),
        ..TableOptions::upsert()
    };
    KeyCodec::new(&table(types), &options).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn all_types() -> Vec<(ColumnType, ArrayRef, &'static str)> {
    vec![
        (ColumnType::Bool, Arc::new(BooleanArray::from(vec![true])), "01"),
        (ColumnType::Int8, Arc::new(Int8Array::from(vec![-1])), "7f"),
        (ColumnType::Int16, Arc::new(Int16Array::from(vec![1])), "8001"),
        (ColumnType::Int32, Arc::new(Int32Array::from(vec![-2])), "7ffffffe"),
        (ColumnType::Int64, Arc::new(Int64Array::from(vec![258])), "8000000000000102"),
        (ColumnType::UInt8, Arc::new(UInt8Array::from(vec![200])), "c8"),
        (ColumnType::UInt16, Arc::new(UInt16Array::from(vec![513])), "0201"),
        (ColumnType::UInt32, Arc::new(UInt32Array::from(vec![7])), "00000007"),
        (ColumnType::UInt64, Arc::new(UInt64Array::from(vec![u64::MAX])), "ffffffffffffffff"),
        (ColumnType::Date32, Arc::new(Date32Array::from(vec![15_706])), "80003d5a"),
        (
            ColumnType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Arc::new(TimestampMicrosecondArray::from(vec![-1]).with_timezone("UTC")),
            "7fffffffffffffff",
        ),
        (
            ColumnType::Decimal128(10, 2),
            Arc::new(Decimal128Array::from(vec![-150]).with_precision_and_scale(10, 2).unwrap()),
            "7fffffffffffffffffffffffffffff6a",
        ),
        (ColumnType::Utf8, Arc::new(StringArray::from(vec!["JFK"])), "014a464b000000000003"),
        (ColumnType::Utf8, Arc::new(StringArray::from(vec![""])), "00"),
        (
            ColumnType::Utf8,
            Arc::new(StringArray::from(vec!["N14228-AA"])),
            "014e31343232382d4109410000000000000001",
        ),
        (
            ColumnType::Binary,
            Arc::new(BinaryArray::from_vec(vec![&[0, 255]])),
            "0100ff00000000000002",
        ),
    ]
}

#[test]
fn key_encoding_of_every_type_is_frozen() {
    for (data_type, array, golden) in all_types() {
        let codec = codec(std::slice::from_ref(&data_type), None);
        let key = codec.row_key(std::slice::from_ref(&array), 0).unwrap();
        assert_eq!(hex(&key), golden, "{data_type}");
        assert_eq!(codec.decode(&key).unwrap(), [array], "{data_type}");
    }
}

#[test]
fn hash_table_keys_begin_with_the_vnode() {
    let codec = codec(&[ColumnType::Utf8, ColumnType::Int64], Some(256));
    let columns: Vec<ArrayRef> =
        vec![Arc::new(StringArray::from(vec!["a"])), Arc::new(Int64Array::from(vec![1]))];
    let key = codec.row_key(&columns, 0).unwrap();
    assert_eq!(hex(&key), "0039016100000000000000018000000000000001");
    assert_eq!(codec.decode(&key).unwrap(), columns);
}

#[test]
fn longest_key_matches_the_built_keys() {
    for (data_type, array, golden) in all_types() {
        let codec = codec(std::slice::from_ref(&data_type), None);
        assert_eq!(codec.longest_key(&[array]).unwrap(), golden.len() / 2, "{data_type}");
    }
    for vnodes in [None, Some(256)] {
        let codec = codec(&[ColumnType::Utf8, ColumnType::Int64, ColumnType::Binary], vnodes);
        for lengths in [[0, 0, 0], [1, 7, 0], [8, 8, 8], [0, 9, 16], [17, 0, 3]] {
            let texts = StringArray::from_iter_values(lengths.map(|length| "x".repeat(length)));
            let bytes = BinaryArray::from_iter_values(lengths.map(|length| vec![1; 2 * length]));
            let numbers = Int64Array::from(vec![1, 2, 3]);
            let columns: Vec<ArrayRef> = vec![Arc::new(texts), Arc::new(numbers), Arc::new(bytes)];
            for columns in [columns.clone(), columns.iter().map(|c| c.slice(1, 2)).collect()] {
                let built = codec.row_keys(&columns).unwrap();
                let longest = built.iter().map(Vec::len).max().unwrap();
                assert_eq!(codec.longest_key(&columns).unwrap(), longest, "{lengths:?}");
            }
            let none: Vec<ArrayRef> = columns.iter().map(|column| column.slice(0, 0)).collect();
            assert_eq!(codec.longest_key(&none).unwrap(), 0);
        }
    }
}

#[test]
fn damaged_keys_fail_to_decode() {
    for (data_type, array, _) in all_types() {
        let codec = codec(&[data_type.clone(), ColumnType::Int64], None);
        let columns = [array, Arc::new(Int64Array::from(vec![5])) as ArrayRef];
        let key = codec.row_key(&columns, 0).unwrap();
        for length in 0..key.len() {
            assert!(codec.decode(&key[..length]).is_err(), "{data_type} cut at {length}");
        }
        let mut longer = key.clone();
        longer.push(0);
        assert!(matches!(codec.decode(&longer), Err(KeyError::Malformed(_))), "{data_type}");
        for position in 0..key.len() {
            let mut flipped = key.clone();
            flipped[position] ^= 0xff;
            let _ = codec.decode(&flipped);
        }
    }
}

#[test]
fn key_errors_name_wrong_columns_and_nulls() {
    let codec = codec(&[ColumnType::Int64], None);
    let null: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None]));
    assert!(matches!(
        codec.comparable(&[null]),
        Err(KeyError::Null { column, row: 1 }) if column == "k1"
    ));
    let text: ArrayRef = Arc::new(StringArray::from(vec!["1"]));
    assert!(matches!(codec.row_key(&[text], 0), Err(KeyError::Columns(_))));
    assert!(matches!(codec.row_key(&[], 0), Err(KeyError::Columns(_))));
}

#[test]
fn sorting_is_stable_and_keeps_sorted_batches() {
    let schema = TableSchema::new(
        SchemaVersion(1),
        vec![
            Column {
                id: ColumnId(1),
                name: "k".into(),
                data_type: ColumnType::Int64,
                nullable: false,
                default: None,
            },
            Column {
                id: ColumnId(2),
                name: "v".into(),
                data_type: ColumnType::Int64,
                nullable: true,
                default: None,
            },
        ],
        vec![ColumnId(1)],
        None,
        ColumnId(3),
    )
    .unwrap();
    let codec = KeyCodec::new(&schema, &TableOptions::upsert()).unwrap();
    let batch = |keys: Vec<i64>, values: Vec<i64>| {
        RecordBatch::try_new(
            schema.arrow(),
            vec![Arc::new(Int64Array::from(keys)), Arc::new(Int64Array::from(values))],
        )
        .unwrap()
    };
    let sorted = codec.sorted(&batch(vec![3, 1, 3, -2], vec![1, 2, 3, 4])).unwrap();
    assert_eq!(sorted, batch(vec![-2, 1, 3, 3], vec![4, 2, 1, 3]));
    assert_eq!(codec.sorted(&sorted).unwrap(), sorted);
    assert!(codec.is_sorted(&codec.key_columns(&sorted)).unwrap());
}

#[test]
fn key_ranges_are_half_open() {
    let range = KeyRange::new(b"b".to_vec(), Some(b"d".to_vec()));
    assert!(!range.contains(b"a") && range.contains(b"b") && range.contains(b"cz"));
    assert!(!range.contains(b"d"));
    assert!(range.intersects_inclusive(b"a", b"b") && !range.intersects_inclusive(b"d", b"e"));
    assert!(!range.intersects(&KeyRange::new(b"d".to_vec(), None)));
    let empty = KeyRange::new(b"c".to_vec(), Some(b"c".to_vec()));
    assert!(!empty.intersects_inclusive(b"a", b"e"));
    assert!(KeyRange::whole().intersects(&range));
    assert!(KeyRange::new(b"b".to_vec(), Some(b"b".to_vec())).is_empty());
    assert_eq!(successor(&[1, 255]), Some(vec![2]));
    assert_eq!(successor(&[255, 255]), None);
    assert_eq!(split_global_key(&global_key(TableId(9), b"xy")), Some((TableId(9), &b"xy"[..])));
    assert_eq!(split_global_key(&[0, 0, 1]), None);
    assert_eq!(table_range(TableId(u32::MAX)).end, None);
    assert!(table_range(TableId(1)).contains(&global_key(TableId(1), &[255; 9])));
}

#[test]
fn global_range_does_not_end_before_its_table() {
    let split = |end: Option<(u32, &[u8])>| {
        let end = end.map(|(table, key)| global_key(TableId(table), key));
        split_global_range(&global_key(TableId(9), b"b"), end.as_deref())
    };
    let range =
        |end: Option<&[u8]>| Some((TableId(9), KeyRange::new(b"b", end.map(<[u8]>::to_vec))));
    assert_eq!(split(None), range(None));
    assert_eq!(split(Some((10, b"a"))), range(None));
    assert_eq!(split(Some((9, b"c"))), range(Some(b"c")));
    assert_eq!(split(Some((8, b"c"))), None);
}

proptest! {
    /// The in-memory order of merge iterators is the stored order.
    #[test]
    fn stored_and_in_memory_order_agree(
        rows in prop::collection::vec(
            (".{0,20}", any::<i64>(), prop::collection::vec(any::<u8>(), 0..20), any::<bool>()),
            2..40,
        ),
        hashed in any::<bool>(),
    ) {
        let types = [ColumnType::Utf8, ColumnType::Int64, ColumnType::Binary, ColumnType::Bool];
        let codec = codec(&types, hashed.then_some(7));
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.0.as_str()))),
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.1))),
            Arc::new(BinaryArray::from_iter_values(rows.iter().map(|row| row.2.as_slice()))),
            Arc::new(BooleanArray::from(rows.iter().map(|row| row.3).collect::<Vec<_>>())),
        ];
        let stored = codec.row_keys(&columns).unwrap();
        let in_memory = codec.comparable(&columns).unwrap();
        for a in 0..rows.len() {
            prop_assert_eq!(&codec.decode(&stored[a]).unwrap()[0], &columns[0].slice(a, 1));
            for b in 0..rows.len() {
                prop_assert_eq!(stored[a].cmp(&stored[b]), in_memory.row(a).cmp(&in_memory.row(b)));
            }
        }
    }

    /// The same for the fixed-width types whose sign or unit could go wrong.
    #[test]
    fn stored_and_in_memory_fixed_width_order_agree(rows in prop::collection::vec(any::<(i8, i16, i32, u64, i64, i64)>(), 2..40)) {
        let types = [
            ColumnType::Int8, ColumnType::Int16, ColumnType::Date32, ColumnType::UInt64,
            ColumnType::Timestamp(TimeUnit::Microsecond, None), ColumnType::Decimal128(38, 3),
        ];
        let codec = codec(&types, None);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int8Array::from_iter_values(rows.iter().map(|row| row.0))),
            Arc::new(Int16Array::from_iter_values(rows.iter().map(|row| row.1))),
            Arc::new(Date32Array::from_iter_values(rows.iter().map(|row| row.2))),
            Arc::new(UInt64Array::from_iter_values(rows.iter().map(|row| row.3))),
            Arc::new(TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| row.4))),
            Arc::new(
                Decimal128Array::from_iter_values(rows.iter().map(|row| i128::from(row.5)))
                    .with_precision_and_scale(38, 3)
                    .unwrap(),
            ),
        ];
        let stored = codec.row_keys(&columns).unwrap();
        let in_memory = codec.comparable(&columns).unwrap();
        for a in 0..rows.len() {
            for b in 0..rows.len() {
                prop_assert_eq!(stored[a].cmp(&stored[b]), in_memory.row(a).cmp(&in_memory.row(b)));
            }
        }
    }
}
