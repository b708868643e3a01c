use tidewater_proto::v1::TableState;

use super::super::super::tests::{assert_only_first_passes, records, step_of};
use super::super::{hold, merge, split};
use super::*;

const SOURCE: u64 = 5;
const TARGET: u64 = 6;

/// A catalog with a move of region 7 from group 5 to group 6, number 4.
fn moving(abandoning: bool) -> CatalogRecords {
    let mut records = records(TableState::Active, None);
    records.tables.get_mut(&3).unwrap().route_changes = vec![v1::RouteChange {
        number: 4,
        route_id: 7,
        child_ids: Vec::new(),
        split_keys: Vec::new(),
        abandoning,
        successor_id: 0,
        target_group_id: TARGET,
    }];
    records
}

fn held(held: bool, mode: HoldMode, at: u32) -> HoldRegionRequest {
    HoldRegionRequest {
        header: None,
        group_id: SOURCE,
        region_id: 7,
        held,
        step: step_of(4, at),
        mode: mode.into(),
        target_group_id: TARGET,
    }
}

#[test]
fn source_is_fenced_only_as_the_catalog_decides() {
    let good = || held(true, HoldMode::Departing, MOVE_FENCE_STEP);
    let cases = [
        good(),
        HoldRegionRequest { group_id: TARGET, ..good() },
        HoldRegionRequest { region_id: 8, ..good() },
        HoldRegionRequest { target_group_id: 9, ..good() },
        HoldRegionRequest { target_group_id: 0, ..good() },
        HoldRegionRequest { step: step_of(5, MOVE_FENCE_STEP), ..good() },
        HoldRegionRequest { step: None, ..good() },
        held(true, HoldMode::Departing, MOVE_HOLD_STEP),
        held(true, HoldMode::Fenced, MOVE_FENCE_STEP),
        held(true, HoldMode::Sealed, MOVE_HOLD_STEP),
        held(false, HoldMode::Departing, MOVE_ABANDON_STEP),
    ];
    assert_only_first_passes(&cases.map(|case| hold(&moving(false), &case)), "fence");
    let cases = [held(true, HoldMode::Open, MOVE_HOLD_STEP), held(true, HoldMode::Open, 2)];
    assert_only_first_passes(&cases.map(|case| hold(&moving(false), &case)), "hold");
    let cases = [
        held(false, HoldMode::Departing, MOVE_ABANDON_STEP),
        held(false, HoldMode::Sealed, MOVE_ABANDON_STEP),
        held(false, HoldMode::Departing, MOVE_FENCE_STEP),
        good(),
    ];
    assert_only_first_passes(&cases.map(|case| hold(&moving(true), &case)), "abandon");
}

#[test]
fn target_receives_only_as_the_catalog_decides() {
    let steps = [MOVE_PREPARE_STEP, MOVE_RECEIVE_STEP, MOVE_ACTIVATE_STEP];
    for (at, check) in [prepare_at, receive_at, activate_at].into_iter().enumerate() {
        let step = step_of(4, steps[at]);
        let other = step_of(4, steps[(at + 1) % 3]);
        let results = [
            check(&moving(false), (TARGET, 7), step),
            check(&moving(true), (TARGET, 7), step),
            check(&moving(false), (SOURCE, 7), step),
            check(&moving(false), (TARGET, 8), step),
            check(&moving(false), (TARGET, 7), other),
            check(&moving(false), (TARGET, 7), step_of(3, steps[at])),
            check(&moving(false), (TARGET, 7), None),
            check(&records(TableState::Active, None), (TARGET, 7), step),
        ];
        assert_only_first_passes(&results, "a call of the target");
    }
}

fn prepare_at(
    catalog: &CatalogRecords,
    (group_id, region_id): (u64, u64),
    step: Option<ProcedureStep>,
) -> Checked {
    prepare(catalog, &PrepareRegionRequest { header: None, group_id, region_id, step })
}

fn receive_at(
    catalog: &CatalogRecords,
    (group_id, region_id): (u64, u64),
    step: Option<ProcedureStep>,
) -> Checked {
    let request = ReceiveRegionRequest { group_id, region_id, step, ..Default::default() };
    receive(catalog, &request)
}

fn activate_at(
    catalog: &CatalogRecords,
    (group_id, region_id): (u64, u64),
    step: Option<ProcedureStep>,
) -> Checked {
    activate(catalog, &ActivateRegionRequest { header: None, group_id, region_id, step })
}

#[test]
fn region_is_released_by_the_other_group() {
    let request = |group_id, owner_group_id, step| ReleaseRegionRequest {
        header: None,
        group_id,
        region_id: 7,
        owner_group_id,
        step,
    };
    let released = step_of(4, MOVE_RELEASE_STEP);
    let abandoned = step_of(4, MOVE_ABANDON_STEP);
    let cases = [
        request(SOURCE, TARGET, released),
        request(TARGET, SOURCE, released),
        request(SOURCE, 9, released),
        request(SOURCE, TARGET, abandoned),
        request(SOURCE, TARGET, None),
    ];
    assert_only_first_passes(&cases.map(|case| release(&moving(false), &case)), "release");
    let cases = [
        request(TARGET, SOURCE, abandoned),
        request(SOURCE, TARGET, released),
        request(TARGET, SOURCE, released),
    ];
    assert_only_first_passes(&cases.map(|case| release(&moving(true), &case)), "forget");
}

#[test]
fn moving_region_is_neither_split_nor_merged() {
    let step = step_of(4, 2);
    let divided =
        v1::SplitRegionRequest { group_id: SOURCE, region_id: 7, step, ..Default::default() };
    assert!(split(&moving(false), &divided).is_err());
    let merged = v1::MergeRegionsRequest {
        group_id: SOURCE,
        region_id: 7,
        successor_id: 7,
        step: step_of(4, 3),
        ..Default::default()
    };
    assert!(merge(&moving(false), &merged).is_err());
}
