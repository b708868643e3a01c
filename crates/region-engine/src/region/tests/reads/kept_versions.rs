//! Counts of the row versions that a region keeps for reads as of older epochs.

mod expired;
mod files;
mod histories;

use std::collections::BTreeSet;

use arrow::array::AsArray;
use arrow::datatypes::Int32Type;
use tidewater_common::ids::Epoch;
use tidewater_common::keys::KeyRange;
use tidewater_common::schema::WriteMode;

use crate::Region;
use crate::compaction::Scope;
use crate::read::RowOrder;
use crate::read::context::ReadContext;
use crate::read::memory::ScanAccount;
use crate::read::ranges::KeyRanges;
use crate::read::scan::SourceOptions;
use crate::read::shape::Carried;
use crate::region::tests::fixture::*;
use crate::storage::Storage;

/// Number of readable epochs that no test reaches.
const ALL_READABLE: u64 = 1_000;

fn key(number: u8) -> Key {
    ("k".to_owned(), i32::from(number))
}

fn rows(numbers: impl IntoIterator<Item = u8>, note: &str) -> Vec<Row> {
    numbers.into_iter().map(|number| (key(number), None, note.to_owned())).collect()
}

async fn kept<const N: usize>(region: &Region, sinces: [u64; N]) -> Vec<u64> {
    region.kept_versions(&sinces.map(Epoch), &ScanAccount::default()).await.unwrap()
}

/// A row version of a region.
#[derive(Debug, Clone, PartialEq, Eq)]
struct StoredVersion {
    key: Key,
    epoch: u64,
    is_delete: bool,
}

/// Returns all row versions of a region: by key, and within a key newest first.
async fn stored_versions(region: &Region) -> Vec<StoredVersion> {
    let pinned = region.pin(None, None).unwrap();
    let carried = Carried::new(&pinned.shape.schema, &[NAME, NUMBER]).unwrap();
    let ranges = KeyRanges::one(&KeyRange::whole(), &KeyRange::whole());
    let context = ReadContext { yields_epochs: true, ..ReadContext::default() };
    let account = ScanAccount::default();
    let options = SourceOptions { batch_rows: 5, order: RowOrder::Key, account };
    let scan = region.open_scan(pinned, &carried, &ranges, options, &context).unwrap();
    let mut scan = scan.with_all_versions().with_deletes();
    let mut versions = Vec::new();
    while let Some(rows) = scan.next().await.unwrap() {
        let names = rows.column(NAME).unwrap().as_string::<i32>();
        let numbers = rows.column(NUMBER).unwrap().as_primitive::<Int32Type>();
        versions.extend((0..rows.rows()).map(|row| StoredVersion {
            key: (names.value(row).to_owned(), numbers.value(row)),
            epoch: rows.stamps().epochs.at(row),
            is_delete: rows.stamps().ops.deletes_at(row),
        }));
    }
    versions
}

/// Counts the versions that reads as of `since` or later may return, key by key: one of each later epoch, and the
/// newest one up to `since`, if that is not a delete.
fn expected(versions: &[StoredVersion], since: u64) -> u64 {
    let of_key = |versions: &[StoredVersion]| {
        let later = versions.iter().map(|version| version.epoch).filter(|epoch| *epoch > since);
        let later: BTreeSet<u64> = later.collect();
        let settled = versions.iter().find(|version| version.epoch <= since);
        later.len() as u64 + u64::from(settled.is_some_and(|version| !version.is_delete))
    };
    versions.chunk_by(|one, next| one.key == next.key).map(of_key).sum()
}

/// Checks the counts of all epochs against the stored versions.
async fn check(fixture: &RegionFixture) {
    let versions = stored_versions(&fixture.region).await;
    let sinces: Vec<Epoch> = (0..=fixture.epoch + 1).rev().map(Epoch).collect();
    let account = ScanAccount::default();
    let counts = fixture.region.kept_versions(&sinces, &account).await.unwrap();
    let expected: Vec<u64> = sinces.iter().map(|since| expected(&versions, since.get())).collect();
    assert_eq!(counts, expected, "{sinces:?}: {versions:#?}");
}

/// Compacts the region as of an epoch. Returns the number of versions that are left in files.
async fn compacted(fixture: &mut RegionFixture, since: u64) -> u64 {
    fixture.since = since;
    fixture.region.advance_since(Epoch(since));
    fixture.region.flush().await.unwrap();
    fixture.compact(Scope::Whole).await;
    fixture.region.stats().file_rows
}

#[tokio::test]
async fn append_only_region_keeps_all_rows() {
    let mut fixture = RegionFixture::new(Storage::memory(), WriteMode::AppendOnly, false).await;
    for round in 0..4 {
        fixture.put(&rows(0..10, "appended"));
        // The last rows stay in memory.
        if round < 3 {
            fixture.region.flush().await.unwrap();
        }
        fixture.begin_epoch(ALL_READABLE);
    }
    assert_eq!(kept(&fixture.region, [0, 2, 9]).await, [40; 3]);
    assert_eq!(compacted(&mut fixture, 3).await, 40);
    assert_eq!(kept(&fixture.region, [0, 2, 9]).await, [40; 3]);
}

#[tokio::test]
async fn counts_are_in_the_order_of_requested_epochs() {
    let mut fixture = RegionFixture::new(Storage::memory(), WriteMode::Upsert, false).await;
    for _ in 0..3 {
        fixture.put(&rows(0..2, "overwritten"));
        fixture.begin_epoch(ALL_READABLE);
    }
    for is_flushed in [false, true] {
        if is_flushed {
            fixture.region.flush().await.unwrap();
        }
        let region = &fixture.region;
        assert_eq!(kept(region, [1, 9, 0, 1, 2]).await, [4, 2, 6, 4, 2], "flushed: {is_flushed}");
        assert_eq!(kept(region, [1]).await, [4], "flushed: {is_flushed}");
        assert_eq!(kept(region, []).await, [0_u64; 0], "flushed: {is_flushed}");
    }
}

// The rows of both writes are the only versions of their keys, so that no merge decides.
#[tokio::test]
async fn delete_of_missing_row_counts_for_earlier_epochs() {
    let mut fixture = RegionFixture::new(Storage::memory(), WriteMode::Upsert, false).await;
    for _ in 0..3 {
        fixture.begin_epoch(ALL_READABLE);
    }
    fixture.put(&rows([1], "put"));
    fixture.delete(&[key(5)]);
    assert_eq!(kept(&fixture.region, [2, 3]).await, [2, 1]);
    assert_eq!(compacted(&mut fixture, 2).await, 2);
    assert_eq!(kept(&fixture.region, [2, 3]).await, [2, 1]);
    assert_eq!(compacted(&mut fixture, 3).await, 1);
    assert_eq!(kept(&fixture.region, [2, 3]).await, [1, 1]);
}
