use std::collections::BTreeMap;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int32Array, Int64Array, StringArray};
use arrow::datatypes::{Float64Type, Int32Type, Int64Type};
use proptest::prelude::*;
use tidewater_common::ids::{ColumnId, SchemaVersion};
use tidewater_common::rows::bytes_of;
use tidewater_common::schema::{Column, ColumnType, TableOptions, TableSchema};

use super::*;
use crate::region::ChangeCounts;

type Key = (i32, String);
/// A number and the bits of a float.
type Values = (Option<i64>, Option<u64>);
type Contents = BTreeMap<Key, Values>;

const UNLIMITED: ChunkLimits = ChunkLimits { rows: usize::MAX, bytes: usize::MAX };

fn shape() -> Arc<TableShape> {
    let column = |id, name: &str, data_type, nullable| Column {
        id: ColumnId(id),
        name: name.to_owned(),
        data_type,
        nullable,
        default: None,
    };
    let columns = vec![
        column(1, "number", ColumnType::Int64, true),
        column(2, "b", ColumnType::Utf8, false),
        column(3, "float", ColumnType::Float64, true),
        column(4, "a", ColumnType::Int32, false),
    ];
    let key = vec![ColumnId(4), ColumnId(2)];
    let schema = TableSchema::new(SchemaVersion(1), columns, key, None, ColumnId(5)).unwrap();
    Arc::new(TableShape::new(schema, TableOptions::upsert()).unwrap())
}

fn batch(shape: &TableShape, rows: &[(Key, Values)]) -> RecordBatch {
    let floats = rows.iter().map(|(_, values)| values.1.map(f64::from_bits));
    let arrays: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter(rows.iter().map(|(_, values)| values.0))),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|(key, _)| &key.1))),
        Arc::new(Float64Array::from_iter(floats)),
        Arc::new(Int32Array::from_iter_values(rows.iter().map(|(key, _)| key.0))),
    ];
    RecordBatch::try_new(shape.schema.arrow(), arrays).unwrap()
}

fn row_key(shape: &TableShape, key: &Key) -> Vec<u8> {
    let rows = batch(shape, &[(key.clone(), (None, None))]);
    shape.codec.row_key(&shape.codec.key_columns(&rows), 0).unwrap()
}

fn put_rows(chunk: &ChangeChunk) -> Vec<(Key, Values)> {
    let columns = chunk.puts.columns();
    let numbers = columns[0].as_primitive::<Int64Type>();
    let floats = columns[2].as_primitive::<Float64Type>();
    let row = |row: usize| {
        let key = (
            columns[3].as_primitive::<Int32Type>().value(row),
            columns[1].as_string::<i32>().value(row).to_owned(),
        );
        let number = numbers.is_valid(row).then(|| numbers.value(row));
        (key, (number, floats.is_valid(row).then(|| floats.value(row).to_bits())))
    };
    (0..chunk.puts.num_rows()).map(row).collect()
}

fn deleted_keys(chunk: &ChangeChunk) -> Vec<Key> {
    let numbers = chunk.deletes.column(0).as_primitive::<Int32Type>();
    let texts = chunk.deletes.column(1).as_string::<i32>();
    (0..chunk.deletes.num_rows())
        .map(|row| (numbers.value(row), texts.value(row).to_owned()))
        .collect()
}

/// Rows of a side, in batches of these sizes in turn.
fn batches(
    shape: &TableShape,
    rows: &[(Key, Values)],
    sizes: &[usize],
) -> std::vec::IntoIter<RecordBatch> {
    let mut batches = Vec::new();
    let mut rest = rows;
    for size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (rows, after) = rest.split_at(rest.len().min(*size));
        batches.push(batch(shape, rows));
        rest = after;
    }
    batches.into_iter()
}

/// Compares the rows after a key, in batches of these sizes.
fn compare(
    shape: &Arc<TableShape>,
    sides: [&[(Key, Values)]; 2],
    sizes: &[usize],
    limits: ChunkLimits,
    after: &[u8],
) -> Result<Vec<ChangeChunk>, ChangeError> {
    let mut chunks = Vec::new();
    compare_until(shape, sides, sizes, limits, after, |chunk| {
        chunks.push(chunk);
        false
    })?;
    Ok(chunks)
}

