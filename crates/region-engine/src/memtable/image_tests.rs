use arrow::array::{Int32Array, UInt8Array, UInt64Array};
use arrow::datatypes::Int32Type;

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
    RunImage { run: Arc::new(Run::from_batches(batches, true).unwrap()) }
}

#[test]
fn run_image_round_trips() {
    let decoded = RunImage::decode(&image().encode().unwrap()).unwrap();
    let before = image().run;
    let after = decoded.run;
    assert_eq!(after.rows(), 3);
    assert_eq!((after.min_sequence(), after.max_sequence()), (9, 11));
    assert_eq!((after.deletes(), after.unique()), (1, true));
    for (a, b) in before.batches().zip(after.batches()) {
        assert_eq!((a.ids(), a.arrays()), (b.ids(), b.arrays()));
        for row in 0..a.rows() {
            assert_eq!(a.stamps().sequences.at(row), b.stamps().sequences.at(row));
            assert_eq!(b.stamps().epochs.at(row), 3);
            assert_eq!(a.stamps().ops.deletes_at(row), b.stamps().ops.deletes_at(row));
        }
    }
}

#[test]
fn bytes_of_no_run_image_are_refused() {
    let bytes = image().encode().unwrap();
    for length in (0..bytes.len()).step_by(11) {
        // A stream that is cut at the end of a batch is a shorter stream; a snapshot file has
        // checksums.
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

#[test]
fn pieces_of_an_image_join_to_the_run() {
    let ids: Arc<[ColumnId]> = [ColumnId(1)].into();
    let batch = |from: i32, rows: i32| {
        let keys: ArrayRef = Arc::new(Int32Array::from_iter_values(from..from + rows));
        let sequences = UInt64Array::from_iter_values((from..from + rows).map(|n| n as u64 + 1));
        let stamps = Stamps {
            sequences: Numbers::Each(sequences),
            epochs: Numbers::All(0),
            ops: Ops::All(RowOp::Put),
        };
        RowVersions::new(ids.clone(), vec![keys], rows as usize, stamps)
    };
    // One batch that must be split, then small ones that are combined.
    let batches = vec![batch(0, 1_000), batch(1_000, 1), batch(1_001, 1), batch(1_002, 1)];
    let whole = RunImage { run: Arc::new(Run::from_batches(batches, true).unwrap()) };
    let keys = |image: &RunImage| -> Vec<i32> {
        let arrays = image.run.batches().map(|rows| rows.arrays()[0].clone());
        arrays.flat_map(|array| array.as_primitive::<Int32Type>().values().to_vec()).collect()
    };
    for limit in [0, 1_000, 8_000, usize::MAX] {
        let pieces = whole.pieces(limit);
        let encoded: Vec<usize> =
            pieces.iter().map(|piece| piece.encode().unwrap().len()).collect();
        match limit {
            0 => assert_eq!(pieces.len(), 1_003),
            usize::MAX => assert_eq!(pieces.len(), 1),
            // The stream's own messages take about 1,000 bytes.
            _ => assert!(encoded.iter().all(|bytes| *bytes < limit + 2_000), "{encoded:?}"),
        }
        let decoded: Vec<RunImage> = pieces
            .iter()
            .map(|piece| RunImage::decode(&piece.encode().unwrap()).unwrap())
            .collect();
        let joined = RunImage::join(&decoded).unwrap();
        assert_eq!(keys(&joined), (0..1_003).collect::<Vec<_>>(), "limit {limit}");
        assert_eq!((joined.run.min_sequence(), joined.run.max_sequence()), (1, 1_003));
        assert!(joined.run.unique());
        assert_eq!(joined.rows(), whole.rows());
    }
    assert!(RunImage::join(&[]).is_none());
}

// Frozen: these bytes are in snapshot files. If a library starts to write other bytes, these must
// remain readable: keep them, and add the new ones.
#[test]
fn run_image_encoding_is_frozen() {
    let golden: String = include_str!("image_golden.hex").split_whitespace().collect();
    let bytes = image().encode().unwrap();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, golden);
    let golden: Vec<u8> = (0..golden.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&golden[at..at + 2], 16).unwrap())
        .collect();
    let decoded = RunImage::decode(&golden.into()).unwrap();
    assert_eq!((decoded.rows(), decoded.run.deletes(), decoded.run.unique()), (3, 1, true));
    assert_eq!((decoded.run.min_sequence(), decoded.run.max_sequence()), (9, 11));
    let ids: Vec<u32> = decoded.run.batch(0).unwrap().ids().iter().map(|id| id.get()).collect();
    assert_eq!(ids, [1, 7]);
}
