use arrow::array::{AsArray, Int32Array, StringArray, UInt8Array, UInt64Array};
use arrow::datatypes::Int32Type;
use tidewater_common::ids::SchemaVersion;
use tidewater_common::schema::{Column, ColumnType, TableOptions};

use super::*;
use crate::memory::MemoryBudget;
use crate::memtable::{HeldRun, RunImage};
use crate::read::shape::TableShape;

fn shape() -> TableShape {
    let column = |id, name: &str, data_type, nullable| Column {
        id: ColumnId(id),
        name: name.to_owned(),
        data_type,
        nullable,
        default: None,
    };
    let columns =
        vec![column(1, "key", ColumnType::Int32, false), column(2, "text", ColumnType::Utf8, true)];
    let schema =
        TableSchema::new(SchemaVersion(1), columns, vec![ColumnId(1)], None, ColumnId(3)).unwrap();
    TableShape::new(schema, TableOptions::upsert()).unwrap()
}

/// A run of the keys `0 .. 20`: batches of 5, 1, 8 and 6 rows. Every third row is a delete, and the
/// sequences of adjacent rows differ, except in the last batch.
fn run() -> Arc<Run> {
    let batch = |keys: Range<i32>| {
        let rows = keys.len();
        let texts = keys.clone().map(|key| "x".repeat(key as usize));
        let arrays: Vec<ArrayRef> = vec![
            Arc::new(Int32Array::from_iter_values(keys.clone())),
            Arc::new(StringArray::from_iter_values(texts)),
        ];
        let sequence = |key: i32| (key as u64 * 7) % 20 + 1;
        let sequences = match keys.start {
            14 => Numbers::All(50),
            _ => Numbers::Each(UInt64Array::from_iter_values(keys.clone().map(sequence))),
        };
        let codes = keys.map(|key| u8::from(key % 3 == 0));
        let ops = Ops::Each(UInt8Array::from_iter_values(codes));
        let stamps = Stamps { sequences, epochs: Numbers::All(0), ops };
        RowVersions::new([ColumnId(1), ColumnId(2)].into(), arrays, rows, stamps)
    };
    let batches = [0..5, 5..6, 6..14, 14..20].into_iter().map(batch).collect();
    Arc::new(Run::from_batches(batches, true).unwrap())
}

fn row_key(shape: &TableShape, key: i32) -> Vec<u8> {
    let keys: Vec<ArrayRef> = vec![Arc::new(Int32Array::from(vec![key]))];
    shape.codec.row_key(&keys, 0).unwrap()
}

fn keys_in(run: &Run) -> Vec<i32> {
    let keys = |rows: RowVersions| rows.arrays()[0].as_primitive::<Int32Type>().values().to_vec();
    run.batches().flat_map(keys).collect()
}

/// Summarizes a run by its rows; without their bytes.
fn summary_of_rows(run: &Run) -> RowsSummary {
    let (mut sequences, mut epochs) = (Vec::new(), Vec::new());
    let mut deletes = 0;
    for rows in run.batches() {
        let stamps = rows.stamps();
        sequences.extend((0..rows.rows()).map(|row| stamps.sequences.at(row)));
        epochs.extend((0..rows.rows()).map(|row| stamps.epochs.at(row)));
        deletes += stamps.ops.deletes(rows.rows());
    }
    RowsSummary {
        rows: sequences.len(),
        bytes: run.bytes(),
        deletes,
        min_sequence: sequences.iter().copied().min().unwrap(),
        max_sequence: sequences.iter().copied().max().unwrap(),
        max_epoch: epochs.iter().copied().max().unwrap(),
    }
}

#[test]
fn parts_of_a_run_have_its_rows_once() {
    let shape = shape();
    let run = run();
    let bound = |key: i32| (key < 25).then(|| row_key(&shape, key));
    let part = |run: &Arc<Run>, from: i32, to: i32| {
        let range = KeyRange { start: row_key(&shape, from), end: bound(to) };
        run.within(&range, &shape.schema, &shape.codec).unwrap()
    };
    // Cuts before, between and after all keys, and at every edge of a batch.
    for low in -1..22 {
        for high in low..26 {
            let expected: Vec<i32> = (low.max(0)..high.min(20)).collect();
            let middle = part(&run, low, high);
            let found = middle.as_ref().map_or_else(Vec::new, |middle| keys_in(middle));
            assert_eq!(found, expected, "{low}..{high}");
            let parts: Vec<Arc<Run>> =
                [part(&run, -5, low), middle, part(&run, high, 25)].into_iter().flatten().collect();
            let all: Vec<i32> = parts.iter().flat_map(|part| keys_in(part)).collect();
            assert_eq!(all, (0..20).collect::<Vec<_>>(), "{low}..{high}");
            // Nothing is counted twice, also not the bytes of a batch in two parts.
            assert_eq!(parts.iter().map(|part| part.bytes()).sum::<usize>(), run.bytes());
            for part in &parts {
                assert!(part.shares_rows(&run) && part.unique());
                assert_eq!(part.summary, summary_of_rows(part), "{low}..{high}");
                let keys = keys_in(part);
                let bounds = part.key_bounds(&shape.schema, &shape.codec).unwrap();
                let expected = (row_key(&shape, keys[0]), row_key(&shape, keys[keys.len() - 1]));
                assert_eq!(*bounds, expected, "{low}..{high}");
            }
        }
    }
}