/// Compares the rows after a key until `take` returns true for a chunk.
fn compare_until(
    shape: &Arc<TableShape>,
    sides: [&[(Key, Values)]; 2],
    sizes: &[usize],
    limits: ChunkLimits,
    after: &[u8],
    mut take: impl FnMut(ChangeChunk) -> bool,
) -> Result<(), ChangeError> {
    let mut comparison = Comparison::new(shape.clone(), limits, after.to_vec());
    let mut sides = sides.map(|rows| {
        let is_after = |(key, _): &&(Key, Values)| row_key(shape, key).as_slice() > after;
        let rows: Vec<_> = rows.iter().filter(is_after).cloned().collect();
        batches(shape, &rows, sizes)
    });
    loop {
        match comparison.advance()? {
            CompareStep::Feed(name) => {
                let rows = sides[usize::from(name == SideName::Staged)].next();
                comparison.feed(name, rows.as_ref()).unwrap();
            }
            CompareStep::Chunk(chunk) => {
                if take(*chunk) {
                    return Ok(());
                }
            }
            CompareStep::Done => return Ok(()),
        }
    }
}

/// Compares all rows, anew after each chunk, as owners do that are killed then.
fn compare_resumed(
    shape: &Arc<TableShape>,
    sides: [&[(Key, Values)]; 2],
    sizes: &[usize],
    limits: ChunkLimits,
) -> Result<Vec<ChangeChunk>, ChangeError> {
    let mut chunks: Vec<ChangeChunk> = Vec::new();
    while chunks.last().is_none_or(|last| !last.is_last) {
        let after = chunks.last().map(|chunk| chunk.reached.clone()).unwrap_or_default();
        compare_until(shape, sides, sizes, limits, &after, |chunk| {
            chunks.push(chunk);
            true
        })?;
    }
    Ok(chunks)
}

fn rows_of(contents: &Contents) -> Vec<(Key, Values)> {
    contents.iter().map(|(key, values)| (key.clone(), *values)).collect()
}

fn total(chunks: &[ChangeChunk]) -> ChangeCounts {
    chunks.iter().map(|chunk| chunk.counts).fold(ChangeCounts::default(), |a, b| a + b)
}

/// Checks the chunks of a comparison of all rows against the contents of both sides.
fn check(region: &Contents, staged: &Contents, chunks: &[ChangeChunk]) {
    let puts: Vec<_> = chunks.iter().flat_map(put_rows).collect();
    let changed: Vec<_> =
        rows_of(staged).into_iter().filter(|(key, row)| region.get(key) != Some(row)).collect();
    assert_eq!(puts, changed);
    let deletes: Vec<_> = chunks.iter().flat_map(deleted_keys).collect();
    let lacking: Vec<_> = region.keys().filter(|key| !staged.contains_key(key)).cloned().collect();
    assert_eq!(deletes, lacking);
    let inserted = staged.keys().filter(|key| !region.contains_key(key)).count() as u64;
    let updated = changed.len() as u64 - inserted;
    let expected = ChangeCounts {
        inserted,
        updated,
        deleted: lacking.len() as u64,
        unchanged: staged.len() as u64 - inserted - updated,
    };
    assert_eq!(total(chunks), expected);
}

