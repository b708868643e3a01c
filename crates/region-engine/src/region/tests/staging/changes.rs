//! Comparison of a region with the rows that are staged in an area.

mod content;
mod errors;
mod memory;
mod values;

use tidewater_common::keys::KeyRange;
use tidewater_common::schema::WriteMode;

use crate::manifest::AreaId;
use crate::region::tests::fixture::*;
use crate::region::{ChangeChunk, ChangeCounts, ChangeError, ChangeOptions};
use crate::storage::Storage;

fn key(n: i32) -> Key {
    (format!("k{}", n % 3), n)
}

/// Rows with these numbers, in any key order.
fn rows(numbers: impl IntoIterator<Item = i32>) -> Vec<Row> {
    let row = |n: i32| (key(n), (n % 5 != 0).then_some(i64::from(n)), format!("row {n}"));
    numbers.into_iter().map(row).collect()
}

fn changed(mut row: Row) -> Row {
    row.1 = row.1.map_or(Some(-1), |_| None);
    row
}

async fn fixture(hashed: bool) -> RegionFixture {
    RegionFixture::new(Storage::memory(), WriteMode::Upsert, hashed).await
}

/// Opens an area with files of these rows.
async fn area_of(fixture: &mut RegionFixture, files: &[Vec<Row>]) -> AreaId {
    let area = fixture.open_area();
    fixture.region.record_obligations().await.unwrap();
    for rows in files {
        let files = bulk_files(&fixture.storage, &fixture.spec, rows).await;
        fixture.region.stage_files(area, &files).await.unwrap();
    }
    area
}

fn whole() -> ChangeOptions {
    let range = KeyRange::whole();
    ChangeOptions { range, after: None, chunk_rows: usize::MAX, chunk_bytes: usize::MAX }
}

async fn changes(
    fixture: &RegionFixture,
    area: AreaId,
    options: ChangeOptions,
) -> Result<Vec<ChangeChunk>, ChangeError> {
    let mut stream = fixture.region.staged_changes(area, options).await?;
    let mut chunks = Vec::new();
    while let Some(chunk) = stream.next().await? {
        assert!(chunks.last().is_none_or(|last: &ChangeChunk| !last.is_last));
        chunks.push(chunk);
    }
    assert!(chunks.last().is_some_and(|last| last.is_last));
    Ok(chunks)
}

/// Compares anew after each chunk, as owners do that are killed then.
async fn resumed_changes(
    fixture: &RegionFixture,
    area: AreaId,
    options: ChangeOptions,
) -> Result<Vec<ChangeChunk>, ChangeError> {
    let mut chunks: Vec<ChangeChunk> = Vec::new();
    while chunks.last().is_none_or(|last| !last.is_last) {
        let after = chunks.last().map(|chunk| chunk.reached.clone());
        let options = ChangeOptions { after, ..options.clone() };
        let mut stream = fixture.region.staged_changes(area, options).await?;
        chunks.extend(stream.next().await?);
    }
    Ok(chunks)
}

fn total(chunks: &[ChangeChunk]) -> ChangeCounts {
    chunks.iter().map(|chunk| chunk.counts).fold(ChangeCounts::default(), |a, b| a + b)
}

fn deleted_keys(chunk: &ChangeChunk) -> Vec<Key> {
    use arrow::array::AsArray;
    use arrow::datatypes::Int32Type;
    let names = chunk.deletes.column(0).as_string::<i32>();
    let numbers = chunk.deletes.column(1).as_primitive::<Int32Type>();
    (0..chunk.deletes.num_rows())
        .map(|row| (names.value(row).to_owned(), numbers.value(row)))
        .collect()
}

/// Writes the changes, as a refresh does.
fn write(fixture: &mut RegionFixture, chunks: &[ChangeChunk]) {
    for chunk in chunks {
        assert_eq!(chunk.puts.schema(), fixture.spec.schema.arrow());
        assert_eq!(chunk.deletes.schema(), fixture.spec.schema.key_arrow());
        fixture.put(&rows_of(&chunk.puts));
        fixture.delete(&deleted_keys(chunk));
    }
}

/// Checks that the region has these rows.
async fn check_rows(fixture: &RegionFixture, rows: &[Row]) {
    fixture.check().await;
    let mut found = fixture.expected_rows();
    found.sort();
    let mut expected = rows.to_vec();
    expected.sort();
    assert_eq!(found, expected);
}

/// Fills a region with the rows 0 to 199, in overlapping files and in memory; 60 to 69 are deleted.
async fn fill(fixture: &mut RegionFixture) -> Vec<Row> {
    fixture.put(&rows(0..120));
    fixture.region.flush().await.unwrap();
    // Overwritten later.
    fixture.put(&rows(100..160).into_iter().map(changed).collect::<Vec<_>>());
    fixture.delete(&(60..65).map(key).collect::<Vec<_>>());
    fixture.region.flush().await.unwrap();
    fixture.put(&rows(100..200));
    fixture.delete(&(65..70).map(key).collect::<Vec<_>>());
    rows((0..60).chain(70..200))
}

/// Rows of a source in which 20 keys are new, 30 differ and 40 are lacking, in three overlapping files.
fn source(filled: &[Row]) -> [Vec<Row>; 3] {
    let mut files: [Vec<Row>; 3] = Default::default();
    let kept = filled.iter().skip(40).cloned().enumerate();
    let kept = kept.map(|(at, row)| if at % 5 == 0 { changed(row) } else { row });
    for (at, row) in kept.chain(rows(195..220).into_iter().skip(5)).enumerate() {
        files[at % 3].push(row);
    }
    files
}
