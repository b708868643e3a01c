//! Divisions that are refused: no region is changed.

use std::sync::Arc;

use tidewater_common::ids::{Epoch, RegionId, Sequence, TableId};
use tidewater_common::keys::KeyRange;
use tidewater_common::schema::{HashDistribution, TableSchema, WriteMode};

use crate::region::tests::fixture::*;
use crate::region::{DivideError, SealedParent};
use crate::row_versions::RowOp;
use crate::storage::Storage;
use crate::{EngineError, Region, RegionSpec, RowsWrite};

fn row(number: i32) -> Row {
    (("k".to_owned(), number), Some(i64::from(number)), format!("row {number}"))
}

fn cut(spec: &RegionSpec) -> Vec<u8> {
    row_key(spec, &("k".to_owned(), 5))
}

fn low_range(spec: &RegionSpec) -> KeyRange {
    KeyRange::new(Vec::new(), Some(cut(spec)))
}

fn high_range(spec: &RegionSpec) -> KeyRange {
    KeyRange::new(cut(spec), None)
}

fn child(spec: &RegionSpec, id: u64, range: KeyRange) -> RegionSpec {
    RegionSpec { region_id: RegionId(id), range, ..spec.clone() }
}

/// Returns the specs of two children that have the range of the fixture's region.
fn children(spec: &RegionSpec) -> Vec<RegionSpec> {
    vec![child(spec, 20, low_range(spec)), child(spec, 21, high_range(spec))]
}

fn create(spec: RegionSpec) -> Arc<Region> {
    Region::new(env(Storage::memory()), spec, Sequence(0), Sequence(0)).unwrap()
}

/// A region with rows on both sides of the cut.
async fn fixture() -> RegionFixture {
    let mut fixture = RegionFixture::new(Storage::memory(), WriteMode::Upsert, false).await;
    fixture.put(&(0..10).map(row).collect::<Vec<_>>());
    fixture
}

/// Returns the error of a division; checks that the region is unchanged.
async fn refused(fixture: &RegionFixture, children: Vec<RegionSpec>) -> DivideError {
    let error = fixture.region.divide(Sequence(0), children).unwrap_err();
    fixture.check().await;
    assert_eq!(fixture.region.stats().memtable_rows, 10);
    error
}

#[tokio::test]
async fn division_is_refused_unless_children_have_the_range() {
    let fixture = fixture().await;
    let spec = &fixture.spec;
    let low = || child(spec, 20, low_range(spec));
    let high = || child(spec, 21, high_range(spec));
    let above = KeyRange::new(row_key(spec, &("k".to_owned(), 6)), None);
    for children in [
        vec![],
        vec![low()],
        vec![child(spec, 22, KeyRange::whole())],
        vec![low(), low()],
        vec![low(), high(), high()],
        vec![low(), child(spec, 23, above)],
    ] {
        let error = refused(&fixture, children).await;
        let by_range = matches!(error, DivideError::Ranges { region } if region == spec.region_id);
        assert!(by_range, "{error}");
    }
}

#[tokio::test]
async fn merge_is_refused_unless_parents_have_the_range() {
    let spec = spec(WriteMode::Upsert, false);
    let parent =
        |range| SealedParent { region: create(child(&spec, 20, range)), flushed: Sequence(0) };
    let low = parent(low_range(&spec));
    let whole = child(&spec, 30, KeyRange::whole());
    for parents in [
        vec![],
        vec![parent(KeyRange::whole())],
        vec![low.clone()],
        vec![low.clone(), low.clone()],
        vec![low, parent(KeyRange::whole())],
    ] {
        let error = Region::merge(&parents, whole.clone()).unwrap_err();
        assert!(matches!(error, DivideError::Ranges { region: RegionId(30) }), "{error}");
        assert!(parents.iter().all(|parent| !parent.region.contents.lock().divided));
    }
}

#[tokio::test]
async fn division_is_refused_with_pending_obligation() {
    let mut fixture = fixture().await;
    let children = children(&fixture.spec);
    fixture.alter(&[added("more")]);
    let error = refused(&fixture, children.clone()).await;
    let pending = matches!(
        error,
        DivideError::ObligationPending { region, sequence: Sequence(20) }
            if region == fixture.spec.region_id
    );
    assert!(pending, "{error}");
    assert_eq!(fixture.region.obligations().len(), 1);
    fixture.region.record_obligations().await.unwrap();
    fixture.region.divide(Sequence(0), children).unwrap();
}

#[tokio::test]
async fn obligation_that_the_owner_recorded_permits_division() {
    let mut fixture = fixture().await;
    let children = children(&fixture.spec);
    fixture.alter(&[added("more")]);
    fixture.region.drop_recorded_obligations(Sequence(19));
    refused(&fixture, children.clone()).await;
    fixture.region.drop_recorded_obligations(Sequence(20));
    fixture.region.divide(Sequence(0), children).unwrap();
}