/// Checks that each chunk is within the limits and has the changes of the keys after the chunk before.
fn check_limits(shape: &TableShape, chunks: &[ChangeChunk], limits: ChunkLimits) {
    let mut before: &[u8] = &[];
    for (position, chunk) in chunks.iter().enumerate() {
        assert_eq!(chunk.is_last, position + 1 == chunks.len());
        let compared = total(std::slice::from_ref(chunk));
        let compared = compared.inserted + compared.updated + compared.deleted + compared.unchanged;
        assert!(compared <= limits.rows as u64, "{compared}");
        assert!(compared > 0 || chunks.len() == 1);
        let rows = chunk.puts.num_rows() + chunk.deletes.num_rows();
        let bytes: usize = [&chunk.puts, &chunk.deletes]
            .iter()
            .map(|batch| bytes_of(batch.columns(), 0..batch.num_rows()))
            .sum();
        assert!(rows <= 1 || bytes <= limits.bytes, "{rows} rows of {bytes} bytes");
        let changed = put_rows(chunk).into_iter().map(|(key, _)| key).chain(deleted_keys(chunk));
        for key in changed {
            let key = row_key(shape, &key);
            assert!(key.as_slice() > before && key <= chunk.reached, "{key:?}");
        }
        assert!(chunk.reached.as_slice() > before || compared == 0);
        before = &chunk.reached;
    }
}

fn contents(keys: u8) -> impl Strategy<Value = Contents> {
    let floats = [0.0, -0.0, f64::NAN, -f64::NAN, 1.5].map(f64::to_bits);
    let row = (
        (0..i32::from(keys), prop::sample::select(vec!["", "x", "a longer text"])),
        (prop::option::of(0..3_i64), prop::option::of(prop::sample::select(floats.to_vec()))),
    );
    let row = row.prop_map(|((a, b), values)| ((a, b.to_owned()), values));
    prop::collection::btree_map(row.clone().prop_map(|(key, _)| key), row.prop_map(|r| r.1), 0..90)
}