#[test]
fn part_of_a_part_has_rows_of_both() {
    let shape = shape();
    let range = |from, to| KeyRange::new(row_key(&shape, from), Some(row_key(&shape, to)));
    let within = |run: &Arc<Run>, from, to| {
        run.within(&range(from, to), &shape.schema, &shape.codec).unwrap()
    };
    let run = run();
    let part = within(&run, 3, 12).unwrap();
    assert_eq!(keys_in(&within(&part, 7, 30).unwrap()), (7..12).collect::<Vec<_>>());
    assert_eq!(keys_in(&within(&part, -3, 4).unwrap()), [3]);
    assert!(within(&part, 12, 30).is_none() && within(&part, -3, 3).is_none());
    // A range that contains all rows changes nothing: the run itself is shared.
    assert!(Arc::ptr_eq(&within(&part, 3, 12).unwrap(), &part));
    assert!(Arc::ptr_eq(&within(&run, -3, 30).unwrap(), &run));
}

#[test]
fn rows_between_sequences_are_found_in_parts() {
    let shape = shape();
    let run = run();
    let range = KeyRange::new(row_key(&shape, 0), Some(row_key(&shape, 4)));
    // Sequences 1, 8, 15 and 2.
    let part = run.within(&range, &shape.schema, &shape.codec).unwrap().unwrap();
    for (above, through, expected) in
        [(0, 1, true), (2, 7, false), (8, 14, false), (8, 15, true), (15, 50, false)]
    {
        let found = part.has_rows_between(Sequence(above), Sequence(through));
        assert_eq!(found, expected, "{above}..={through}");
    }
    assert!(run.has_rows_between(Sequence(15), Sequence(50)));
    assert!(!run.has_rows_between(Sequence(50), Sequence(60)));
}

#[test]
fn image_of_a_part_has_its_rows_only() {
    let shape = shape();
    let range = KeyRange::new(row_key(&shape, 4), Some(row_key(&shape, 16)));
    let part = run().within(&range, &shape.schema, &shape.codec).unwrap().unwrap();
    let image = RunImage { run: part.clone() };
    let decoded = RunImage::decode(&image.encode().unwrap()).unwrap();
    assert_eq!(keys_in(&decoded.run), (4..16).collect::<Vec<_>>());
    assert_eq!((decoded.rows(), image.rows()), (12, 12));
    let before = summary_of_rows(&part);
    assert_eq!(RowsSummary { bytes: part.bytes(), ..summary_of_rows(&decoded.run) }, before);
    let pieces: Vec<RunImage> = image.pieces(150);
    assert!(pieces.len() > 2, "{pieces:?}");
    let joined = RunImage::join(&pieces).unwrap();
    assert_eq!(keys_in(&joined.run), (4..16).collect::<Vec<_>>());
}

#[test]
fn shared_rows_are_charged_until_last_part_is_dropped() {
    let shape = shape();
    let memory = MemoryBudget::new(1 << 20);
    let held = HeldRun::new(run(), &memory);
    let whole = run().bytes() as u64;
    let cut = row_key(&shape, 9);
    let low = held.within(&KeyRange::new(Vec::new(), Some(cut.clone())), &shape).unwrap().unwrap();
    let high = held.within(&KeyRange::new(cut, None), &shape).unwrap().unwrap();
    drop(held);
    assert_eq!((memory.used(), low.bytes() + high.bytes()), (whole, whole as usize));
    // A read in progress keeps the rows, but not their charge.
    let pinned = high.run().clone();
    drop(low);
    assert_eq!(memory.used(), whole);
    drop(high);
    assert_eq!(memory.used(), 0);
    assert_eq!(keys_in(&pinned), (9..20).collect::<Vec<_>>());
}
