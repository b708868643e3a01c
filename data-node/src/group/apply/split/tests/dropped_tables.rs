//! Splits of regions whose table was dropped while holds keep its rows.

use tidewater_common::schema::TableOptions;

use super::*;

/// A group whose region 7 was split after the drop of its table. A producer has written the rows 5 and 15 before the drop.
fn with_split_region_of_dropped_table() -> TestGroup {
    let mut group = TestGroup::with_region();
    group.state.level = FeatureLevel::HELD_DROPS;
    group.apply(writes(vec![write(1, 1, &[])]));
    assert_eq!(reason(&group.apply(writes(vec![write(1, 2, &[5, 15])]))), None);
    let dropped = TableOptions { dropped: true, ..options() };
    let altered = v1::RegionAltered {
        region_id: 7,
        schema: Some((&schema(2)).into()),
        options: Some((&dropped).into()),
        step: step(1, 1),
    };
    assert_eq!(reason(&group.apply(Entry::Altered(altered))), None);
    let done = group.state.regions[&RegionId(7)].last_sequence;
    group.apply(Entry::ManifestAdvanced(v1::ManifestAdvanced {
        region_id: 7,
        version: 5,
        done_sequence: done.get(),
        ..Default::default()
    }));
    assert_eq!(reason(&group.apply(held(true, step(2, 1)))), None);
    let split = v1::RegionSplit { step: step(2, 2), ..split() };
    assert_eq!(reason(&group.apply(Entry::Split(split))), None);
    group
}

/// A write to a region, of a caller that knows the version of the schema after the drop.
fn later(region: RegionId, serial: u64, ids: &[i64]) -> v1::WriteRequest {
    let write = write(1, serial, ids);
    v1::WriteRequest { region_id: region.get(), schema_version: 2, ..write }
}

#[test]
fn repeat_before_the_drop_is_stale_after_a_split() {
    let mut group = with_split_region_of_dropped_table();
    let rows = group.seen.rows.lock().len();
    let before = group.state.clone();
    let by_child =
        |id: RegionId, ids: &[i64]| v1::WriteRequest { region_id: id.get(), ..write(1, 2, ids) };
    // The whole write by the old route, and its parts by the new ones.
    for repeated in [write(1, 2, &[5, 15]), by_child(LEFT, &[5]), by_child(RIGHT, &[15])] {
        let applied = group.apply(writes(vec![repeated]));
        assert_eq!(reason(&applied), Some(Reason::SchemaVersionStale), "{applied:?}");
    }
    assert_eq!(group.state, before);
    assert_eq!(group.seen.rows.lock().len(), rows);
}

#[test]
fn children_of_a_dropped_table_take_no_rows() {
    let mut group = with_split_region_of_dropped_table();
    let rows = group.seen.rows.lock().len();
    // Repeats that name the later version find their first outcome.
    let parent = RegionId(7);
    for repeated in [later(parent, 2, &[5, 15]), later(LEFT, 2, &[5]), later(RIGHT, 2, &[15])] {
        let applied = group.apply(writes(vec![repeated]));
        assert!(
            matches!(applied.outcomes[..], [EntryOutcome::Done { repeated: true, .. }]),
            "{applied:?}"
        );
    }
    let before = group.state.clone();
    // Next writes, and a repeat with a row that the first attempt did not have.
    for refused in [
        later(parent, 3, &[6, 16]),
        later(LEFT, 3, &[6]),
        later(RIGHT, 3, &[16]),
        later(LEFT, 2, &[4, 5]),
    ] {
        let applied = group.apply(writes(vec![refused]));
        assert_eq!(reason(&applied), Some(Reason::TableNotFound), "{applied:?}");
    }
    assert_eq!(group.state, before);
    assert_eq!(group.seen.rows.lock().len(), rows);
}
