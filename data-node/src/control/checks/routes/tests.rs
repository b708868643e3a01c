use bytes::Bytes;
use tidewater_proto::v1::{CloseRegionRequest, DropRegionRequest, TableState};

use super::super::tests::{assert_only_first_passes, records, step_of};
use super::super::{close, drop};
use super::*;
use crate::catalog::RegionPlace;

#[test]
fn region_is_split_only_as_the_catalog_decides() {
    let key = Bytes::from_static(b"k");
    let change = |abandoning| v1::RouteChange {
        number: 4,
        route_id: 7,
        child_ids: vec![8, 9],
        split_keys: vec![key.clone()],
        abandoning,
        successor_id: 0,
        target_group_id: 0,
    };
    let with = |changes: Vec<v1::RouteChange>| {
        let mut records = records(TableState::Active, None);
        records.tables.get_mut(&3).unwrap().route_changes = changes;
        records
    };
    let other = v1::RouteChange { number: 5, route_id: 6, ..change(false) };
    let catalog = with(vec![other, change(false)]);
    let held = |held, step| HoldRegionRequest {
        group_id: 5,
        region_id: 7,
        held,
        step,
        ..Default::default()
    };
    let good = || held(true, step_of(4, SPLIT_HOLD_STEP));
    let cases = [
        good(),
        HoldRegionRequest { group_id: 6, ..good() },
        HoldRegionRequest { region_id: 8, ..good() },
        held(true, step_of(5, SPLIT_HOLD_STEP)),
        held(true, step_of(4, SPLIT_ABANDON_STEP)),
        HoldRegionRequest { mode: HoldMode::Open.into(), ..good() },
        HoldRegionRequest { mode: HoldMode::Fenced.into(), ..good() },
        held(true, None),
        held(false, step_of(4, SPLIT_ABANDON_STEP)),
    ];
    assert_only_first_passes(&cases.map(|case| hold(&catalog, &case)), "hold");
    let abandoned = with(vec![change(true)]);
    let cases = [held(false, step_of(4, SPLIT_ABANDON_STEP)), good()];
    assert_only_first_passes(&cases.map(|case| hold(&abandoned, &case)), "abandon");

    let child = |region_id, start: &[u8]| v1::SplitChild {
        region_id,
        start: Bytes::copy_from_slice(start),
        end: None,
    };
    let children = |children| SplitRegionRequest {
        group_id: 5,
        region_id: 7,
        children,
        step: step_of(4, SPLIT_STEP),
        ..Default::default()
    };
    let good = || children(vec![child(8, b""), child(9, b"k")]);
    let cases = [
        good(),
        SplitRegionRequest { region_id: 8, ..good() },
        SplitRegionRequest { step: step_of(4, SPLIT_HOLD_STEP), ..good() },
        children(vec![child(8, b""), child(9, b"l")]),
        children(vec![child(9, b""), child(8, b"k")]),
        children(vec![child(8, b"")]),
        children(vec![child(8, b""), child(9, b"k"), child(10, b"m")]),
    ];
    assert_only_first_passes(&cases.map(|case| split(&catalog, &case)), "split");
    assert_only_first_passes(&[Ok(()), split(&abandoned, &good())], "abandoned split");

    // Children that the catalog does not have yet are not dropped.
    let dropped = |region_id| DropRegionRequest { region_id, ..Default::default() };
    let without_routes = || {
        let mut records = with(vec![change(false)]);
        records.regions.clear();
        records
    };
    let cases = [6, 7, 8, 9].map(|region| drop(&without_routes(), &dropped(region)));
    assert_only_first_passes(&cases, "drop of a child");

    let closed = |region_id| CloseRegionRequest { region_id, ..Default::default() };
    let swapped = {
        let mut records = with(Vec::new());
        records.regions.clear();
        records
    };
    assert_only_first_passes(
        &[close(&swapped, &closed(7)), close(&catalog, &closed(7)), close(&swapped, &closed(10))],
        "close",
    );
}

/// The catalog merges regions 7 and 8 into region 9.
fn merging(abandoning: bool) -> CatalogRecords {
    let mut records = records(TableState::Active, None);
    let place =
        RegionPlace { table_id: 3, group_id: 5, incarnation: 1, start: b"k".to_vec(), end: None };
    records.regions.insert(8, place);
    records.tables.get_mut(&3).unwrap().route_changes = vec![v1::RouteChange {
        number: 4,
        route_id: 7,
        child_ids: vec![9],
        split_keys: Vec::new(),
        abandoning,
        successor_id: 8,
        target_group_id: 0,
    }];
    records
}

