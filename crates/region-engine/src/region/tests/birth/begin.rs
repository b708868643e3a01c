//! First deltas, and reads before and after them.

use std::sync::Arc;

use tidewater_common::ids::{Epoch, ManifestVersion, RegionId, Sequence};
use tidewater_common::keys::KeyRange;
use tidewater_common::schema::WriteMode;

use crate::region::tests::fixture::*;
use crate::region::{Parent, ParentProblem, Phase};
use crate::storage::Operation;
use crate::storage::Storage;
use crate::storage::testing::{Fault, FaultyStore};
use crate::{EngineError, Region, RegionSpec, RowOp, RowsWrite};

pub(super) fn rows(numbers: std::ops::Range<i32>) -> Vec<Row> {
    numbers.map(|n| (("k".to_owned(), n), Some(i64::from(n)), format!("row {n}"))).collect()
}

/// A region with rows 0 to 19 in a file.
pub(super) async fn fixture(storage: Storage) -> RegionFixture {
    let mut fixture = RegionFixture::new(storage, WriteMode::Upsert, false).await;
    fixture.put(&rows(0..20));
    fixture.region.flush().await.unwrap();
    fixture
}

/// Seals a region and returns it as a parent.
pub(super) async fn seal(region: &Region) -> Parent {
    let sealed_at = region.set_range(sealed_range(), None).await.unwrap();
    Parent { dir: region.dir, sealed_at, last_sequence: region.last_sequence() }
}

/// Opens a replica of a region that begins with these parents.
pub(super) fn child(
    fixture: &RegionFixture,
    id: u64,
    range: &KeyRange,
    parents: &[Parent],
) -> Arc<Region> {
    let spec = RegionSpec {
        region_id: RegionId(id),
        range: range.clone(),
        parents: parents.to_vec(),
        ..fixture.spec.clone()
    };
    Region::new(fixture.env(), spec, Sequence(100), Sequence(0)).unwrap()
}

/// Returns the ranges below and from the key of row 7.
pub(super) fn halves(fixture: &RegionFixture) -> [KeyRange; 2] {
    let cut = row_key(&fixture.spec, &("k".to_owned(), 7));
    [KeyRange::new(Vec::new(), Some(cut.clone())), KeyRange::new(cut, None)]
}

fn write(region: &Region, sequence: u64, op: RowOp, numbers: std::ops::Range<i32>) {
    let rows = rows(numbers);
    let batch = match op {
        RowOp::Put => put_batch(&rows, region.spec()),
        RowOp::Delete => {
            let keys: Vec<Key> = rows.iter().map(|row| row.0.clone()).collect();
            delete_batch(&keys, region.spec())
        }
    };
    let sequence = Sequence(sequence);
    region.apply(RowsWrite { sequence, epoch: Epoch(0), op, batch }).unwrap();
}

