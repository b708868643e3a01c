use std::collections::BTreeMap;

use tidewater_common::schema::TableSchema;
use tidewater_proto::v1::{
    CallHeader, Group, GroupMember, Node, RegionDescriptor, Table, TableChange,
};

use super::*;
use crate::catalog::RegionPlace;
use crate::group::testing::{options, region, schema};

fn wire(version: u32) -> Option<v1::TableSchema> {
    let schema: TableSchema = schema(version);
    Some((&schema).into())
}

/// Table 3 with region 7 in group 5 of nodes 1 to 3; node 4 has another role, node 5 was removed.
pub(super) fn records(state: TableState, change: Option<TableChange>) -> CatalogRecords {
    let table = Table {
        table_id: 3,
        name: "t".to_owned(),
        state: state.into(),
        schema: wire(1),
        options: Some((&options()).into()),
        change,
        clone_of: 0,
        route_changes: Vec::new(),
        published_epoch: 0,
        complete_epoch: 0,
    };
    let place =
        RegionPlace { table_id: 3, group_id: 5, incarnation: 1, start: Vec::new(), end: None };
    let node = |node_id, role: NodeRole, state: NodeState| {
        let address = format!("n{node_id}:1");
        (
            node_id,
            Node { node_id, role: role.into(), state: state.into(), address, ..Node::default() },
        )
    };
    let data = |id| node(id, NodeRole::Data, NodeState::Up);
    let group = |group_id, state: GroupState| {
        let group =
            Group { group_id, state: state.into(), first_members: vec![1, 2], ..Group::default() };
        (group_id, group)
    };
    CatalogRecords {
        has_table_changes: true,
        next_region_id: 10,
        tables: BTreeMap::from([(3, table)]),
        regions: BTreeMap::from([(7, place)]),
        groups: BTreeMap::from([
            group(5, GroupState::Active),
            group(6, GroupState::Creating),
            group(8, GroupState::Abandoned),
        ]),
        nodes: BTreeMap::from([
            data(1),
            data(2),
            data(3),
            node(4, NodeRole::Compactor, NodeState::Up),
            node(5, NodeRole::Data, NodeState::Removed),
        ]),
    }
}

fn step(number: u64) -> Option<ProcedureStep> {
    Some(ProcedureStep { number, step: 1 })
}

pub(super) fn step_of(number: u64, step: u32) -> Option<ProcedureStep> {
    Some(ProcedureStep { number, step })
}

pub(super) fn assert_only_first_passes(checks: &[Checked], call: &str) {
    for (at, checked) in checks.iter().enumerate() {
        assert_eq!(checked.is_ok(), at == 0, "{call}, case {at}: {checked:?}");
        if let Err(problem) = checked {
            assert_eq!(problem.reason, Reason::InvalidArgument, "{call}, case {at}");
        }
    }
}

#[test]
fn region_is_opened_as_the_catalog_has_it() {
    let good = || OpenRegionRequest {
        group_id: 5,
        region: Some(region(7, None, None)),
        base: 1 << 62,
        ..Default::default()
    };
    let with = |change: fn(&mut RegionDescriptor)| {
        let mut request = good();
        change(request.region.as_mut().unwrap());
        request
    };
    let cases = [
        good(),
        OpenRegionRequest { base: u64::MAX, ..good() },
        OpenRegionRequest { base: (1 << 62) + 1, ..good() },
        OpenRegionRequest { group_id: 6, ..good() },
        OpenRegionRequest { region: None, ..good() },
        with(|region| region.region_id = 8),
        with(|region| region.table_id = 4),
        with(|region| region.start = vec![1].into()),
        with(|region| region.end = Some(vec![1].into())),
        with(|region| region.incarnation = 2),
        with(|region| region.schema = wire(2)),
        with(|region| region.schema = None),
        with(|region| region.options = None),
    ];
    let catalog = records(TableState::Creating, None);
    assert_only_first_passes(&cases.map(|case| open(&catalog, &case)), "open");
}