proptest! {
    #[test]
    fn comparison_agrees_with_model(
        region in contents(40),
        staged in contents(40),
        // Usually, most rows are equal.
        kept in prop::option::of(0..5_usize),
        sizes in prop::collection::vec(1..30_usize, 1..4),
        rows in 1..120_usize,
        bytes in prop::option::of(0..600_usize),
    ) {
        let shape = shape();
        let staged = match kept {
            None => staged,
            Some(kept) => {
                let mut changed = region.clone();
                changed.extend(staged.into_iter().take(kept));
                let lacking: Vec<Key> = changed.keys().step_by(17).cloned().collect();
                lacking.iter().take(kept).for_each(|key| { changed.remove(key); });
                changed
            }
        };
        let limits = ChunkLimits { rows, bytes: bytes.unwrap_or(usize::MAX) };
        let own = rows_of(&region);
        let other = rows_of(&staged);
        let chunks = compare(&shape, [&own, &other], &sizes, limits, &[]).unwrap();
        check(&region, &staged, &chunks);
        check_limits(&shape, &chunks, limits);
        for (position, chunk) in chunks.iter().enumerate() {
            let rest = compare(&shape, [&own, &other], &sizes, limits, &chunk.reached).unwrap();
            prop_assert_eq!(total(&rest), total(&chunks[position + 1..]));
            let puts: Vec<_> = rest.iter().flat_map(put_rows).collect();
            let expected: Vec<_> = chunks[position + 1..].iter().flat_map(put_rows).collect();
            prop_assert_eq!(puts, expected);
            prop_assert_eq!(&rest.last().unwrap().reached, &chunks.last().unwrap().reached);
        }
    }

    #[test]
    fn duplicate_key_is_found_in_any_batch(
        region in contents(40),
        staged in contents(40),
        shares_keys in any::<bool>(),
        sizes in prop::collection::vec(1..30_usize, 1..4),
        at in any::<prop::sample::Index>(),
    ) {
        prop_assume!(!staged.is_empty());
        let shape = shape();
        let mut rows = rows_of(&staged);
        let at = at.index(rows.len());
        let (key, _) = rows[at].clone();
        let region = if shares_keys { &staged } else { &region };
        rows.insert(at, (key.clone(), (Some(7), None)));
        let region = rows_of(region);
        let error = compare(&shape, [&region, &rows], &sizes, UNLIMITED, &[]).unwrap_err();
        let expected = format!("the source has the key (a={}, b='{}') more than once", key.0, key.1);
        prop_assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn resumed_comparison_finds_the_same_duplicates() {
    fn row(a: i32, number: i64) -> (Key, Values) {
        ((a, "x".to_owned()), (Some(number), None))
    }
    let shape = shape();
    let regions: [&[i32]; 3] = [&[], &[1, 2, 3], &[2]];
    let limits = (1..=4).map(|rows| ChunkLimits { rows, ..UNLIMITED });
    let limits: Vec<_> = limits.chain([ChunkLimits { bytes: 1, ..UNLIMITED }]).collect();
    for pattern in 0..27_i64 {
        // Between none and two rows of each of three keys.
        let counts = [(1, pattern % 3), (2, pattern / 3 % 3), (3, pattern / 9)];
        let rows = |(key, count): (i32, i64)| (0..count).map(move |number| row(key, number));
        let staged: Vec<_> = counts.into_iter().flat_map(rows).collect();
        let duplicate = counts.iter().find(|(_, count)| *count == 2).map(|(key, _)| *key);
        for region in regions {
            let region: Vec<_> = region.iter().map(|key| row(*key, 0)).collect();
            let sides: [&[(Key, Values)]; 2] = [&region, &staged];
            for (size, limits) in limits.iter().flat_map(|limits| [(1, *limits), (4, *limits)]) {
                let whole = compare(&shape, sides, &[size], limits, &[]);
                let resumed = compare_resumed(&shape, sides, &[size], limits);
                let Some(key) = duplicate else {
                    assert_eq!(resumed.unwrap(), whole.unwrap());
                    continue;
                };
                let expected = format!("the source has the key (a={key}, b='x') more than once");
                for found in [whole, resumed] {
                    assert_eq!(found.unwrap_err().to_string(), expected, "{limits:?}");
                }
            }
        }
    }
}

#[test]
fn region_rows_out_of_order_are_internal_error() {
    let shape = shape();
    let row = |a: i32| ((a, String::new()), (None, None));
    for rows in [[row(1), row(1)], [row(2), row(1)]] {
        let error = compare(&shape, [&rows, &[]], &[1], UNLIMITED, &[]).unwrap_err();
        assert!(matches!(error, ChangeError::Engine(EngineError::Internal { .. })), "{error}");
    }
    let error = compare(&shape, [&[], &[row(2), row(1)]], &[2], UNLIMITED, &[]).unwrap_err();
    assert!(matches!(error, ChangeError::Engine(EngineError::Internal { .. })), "{error}");
}

#[test]
fn chunk_ends_before_row_that_exceeds_its_bytes() {
    let shape = shape();
    let row = |a: i32, bytes: usize| ((a, "x".repeat(bytes)), (Some(1), None));
    let staged = [row(1, 10), row(2, 10), row(3, 1_000), row(4, 10), row(5, 10)];
    let limits = ChunkLimits { rows: 100, bytes: 100 };
    let chunks = compare(&shape, [&[], &staged], &[5], limits, &[]).unwrap();
    let rows: Vec<usize> = chunks.iter().map(|chunk| chunk.puts.num_rows()).collect();
    assert_eq!(rows, [2, 1, 2]);
    // Unchanged rows follow until the keys of the chunk are complete.
    let region: Vec<_> = staged.iter().filter(|(key, _)| key.0 != 3).cloned().collect();
    let chunks = compare(&shape, [&region, &staged], &[2], limits, &[]).unwrap();
    assert_eq!(chunks.len(), 1);
}

#[test]
fn empty_sides_give_one_empty_chunk() {
    let shape = shape();
    for after in [&b""[..], b"reached"] {
        let [chunk] =
            compare(&shape, [&[], &[]], &[1], UNLIMITED, after).unwrap().try_into().unwrap();
        assert!(chunk.is_last && chunk.reached == after);
        assert_eq!(chunk.counts, ChangeCounts::default());
        assert_eq!(chunk.puts, RecordBatch::new_empty(shape.schema.arrow()));
        assert_eq!(chunk.deletes, RecordBatch::new_empty(shape.schema.key_arrow()));
    }
}
