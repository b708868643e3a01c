use bytes::Bytes;
use tidewater_common::feature_level::FeatureLevel;
use tidewater_common::ids::{Epoch, RegionId};
use tidewater_common::schema::TableOptions;
use tidewater_proto::v1::group_entry::Entry;
use tidewater_proto::v1::{self, MergeCounts, ProcedureStep, Reason};

use crate::group::apply::Applied;
use crate::group::entry::EntryOutcome;
use crate::group::state::RegionState;
use crate::group::testing::{
    TestGroup, delete, key, opened, options, region, rows, schema, write, writes,
};

const AREA: [u8; 16] = [9; 16];

/// A group with region 7 of a refreshable table, at epoch 100, and an open staging area.
fn group() -> TestGroup {
    let mut group = TestGroup::default();
    group.state.level = FeatureLevel::HIGHEST;
    let options = TableOptions { refreshable: true, ..options() };
    let wire = v1::RegionDescriptor { options: Some((&options).into()), ..region(7, None, None) };
    group.apply(opened(wire));
    group.apply(barrier(0, 100));
    group.apply(open_area(1));
    group
}

fn area() -> Bytes {
    Bytes::copy_from_slice(&AREA)
}

fn barrier(previous: u64, epoch: u64) -> Entry {
    Entry::Barrier(v1::GroupBarrier { previous, epoch, since: epoch, tables: Vec::new() })
}

fn open_area(number: u64) -> Entry {
    Entry::AreaOpened(v1::AreaOpened {
        region_id: 7,
        area_id: area(),
        deadline_ms: u64::MAX,
        step: Some(ProcedureStep { number, step: 1 }),
    })
}

fn close_area(number: u64, published_epoch: u64) -> Entry {
    Entry::AreaAbandoned(v1::AreaAbandoned {
        region_id: 7,
        area_id: area(),
        step: Some(ProcedureStep { number, step: 2 }),
        published_epoch,
        previous_until: published_epoch + 50,
    })
}

fn begin(split_ids: &[i64]) -> Entry {
    let split_keys = split_ids.iter().map(|id| key(*id).into()).collect();
    Entry::MergeBegun(v1::RegionMergeBegun { region_id: 7, area_id: area(), split_keys })
}

fn chunk(part: u32, after: Option<i64>, reached: i64, puts: &[i64], deletes: &[i64]) -> Entry {
    let encoded = |ids: &[i64]| if ids.is_empty() { Bytes::new() } else { rows(ids) };
    let deletes = if deletes.is_empty() { Bytes::new() } else { delete(1, 2, deletes).rows };
    Entry::Chunk(v1::RegionChunk {
        region_id: 7,
        area_id: area(),
        part,
        after: after.map(key).unwrap_or_default().into(),
        reached: key(reached).into(),
        is_last: false,
        schema_version: 1,
        puts: encoded(puts),
        deletes,
        counts: Some(MergeCounts { inserted: puts.len() as u64, ..MergeCounts::default() }),
    })
}

fn reason(applied: &Applied) -> Option<Reason> {
    match applied.outcomes[..] {
        [EntryOutcome::Refused { reason, .. }] => Some(reason),
        _ => None,
    }
}

fn state(group: &TestGroup) -> &RegionState {
    &group.state.regions[&RegionId(7)]
}

#[test]
fn chunk_and_progress_are_applied_together_once() {
    let mut group = group();
    group.apply(begin(&[50]));
    assert_eq!(reason(&group.apply(chunk(0, None, 10, &[1, 5], &[7]))), None);
    assert_eq!(
        group.seen.rows.lock().iter().map(|of| of.2.clone()).collect::<Vec<_>>(),
        [vec![1, 5], vec![7],]
    );
    assert_eq!(group.seen.epochs(), [Epoch(100), Epoch(100)]);
    let before = group.state.clone();
    for late in [
        chunk(0, None, 10, &[1, 5], &[7]),
        chunk(0, Some(9), 20, &[11], &[]),
        chunk(3, None, 20, &[11], &[]),
    ] {
        assert_eq!(reason(&group.apply(late)), Some(Reason::ProcedureSuperseded));
    }
    assert_eq!(group.state, before);
    group.apply(chunk(0, Some(10), 20, &[11], &[]));
    group.apply(chunk(1, None, 60, &[60], &[]));
    let parts = &state(&group).merge.as_ref().unwrap().parts;
    let reached: Vec<_> = parts.iter().map(|part| (part.reached.to_vec(), part.chunks)).collect();
    assert_eq!(reached, [(key(20), 2), (key(60), 1)]);
    // A repeated begin keeps the progress.
    group.apply(begin(&[40]));
    assert_eq!(state(&group).merge.as_ref().unwrap().parts[0].chunks, 2);
    let stored = RegionState::from_wire(state(&group).to_wire()).unwrap();
    assert_eq!(&stored, state(&group));
}