#[test]
fn regions_change_only_as_the_catalog_decides() {
    let altering = TableChange {
        number: 4,
        schema: wire(2),
        options: Some((&options()).into()),
        ..TableChange::default()
    };
    let truncating = TableChange { number: 4, ..TableChange::default() };
    let alter_to = |version, number| AlterRegionRequest {
        group_id: 5,
        region_id: 7,
        schema: wire(version),
        options: Some((&options()).into()),
        step: step(number),
        ..Default::default()
    };
    let catalog = |change: &TableChange| records(TableState::Active, Some(change.clone()));
    let still = records(TableState::Active, None);
    let altered = [
        alter(&catalog(&altering), &alter_to(2, 4)),
        alter(&catalog(&altering), &alter_to(3, 4)),
        alter(&catalog(&altering), &alter_to(2, 5)),
        alter(&catalog(&altering), &alter_to(2, u64::MAX)),
        alter(&catalog(&altering), &AlterRegionRequest { step: step_of(4, 2), ..alter_to(2, 4) }),
        alter(&catalog(&altering), &AlterRegionRequest { step: None, ..alter_to(2, 4) }),
        alter(&catalog(&altering), &AlterRegionRequest { options: None, ..alter_to(2, 4) }),
        alter(&catalog(&altering), &AlterRegionRequest { region_id: 8, ..alter_to(2, 4) }),
        alter(&catalog(&altering), &AlterRegionRequest { group_id: 6, ..alter_to(2, 4) }),
        alter(&catalog(&truncating), &alter_to(2, 4)),
        alter(
            &catalog(&truncating),
            &AlterRegionRequest { schema: None, options: None, ..alter_to(2, 4) },
        ),
        alter(&still, &alter_to(2, 4)),
    ];
    assert_only_first_passes(&altered, "alter");
    let truncate_at = |number| TruncateRegionRequest {
        group_id: 5,
        region_id: 7,
        step: step(number),
        ..Default::default()
    };
    let loading =
        TableChange { number: 4, load_area: vec![9; 16].into(), ..TableChange::default() };
    let truncated = [
        truncate(&catalog(&truncating), &truncate_at(4)),
        truncate(&catalog(&truncating), &truncate_at(u64::MAX)),
        truncate(
            &catalog(&truncating),
            &TruncateRegionRequest { step: step_of(4, u32::MAX), ..truncate_at(4) },
        ),
        truncate(&catalog(&altering), &truncate_at(4)),
        truncate(&catalog(&loading), &truncate_at(4)),
        truncate(&still, &truncate_at(0)),
    ];
    assert_only_first_passes(&truncated, "truncate");
    let dropped = DropRegionRequest { group_id: 5, region_id: 7, ..Default::default() };
    let gone = DropRegionRequest { region_id: 8, ..dropped.clone() };
    let unborn = |region_id| DropRegionRequest { region_id, ..dropped.clone() };
    let drops =
        [&gone, &dropped, &unborn(10), &unborn(u64::MAX)].map(|request| drop(&still, request));
    assert_only_first_passes(&drops, "drop");
    drop(&CatalogRecords { next_region_id: 0, ..still }, &unborn(10)).unwrap();
}

#[test]
fn staging_areas_open_and_close_as_the_catalog_decides() {
    let area = |byte: u8| vec![byte; 16].into();
    let loading = TableChange { number: 4, load_area: area(9), ..TableChange::default() };
    let publishing = TableChange { load_publishing: true, ..loading.clone() };
    let abandoning = TableChange { load_abandoning: true, ..loading.clone() };
    let catalog = |change: &TableChange| records(TableState::Active, Some(change.clone()));
    let opening = |byte, number| OpenAreaRequest {
        group_id: 5,
        region_id: 7,
        area_id: area(byte),
        step: step(number),
        ..Default::default()
    };
    let opened = [
        open_area(&catalog(&loading), &opening(9, 4)),
        open_area(&catalog(&loading), &opening(8, 4)),
        open_area(&catalog(&loading), &opening(9, 5)),
        open_area(&catalog(&loading), &OpenAreaRequest { step: step_of(4, 2), ..opening(9, 4) }),
        open_area(&records(TableState::Active, None), &opening(9, 4)),
    ];
    assert_only_first_passes(&opened, "open area");
    let closing = |publish| CloseAreaRequest {
        group_id: 5,
        region_id: 7,
        area_id: area(9),
        publish,
        step: step_of(4, 2),
        ..Default::default()
    };
    let published = [
        close_area(&catalog(&publishing), &closing(true)),
        close_area(&catalog(&publishing), &closing(false)),
        close_area(&catalog(&abandoning), &closing(true)),
        close_area(&catalog(&loading), &closing(true)),
        close_area(&catalog(&loading), &closing(false)),
        close_area(
            &catalog(&publishing),
            &CloseAreaRequest { step: step_of(4, 3), ..closing(true) },
        ),
    ];
    assert_only_first_passes(&published, "close area");
    close_area(&catalog(&abandoning), &closing(false)).unwrap();
    let copying = |source| CopyRegionRequest {
        group_id: 5,
        region_id: 7,
        source_table_id: source,
        source_region_id: 2,
        step: step_of(1, 1),
        ..Default::default()
    };
    let mut clone = records(TableState::Creating, None);
    clone.tables.get_mut(&3).unwrap().clone_of = 2;
    let source = RegionPlace { table_id: 2, ..clone.regions[&7].clone() };
    clone.regions.insert(1, RegionPlace { start: vec![9], ..source.clone() });
    clone.regions.insert(2, source);
    let mut completed = records(TableState::Active, None);
    completed.tables.get_mut(&3).unwrap().clone_of = 2;
    completed.regions.clone_from(&clone.regions);
    let copied = [
        copy(&clone, &copying(2)),
        copy(&completed, &copying(2)),
        copy(&clone, &copying(4)),
        copy(&clone, &CopyRegionRequest { source_region_id: 1, ..copying(2) }),
        copy(&clone, &CopyRegionRequest { source_region_id: 7, ..copying(2) }),
        copy(&clone, &CopyRegionRequest { step: step_of(u64::MAX, 1), ..copying(2) }),
        copy(&clone, &CopyRegionRequest { step: step_of(1, 2), ..copying(2) }),
        copy(&records(TableState::Creating, None), &copying(2)),
        copy(&records(TableState::Active, None), &copying(0)),
    ];
    assert_only_first_passes(&copied, "copy");
}