#[tokio::test]
async fn division_is_refused_for_child_of_other_table() {
    let fixture = fixture().await;
    let spec = &fixture.spec;
    let [table, mode, hash, key] = [0, 1, 2, 3].map(|at: usize| {
        let mut children = children(spec);
        let child = &mut children[1];
        let hash = HashDistribution { columns: vec![NAME], vnode_count: 8 };
        match at {
            0 => child.table_id = TableId(4),
            1 => child.options.write_mode = WriteMode::AppendOnly,
            2 => child.options.hash = Some(hash),
            _ => child.schema = other_key(spec),
        }
        children
    });
    for children in [table, mode, hash, key] {
        let error = refused(&fixture, children).await;
        let by_table = matches!(
            error,
            DivideError::OtherTable { child: RegionId(21), parent } if parent == spec.region_id
        );
        assert!(by_table, "{error}");
    }
}

/// Returns the schema of a table with the same columns and another key.
fn other_key(spec: &RegionSpec) -> TableSchema {
    let schema = &spec.schema;
    let columns = schema.columns().to_vec();
    TableSchema::new(schema.version(), columns, vec![NUMBER, NAME], None, schema.next_column_id())
        .unwrap()
}

#[tokio::test]
async fn division_is_refused_for_closed_and_divided_regions() {
    let fixture = fixture().await;
    let children = children(&fixture.spec);
    fixture.region.divide(Sequence(0), children.clone()).unwrap();
    let error = fixture.region.divide(Sequence(0), children.clone()).unwrap_err();
    assert!(matches!(error, DivideError::Engine(EngineError::Divided { .. })), "{error}");
    let closed = create(fixture.spec.clone());
    closed.close();
    let error = closed.divide(Sequence(0), children).unwrap_err();
    assert!(matches!(error, DivideError::Engine(EngineError::Closed { .. })), "{error}");
}

#[tokio::test]
async fn divided_region_takes_no_entries_and_serves_no_reads() {
    let fixture = fixture().await;
    let region = &fixture.region;
    region.divide(Sequence(0), children(&fixture.spec)).unwrap();
    let is_divided = |result: Result<(), EngineError>| {
        matches!(result, Err(EngineError::Divided { region: RegionId(12) }))
    };
    let mut late = fixture.log[0].clone();
    late.sequence = Sequence(30);
    assert!(is_divided(region.apply(late)));
    assert!(is_divided(region.truncate(cause(Sequence(40)))));
    assert!(is_divided(region.open_area(cause(Sequence(50)), new_area(), DEADLINE)));
    let schema = fixture.spec.schema.altered(&[added("more")]).unwrap();
    let options = fixture.spec.options.clone();
    assert!(is_divided(region.alter(cause(Sequence(60)), schema, options)));
    assert_eq!(region.obligations(), []);
    let keys = key_batch(&[("k".to_owned(), 1)], &fixture.spec);
    assert!(is_divided(region.scan(&all()).map(drop)));
    assert!(is_divided(region.count(&all()).await.map(drop)));
    assert!(is_divided(region.get(&keys, &[NAME]).await.map(drop)));
    assert_eq!(region.unflushed().len(), 0);
    // Nothing is left to flush, and the region can be removed.
    assert_eq!(region.flush().await.unwrap().files, 0);
    region.remove().await.unwrap();
}

#[tokio::test]
async fn merge_is_refused_if_rows_would_count_as_flushed() {
    let spec = spec(WriteMode::Upsert, false);
    let [low, high] = [low_range(&spec), high_range(&spec)].map(|range| {
        let id = if range.end.is_some() { 20 } else { 21 };
        create(child(&spec, id, range))
    });
    let write = |number, sequence| RowsWrite {
        sequence: Sequence(sequence),
        epoch: Epoch(0),
        op: RowOp::Put,
        batch: put_batch(&[row(number)], &spec),
    };
    low.apply(write(1, 10)).unwrap();
    high.apply(write(7, 20)).unwrap();
    high.apply(write(8, 50)).unwrap();
    let merge = |high_flushed| {
        let parent = |region: &Arc<Region>, flushed| SealedParent {
            region: region.clone(),
            flushed: Sequence(flushed),
        };
        let parents = [parent(&high, high_flushed), parent(&low, 30)];
        Region::merge(&parents, child(&spec, 30, KeyRange::whole()))
    };
    // The low half is flushed up to 30, the high half up to 0 or 10: its row of sequence 20 is not in a
    // file, and would not be read from memory.
    for flushed in [0, 10] {
        let error = merge(flushed).unwrap_err();
        let by_rows =
            matches!(error, DivideError::Unflushed { region: RegionId(21), through: Sequence(30) });
        assert!(by_rows, "{error}");
        assert_eq!((low.stats().runs, high.stats().runs), (1, 2));
    }
    // Its row of sequence 50 is above everything that is flushed.
    let child = merge(20).unwrap();
    assert_eq!((child.stats().runs, child.stats().memtable_rows), (1, 1));
    assert_eq!((child.flushed_sequence(), child.last_sequence()), (Sequence(30), Sequence(50)));
}
