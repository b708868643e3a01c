use arrow::array::{Int32Array, UInt8Array, UInt64Array};

use super::*;

fn image() -> RunImage {
    let ids: Arc<[ColumnId]> = [ColumnId(1), ColumnId(7)].into();
    let batch = |values: Vec<Option<i32>>, sequences: Numbers, ops: Ops| {
        let rows = values.len();
        let keys = Int32Array::from_iter_values(0..i32::try_from(rows).unwrap());
        let arrays: Vec<ArrayRef> = vec![Arc::new(keys), Arc::new(Int32Array::from(values))];
        RowVersions::new(
            ids.clone(),
            arrays,
            rows,
            Stamps { sequences, epochs: Numbers::All(3), ops },
        )
    };
    let batches = vec![
        batch(vec![Some(1), None], Numbers::All(9), Ops::All(RowOp::Put)),
        batch(
            vec![None],
            Numbers::Each(UInt64Array::from(vec![11])),
            Ops::Each(UInt8Array::from(vec![1])),
        ),
    ];
    RunImage { run: Arc::new(Run::of_batches(batches, true).unwrap()) }
}

#[test]
fn an_image_comes_back() {
    let decoded = RunImage::decode(&image().encode().unwrap()).unwrap();
    let (before, after) = (image().run, decoded.run);
    assert_eq!(after.rows(), 3);
    assert_eq!((after.min_sequence(), after.max_sequence()), (9, 11));
    assert_eq!((after.deletes(), after.unique()), (1, true));
    for (a, b) in before.batches().iter().zip(after.batches()) {
        assert_eq!((a.ids(), a.arrays()), (b.ids(), b.arrays()));
        for row in 0..a.rows() {
            assert_eq!(a.stamps().sequences.at(row), b.stamps().sequences.at(row));
            assert_eq!(b.stamps().epochs.at(row), 3);
            assert_eq!(a.stamps().ops.deletes_at(row), b.stamps().ops.deletes_at(row));
        }
    }
}

#[test]
fn bytes_that_are_no_image_are_refused() {
    let bytes = image().encode().unwrap();
    for length in (0..bytes.len()).step_by(11) {
        // What is cut at the end of a batch is a shorter stream; a snapshot file has checksums.
        if let Ok(decoded) = RunImage::decode(&bytes.slice(..length)) {
            assert!(decoded.rows() <= 3);
        }
    }
    assert!(matches!(RunImage::decode(&Bytes::new()), Err(ImageError::Arrow(_))));
    let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Int32, true)]));
    let mut writer = StreamWriter::try_new(Vec::new(), &schema).unwrap();
    writer.write(&RecordBatch::new_empty(schema.clone())).unwrap();
    let other = Bytes::from(writer.into_inner().unwrap());
    assert!(matches!(RunImage::decode(&other), Err(ImageError::NotARun(_))));
}
