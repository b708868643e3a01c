use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, StringArray};
use arrow::datatypes::Field;
use proptest::prelude::*;

use super::*;

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("name", DataType::Utf8, true),
        Field::new("id", DataType::Int64, false),
        Field::new("value", DataType::Float64, true),
    ]))
}

fn batch(rows: usize) -> RecordBatch {
    let names: StringArray = (0..rows).map(|i| (i % 3 != 0).then(|| format!("name {i}"))).collect();
    let ids: Int64Array = (0..rows as i64).map(Some).collect();
    let values: Float64Array = (0..rows).map(|i| (i % 5 != 0).then_some(i as f64)).collect();
    RecordBatch::try_new(
        schema(),
        vec![Arc::new(names) as ArrayRef, Arc::new(ids) as ArrayRef, Arc::new(values) as ArrayRef],
    )
    .unwrap()
}

#[test]
fn encoded_batches_round_trip() {
    for rows in [0, 1, 7, 1_000] {
        let original = batch(rows);
        let bytes = encode_batch(&original).unwrap();
        assert_eq!(decode_batch(&bytes, &schema()).unwrap(), original, "{rows} rows");
    }
}

#[test]
fn encoded_slice_contains_only_its_rows() {
    let whole = batch(1_000);
    let slice = whole.slice(500, 3);
    let bytes = encode_batch(&slice).unwrap();
    assert!(bytes.len() < 1_000, "{}", bytes.len());
    assert_eq!(decode_batch(&bytes, &schema()).unwrap(), slice);
}

#[test]
fn unaligned_rows_decode() {
    let original = batch(100);
    let bytes = encode_batch(&original).unwrap();
    for shift in 1..8 {
        let mut moved = BytesMut::zeroed(shift);
        moved.put_slice(&bytes);
        let moved = moved.freeze().slice(shift..);
        assert_eq!(decode_batch(&moved, &schema()).unwrap(), original);
    }
}

#[test]
fn truncated_rows_are_errors() {
    let bytes = encode_batch(&batch(20)).unwrap();
    for length in 0..bytes.len() - ALIGNMENT {
        // Only the padding after the last buffer may be missing.
        let cut = bytes.slice(..length);
        if let Ok(decoded) = decode_batch(&cut, &schema()) {
            assert_eq!(decoded, batch(20), "cut at {length}");
        }
    }
    assert!(matches!(
        decode_batch(&bytes.slice(..3), &schema()),
        Err(RowsError::Truncated { have: 3, need: 4 })
    ));
}

#[test]
fn rows_of_another_schema_are_refused() {
    let bytes = encode_batch(&batch(10)).unwrap();
    let wider = Arc::new(Schema::new(
        schema()
            .fields()
            .iter()
            .cloned()
            .chain([Arc::new(Field::new("x", DataType::Int64, true))])
            .collect::<Vec<_>>(),
    ));
    assert!(decode_batch(&bytes, &wider).is_err());
}

#[test]
fn row_encoding_is_frozen() {
    let one = RecordBatch::try_new(
        Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, false)])),
        vec![Arc::new(Int64Array::from(vec![7, -1])) as ArrayRef],
    )
    .unwrap();
    let stored = include_bytes!("golden_two_ints.bin");
    assert_eq!(encode_batch(&one).unwrap().as_ref(), stored);
    assert_eq!(decode_batch(&Bytes::from_static(stored), &one.schema()).unwrap(), one);
}

proptest! {
    #[test]
    fn rows_with_flipped_bits_never_panic(position in 0usize..4_000, bit in 0u8..8) {
        let mut bytes = BytesMut::from(encode_batch(&batch(40)).unwrap().as_ref());
        let position = position % bytes.len();
        bytes[position] ^= 1 << bit;
        let _ = decode_batch(&bytes.freeze(), &schema());
    }
}