#[test]
fn regions_are_held_for_their_merge_in_its_steps() {
    let catalog = merging(false);
    let held = |held, mode: HoldMode, step| HoldRegionRequest {
        group_id: 5,
        region_id: 8,
        held,
        step: step_of(4, step),
        mode: mode.into(),
        ..Default::default()
    };
    let steps = [
        (HoldMode::Open, MERGE_HOLD_STEP, MERGE_FENCE_STEP),
        (HoldMode::Fenced, MERGE_FENCE_STEP, MERGE_HOLD_STEP),
    ];
    for (mode, step, other) in steps {
        let cases = [
            held(true, mode, step),
            held(true, mode, other),
            held(true, HoldMode::Sealed, step),
            held(false, mode, step),
            held(false, mode, MERGE_ABANDON_STEP),
            HoldRegionRequest { region_id: 9, ..held(true, mode, step) },
            HoldRegionRequest { region_id: 0, ..held(true, mode, step) },
            HoldRegionRequest { step: step_of(5, step), ..held(true, mode, step) },
        ];
        assert_only_first_passes(&cases.map(|case| hold(&catalog, &case)), "hold");
        let first = HoldRegionRequest { region_id: 7, ..held(true, mode, step) };
        assert_eq!(hold(&catalog, &first), Ok(()));
    }
    let cases = [
        held(false, HoldMode::Sealed, MERGE_ABANDON_STEP),
        held(false, HoldMode::Sealed, SPLIT_ABANDON_STEP),
        held(true, HoldMode::Fenced, MERGE_FENCE_STEP),
    ];
    assert_only_first_passes(&cases.map(|case| hold(&merging(true), &case)), "abandon");
}

#[test]
fn regions_are_merged_only_as_the_catalog_decides() {
    let catalog = merging(false);
    let child = |region_id| {
        let (start, end) = (Bytes::new(), None);
        Some(v1::SplitChild { region_id, start, end })
    };
    let good = || MergeRegionsRequest {
        group_id: 5,
        region_id: 7,
        successor_id: 8,
        child: child(9),
        step: step_of(4, MERGE_STEP),
        ..Default::default()
    };
    let cases = [
        good(),
        MergeRegionsRequest { region_id: 8, successor_id: 7, ..good() },
        MergeRegionsRequest { successor_id: 0, ..good() },
        MergeRegionsRequest { group_id: 6, ..good() },
        MergeRegionsRequest { child: child(10), ..good() },
        MergeRegionsRequest { child: None, ..good() },
        MergeRegionsRequest { step: step_of(4, MERGE_FENCE_STEP), ..good() },
        MergeRegionsRequest { step: step_of(5, MERGE_STEP), ..good() },
    ];
    assert_only_first_passes(&cases.map(|case| merge(&catalog, &case)), "merge");
    assert!(merge(&merging(true), &good()).is_err());
    let mut elsewhere = merging(false);
    elsewhere.regions.get_mut(&8).unwrap().group_id = 6;
    assert!(merge(&elsewhere, &good()).is_err());
    // Neither is split, and their child is not dropped.
    let children = vec![child(9).unwrap()];
    let step = step_of(4, SPLIT_STEP);
    let split_of =
        SplitRegionRequest { group_id: 5, region_id: 7, children, step, ..Default::default() };
    assert!(split(&catalog, &split_of).is_err());
    let mut swapped = merging(false);
    swapped.regions.clear();
    for region_id in [7, 8, 9] {
        assert!(drop(&swapped, &DropRegionRequest { region_id, ..Default::default() }).is_err());
    }
}

#[test]
fn region_is_merged_with_its_neighbour_only() {
    let mut catalog = merging(false);
    let other = catalog.regions[&8].clone();
    catalog.regions.insert(10, other);
    let child = v1::SplitChild { region_id: 9, start: Bytes::new(), end: None };
    let with = |successor_id| MergeRegionsRequest {
        group_id: 5,
        region_id: 7,
        successor_id,
        child: Some(child.clone()),
        step: step_of(4, MERGE_STEP),
        ..Default::default()
    };
    assert_only_first_passes(&[8, 10].map(|id| merge(&catalog, &with(id))), "merge");
}