#[test]
fn groups_have_the_members_that_the_catalog_knows() {
    let catalog = records(TableState::Active, None);
    let named = |id: u64| GroupMember { node_id: id, address: format!("n{id}:1") };
    let starting = |group_id, members: &[u64], target_node, initialize| StartGroupRequest {
        header: Some(CallHeader { target_node, ..CallHeader::default() }),
        group_id,
        first_members: members.iter().copied().map(named).collect(),
        initialize,
    };
    let started = [
        start_group(&catalog, &starting(6, &[1, 2], 1, true)),
        start_group(&catalog, &starting(6, &[1, 2], 2, true)),
        start_group(&catalog, &starting(6, &[1, 2, 3], 1, true)),
        start_group(&catalog, &starting(5, &[1, 2], 1, true)),
        start_group(&catalog, &starting(8, &[1, 2], 1, false)),
        start_group(&catalog, &starting(u64::MAX, &[1, 2], 1, false)),
    ];
    assert_only_first_passes(&started, "start");
    let mut moved = starting(6, &[1, 2], 1, true);
    moved.first_members[1].address = "127.0.0.1:1".to_owned();
    assert!(start_group(&catalog, &moved).is_err(), "an address that the catalog does not have");
    start_group(&catalog, &starting(5, &[1, 2], 3, false)).unwrap();
    start_group(&catalog, &starting(6, &[1, 2], 2, false)).unwrap();
    let changing = |group_id, change| ChangeMembershipRequest {
        group_id,
        change: Some(change),
        ..Default::default()
    };
    let elsewhere = GroupMember { address: "127.0.0.1:1".to_owned(), ..named(3) };
    let changed = [
        change_membership(&catalog, &changing(5, Change::AddLearner(named(3)))),
        change_membership(&catalog, &changing(5, Change::AddLearner(named(900)))),
        change_membership(&catalog, &changing(5, Change::AddLearner(named(4)))),
        change_membership(&catalog, &changing(5, Change::AddLearner(named(5)))),
        change_membership(&catalog, &changing(5, Change::AddLearner(elsewhere))),
        change_membership(&catalog, &changing(5, Change::Promote(900))),
        change_membership(&catalog, &changing(6, Change::Promote(3))),
        change_membership(&catalog, &changing(9, Change::Remove(3))),
    ];
    assert_only_first_passes(&changed, "change of members");
    // A lost node that is no longer registered.
    change_membership(&catalog, &changing(5, Change::Remove(900))).unwrap();
}

#[test]
fn meta_node_of_an_older_release_limits_schema_versions() {
    let catalog = CatalogRecords { has_table_changes: false, ..records(TableState::Active, None) };
    let alter_to = |version| {
        let request = AlterRegionRequest {
            group_id: 5,
            region_id: 7,
            schema: wire(version),
            ..Default::default()
        };
        alter(&catalog, &request)
    };
    assert_only_first_passes(&[alter_to(2), alter_to(3), alter_to(u32::MAX)], "alter");
}