#[test]
fn chunk_without_valid_rows_changes_nothing() {
    let mut group = group();
    group.apply(begin(&[]));
    let before = group.state.clone();
    let Entry::Chunk(valid) = chunk(0, None, 10, &[1], &[]) else { unreachable!() };
    let damaged = v1::RegionChunk { puts: Bytes::from_static(b"no rows"), ..valid.clone() };
    assert_eq!(reason(&group.apply(Entry::Chunk(damaged))), Some(Reason::SchemaMismatch));
    let stale = v1::RegionChunk { schema_version: 9, ..valid };
    assert_eq!(reason(&group.apply(Entry::Chunk(stale))), Some(Reason::SchemaVersionBehind));
    assert_eq!(group.state, before);
    assert!(group.seen.rows.lock().is_empty());
}

#[test]
fn chunk_of_an_abandoned_area_is_refused() {
    let mut group = group();
    group.apply(begin(&[]));
    group.apply(chunk(0, None, 10, &[1], &[]));
    group.apply(close_area(1, 0));
    assert_eq!(state(&group).merge, None);
    for late in [chunk(0, Some(10), 20, &[11], &[]), begin(&[])] {
        assert_eq!(reason(&group.apply(late)), Some(Reason::ProcedureSuperseded));
    }
    // The next refresh begins a merge of its own.
    group.apply(open_area(2));
    let unbegun = group.apply(chunk(0, None, 10, &[1], &[]));
    assert_eq!(reason(&unbegun), Some(Reason::ProcedureSuperseded));
}

#[test]
fn refreshable_region_refuses_writes_of_clients() {
    let mut group = group();
    for entry in [writes(vec![write(1, 1, &[])]), writes(vec![write(1, 2, &[5])])] {
        assert_eq!(reason(&group.apply(entry)), Some(Reason::TableRefreshable));
    }
    assert!(group.seen.rows.lock().is_empty());
}

#[test]
fn published_epochs_bound_the_readable_ones() {
    let mut group = group();
    let readable = |group: &TestGroup| group.state.readable_epochs(RegionId(7)).unwrap();
    assert_eq!(readable(&group), (Epoch(0), Epoch(100)), "empty until the first refresh");
    group.apply(begin(&[]));
    group.apply(barrier(100, 130));
    group.apply(close_area(1, 120));
    // Readers of the empty table end at epoch 170.
    assert_eq!(readable(&group), (Epoch(0), Epoch(130)));
    group.apply(barrier(130, 180));
    assert_eq!(readable(&group), (Epoch(120), Epoch(180)));
    // Without another refresh, the published epoch stays readable.
    group.apply(barrier(180, 90_000));
    assert_eq!(readable(&group), (Epoch(120), Epoch(90_000)));
}

/// Publishes a refresh: opens the next area and closes it.
fn publish(group: &mut TestGroup, number: u64, epoch: u64) {
    group.apply(open_area(number));
    group.apply(close_area(number, epoch));
}

#[test]
fn held_publications_outlive_their_readers() {
    let mut group = group();
    group.apply(close_area(1, 120));
    publish(&mut group, 2, 150);
    group.apply(barrier(100, 180));
    let region = |group: &TestGroup| group.state.regions[&RegionId(7)].clone();
    let since = |group: &TestGroup| group.state.readable_epochs(RegionId(7)).unwrap().0;
    let own = TableOptions { refreshable: true, explicit_since: true, ..options() };
    group.apply(Entry::Altered(v1::RegionAltered {
        region_id: 7,
        schema: Some((&schema(2)).into()),
        options: Some((&own).into()),
        step: Some(ProcedureStep { number: 3, step: 1 }),
    }));
    // The history of the group ends at epoch 180, and the readers of the publication before at 200.
    assert_eq!((since(&group), region(&group).since), (Epoch(120), Epoch(120)));
    let named = |previous, epoch, since| {
        let tables = vec![v1::TableSince { table_id: 3, since }];
        Entry::Barrier(v1::GroupBarrier { previous, epoch, since: epoch, tables })
    };
    // A hold at epoch 140 is read as of 120.
    group.apply(named(180, 900, 140));
    publish(&mut group, 4, 800);
    publish(&mut group, 5, 850);
    assert_eq!((since(&group), region(&group).since), (Epoch(120), Epoch(140)));
    let published = region(&group).published;
    let at = |epoch| published.at(Epoch(epoch)).map(Epoch::get);
    assert_eq!(
        [at(119), at(140), at(799), at(800), at(900)].map(|of| of.unwrap_or(1)),
        [1, 120, 150, 800, 850]
    );
    let stored = RegionState::from_wire(region(&group).to_wire()).unwrap();
    assert_eq!(stored.published, published);
    // Released: the next publication forgets what was held.
    group.apply(named(900, 1_000, 850));
    assert_eq!(since(&group), Epoch(850));
    publish(&mut group, 6, 950);
    assert_eq!(region(&group).published.at(Epoch(849)), None);
    assert_eq!(since(&group), Epoch(850), "its readers have time until epoch 1,000");
}

#[test]
fn merge_below_its_level_is_refused() {
    let mut group = group();
    group.state.level = FeatureLevel::new(5);
    for entry in [begin(&[]), chunk(0, None, 10, &[1], &[]), close_area(1, 120)] {
        assert_eq!(reason(&group.apply(entry)), Some(Reason::Unsupported));
    }
}