async fn problem(child: &Region) -> ParentProblem {
    match child.begin().await {
        Err(EngineError::NotBorn { region, problem, .. }) => {
            assert_eq!(region, child.id());
            problem
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn split_children_reference_their_parts_of_parent_files() {
    let fixture = fixture(Storage::memory()).await;
    let parent = seal(&fixture.region).await;
    for ((id, range), numbers) in (20..).zip(halves(&fixture)).zip([0..7, 7..20]) {
        let first = child(&fixture, id, &range, &[parent]);
        let version = first.begin().await.unwrap();
        assert_eq!(version, ManifestVersion(1));
        let second = child(&fixture, id, &range, &[parent]);
        for replica in [&first, &second] {
            assert_eq!(replica.begin().await.unwrap(), version);
        }
        first.take_ownership(owner(1), GROUP).await.unwrap();
        assert_eq!(first.flushed_sequence(), fixture.region.flushed_sequence());
        assert_eq!(scan(&first, &all()).await.unwrap(), rows(numbers));
        assert!(first.files().into_iter().all(|file| file.clip == range));
    }
}

#[tokio::test]
async fn merged_region_has_files_of_both_parents() {
    let whole = fixture(Storage::memory()).await;
    let parent = seal(&whole.region).await;
    let mut parents = Vec::new();
    for (id, range) in (20..).zip(halves(&whole)) {
        let half = child(&whole, id, &range, &[parent]);
        half.take_ownership(owner(1), GROUP).await.unwrap();
        parents.push(seal(&half).await);
    }
    let merged = child(&whole, 22, &KeyRange::whole(), &parents);
    merged.load().await.unwrap();
    assert_eq!(scan(&merged, &all()).await.unwrap(), whole.expected_rows());
    merged.begin().await.unwrap();
    // The halves of the file that was split are joined.
    assert_eq!(merged.files(), whole.region.files());
    assert_eq!(scan(&merged, &all()).await.unwrap(), whole.expected_rows());
    let again = child(&whole, 22, &KeyRange::whole(), &parents);
    assert_eq!(again.take_ownership(owner(1), GROUP).await.unwrap(), ManifestVersion(2));
    let reversed: Vec<Parent> = parents.into_iter().rev().collect();
    let other = child(&whole, 22, &KeyRange::whole(), &reversed);
    assert_eq!(problem(&other).await, ParentProblem::OtherBeginning);
}

#[tokio::test]
async fn unborn_child_reads_files_of_its_parent() {
    let fixture = fixture(Storage::memory()).await;
    let parent = seal(&fixture.region).await;
    let [_, range] = halves(&fixture);
    let replica = child(&fixture, 20, &range, &[parent]);
    assert!(matches!(replica.scan(&all()), Err(EngineError::Loading { .. })));
    assert_eq!(replica.load().await.unwrap(), ManifestVersion(0));
    assert_eq!(replica.stats().phase, Phase::Following);
    write(&replica, 200, RowOp::Put, 20..25);
    write(&replica, 210, RowOp::Delete, 7..10);
    let expected = rows(10..25);
    assert_eq!(scan(&replica, &all()).await.unwrap(), expected);
    assert_eq!(replica.load().await.unwrap(), ManifestVersion(0), "no other replica has begun");
    let keys = key_batch(&[("k".to_owned(), 3), ("k".to_owned(), 12)], &fixture.spec);
    assert_eq!(replica.get(&keys, &[NOTE]).await.unwrap().num_rows(), 1);
    child(&fixture, 20, &range, &[parent]).begin().await.unwrap();
    assert_eq!(scan(&replica, &all()).await.unwrap(), expected);
    assert_eq!(replica.load().await.unwrap(), ManifestVersion(1));
    assert_eq!(scan(&replica, &all()).await.unwrap(), expected);
}

/// Reads go on at the leader's index of the division, where nothing waits for the store.
#[tokio::test]
async fn child_shows_files_of_sealed_parent_without_io() {
    let fixture = fixture(Storage::memory()).await;
    let follower = fixture.log_replica();
    follower.load().await.unwrap();
    let parent = seal(&fixture.region).await;
    let [range, _] = halves(&fixture);
    let replica = child(&fixture, 20, &range, &[parent]);
    assert!(!replica.show_files_of(&[]));
    assert!(!replica.show_files_of(&[&follower]), "it has not read the seal");
    assert!(matches!(replica.scan(&all()), Err(EngineError::Loading { .. })));
    assert!(replica.show_files_of(&[&fixture.region]));
    assert_eq!(scan(&replica, &all()).await.unwrap(), rows(0..7));
}

/// An unborn child's files never replace a version of its own manifest.
#[tokio::test]
async fn slow_load_does_not_restore_parent_files() {
    let fixture = fixture(Storage::memory()).await;
    let parent = seal(&fixture.region).await;
    let [_, range] = halves(&fixture);
    let replica = child(&fixture, 20, &range, &[parent]);
    let beginning = replica.read_beginning().await.unwrap().unwrap();
    replica.take_ownership(owner(1), GROUP).await.unwrap();
    write(&replica, 200, RowOp::Put, 20..25);
    let version = replica.flush().await.unwrap().manifest_version;
    assert_eq!(replica.install_beginning(&beginning), version);
    assert_eq!(scan(&replica, &all()).await.unwrap(), rows(7..25));
}

#[tokio::test]
async fn child_with_unreadable_parent_is_loading() {
    let store = FaultyStore::new();
    let fixture = fixture(store.storage()).await;
    let parent = seal(&fixture.region).await;
    let [range, _] = halves(&fixture);
    let replica = child(&fixture, 20, &range, &[parent]);
    let directory = parent.dir.manifest();
    store.plan(move |call| {
        let is_parent = call.path.as_ref().starts_with(directory.as_ref());
        let is_read = matches!(call.operation, Operation::Get | Operation::List);
        if is_parent && is_read { Fault::ErrorBefore } else { Fault::None }
    });
    write(&replica, 200, RowOp::Put, 0..3);
    assert!(matches!(replica.load().await, Err(EngineError::Storage(_))));
    assert!(replica.take_ownership(owner(1), GROUP).await.is_err());
    // Not the rows in memory alone.
    assert!(matches!(replica.scan(&all()), Err(EngineError::Loading { .. })));
    store.plan(|_| Fault::None);
    replica.load().await.unwrap();
    assert_eq!(scan(&replica, &all()).await.unwrap(), rows(0..7));
}

#[tokio::test]
async fn ownership_of_child_follows_its_first_delta() {
    let fixture = fixture(Storage::memory()).await;
    let parent = seal(&fixture.region).await;
    let [range, _] = halves(&fixture);
    let region = child(&fixture, 20, &range, &[parent]);
    write(&region, 200, RowOp::Delete, 2..4);
    assert_eq!(region.take_ownership(owner(1), GROUP).await.unwrap(), ManifestVersion(2));
    let expected = [rows(0..2), rows(4..7)].concat();
    assert_eq!(scan(&region, &all()).await.unwrap(), expected);
    // Deletes are kept: the rows that they hide are in the parent's files.
    assert_eq!(region.flush().await.unwrap().rows, 2);
    let reopened = child(&fixture, 20, &range, &[parent]);
    reopened.load().await.unwrap();
    assert_eq!(scan(&reopened, &all()).await.unwrap(), expected);
}

#[tokio::test]
async fn manifest_without_files_of_the_parent_is_refused() {
    let fixture = fixture(Storage::memory()).await;
    let parent = seal(&fixture.region).await;
    let [range, _] = halves(&fixture);
    let without = child(&fixture, 20, &range, &[]);
    without.take_ownership(owner(1), GROUP).await.unwrap();
    let region = child(&fixture, 20, &range, &[parent]);
    assert_eq!(problem(&region).await, ParentProblem::OtherBeginning);
    for result in [region.load().await, region.take_ownership(owner(2), GROUP).await] {
        assert!(matches!(result, Err(EngineError::NotBorn { .. })), "{result:?}");
    }
    assert!(matches!(region.scan(&all()), Err(EngineError::Loading { .. })));
}

#[tokio::test]
async fn child_of_unsuitable_parent_is_refused() {
    let mut fixture = fixture(Storage::memory()).await;
    let sealed = seal(&fixture.region).await;
    let range = KeyRange::whole();
    let region = child(&fixture, 20, &range, &[sealed]);
    // The seal was abandoned, and the region written and sealed again.
    fixture.region.set_range(KeyRange::whole(), None).await.unwrap();
    let expected = sealed.sealed_at;
    assert_eq!(problem(&region).await, ParentProblem::NotSealed { expected, found: None });
    fixture.put(&rows(20..30));
    fixture.region.flush().await.unwrap();
    let again = seal(&fixture.region).await;
    let found = Some(again.sealed_at);
    assert_eq!(problem(&region).await, ParentProblem::NotSealed { expected, found });
    let unwritten = Parent { dir: region.dir, ..sealed };
    let grandchild = child(&fixture, 21, &range, &[unwritten]);
    assert_eq!(problem(&grandchild).await, ParentProblem::ManifestEmpty);
    assert_eq!(grandchild.stats().manifest_version, ManifestVersion(0));
    let fits = child(&fixture, 22, &range, &[again]);
    assert_eq!(fits.begin().await.unwrap(), ManifestVersion(1));
}

#[tokio::test]
async fn parent_is_removed_after_its_children_are_born() {
    let fixture = fixture(Storage::memory()).await;
    let parent = seal(&fixture.region).await;
    let children: Vec<Arc<Region>> = (20..)
        .zip(halves(&fixture))
        .map(|(id, range)| child(&fixture, id, &range, &[parent]))
        .collect();
    let dirs: Vec<_> = children.iter().map(|child| child.dir).collect();
    let sealed = fixture.region.remove().await.unwrap_err();
    assert!(matches!(sealed, EngineError::Refused { .. }), "{sealed}");
    for unborn in &children {
        let error = fixture.region.remove_parent(&dirs).await.unwrap_err();
        let named = matches!(error, EngineError::ChildUnborn { child, .. } if child == unborn.id());
        assert!(named, "{error}");
        unborn.begin().await.unwrap();
    }
    // Replicas that have read neither manifest yet, or only the parent's.
    let late = child(&fixture, 20, &children[0].spec().range, &[parent]);
    fixture.region.remove_parent(&dirs).await.unwrap();
    fixture.region.remove_parent(&dirs).await.unwrap();
    late.load().await.unwrap();
    for (region, numbers) in children.iter().chain([&late]).zip([0..7, 7..20, 0..7]) {
        assert_eq!(region.begin().await.unwrap(), ManifestVersion(1));
        assert_eq!(scan(region, &all()).await.unwrap(), rows(numbers));
    }
    let orphan = child(&fixture, 23, &KeyRange::whole(), &[parent]);
    assert_eq!(problem(&orphan).await, ParentProblem::Removed);
    assert!(matches!(orphan.load().await, Err(EngineError::NotBorn { .. })));
}
