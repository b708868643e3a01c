//! Checks of calls against the catalog (pure): only what the meta group has decided is carried out.
//!
//! The calls are not authenticated. A call that contradicts the catalog is forged, or was decided
//! before a later change: the meta leader decides again.

mod routes;

use tidewater_common::agreed_limits::{CHANGE_STEP, CLONE_STEP, LOAD_CLOSE_STEP, LOAD_OPEN_STEP};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::change_membership_request::Change;
use tidewater_proto::v1::{
    self, AlterRegionRequest, ChangeMembershipRequest, CloseAreaRequest, CloseRegionRequest,
    CopyRegionRequest, DropRegionRequest, GroupState, NodeRole, NodeState, OpenAreaRequest,
    OpenRegionRequest, ProcedureStep, Reason, StartGroupRequest, TableState, TruncateRegionRequest,
};

pub(super) use self::routes::moves::{activate, prepare, receive, release};
use self::routes::replaces;
pub(super) use self::routes::{hold, merge, split};
use crate::catalog::CatalogRecords;
use crate::group::state::GREATEST_BASE;

/// Result of a check.
pub(super) type Checked = Result<(), Refusal>;

/// Checks the opening of a region.
pub(super) fn open(catalog: &CatalogRecords, request: &OpenRegionRequest) -> Checked {
    if request.base > GREATEST_BASE.get() {
        return refuse(format!("a region cannot begin above sequence {}", request.base));
    }
    let Some(region) = &request.region else {
        return refuse("the request to open a region lacks its description");
    };
    let id = region.region_id;
    let place = region_place(catalog, request.group_id, id)?;
    let table = table(catalog, place.table_id)?;
    let same_range = place.start == region.start
        && place.end.as_deref() == region.end.as_deref()
        && place.table_id == region.table_id;
    if !same_range || region.incarnation != place.incarnation {
        return refuse(format!("the catalog has another table or range for region {id}"));
    }
    if region.schema != table.schema || region.options != table.options {
        return refuse(format!("the catalog has another schema for region {id}"));
    }
    Ok(())
}

/// Checks an alteration of a region.
pub(super) fn alter(catalog: &CatalogRecords, request: &AlterRegionRequest) -> Checked {
    let table = changing_table(catalog, request.group_id, request.region_id)?;
    if !catalog.has_table_changes {
        let version = |schema: &Option<v1::TableSchema>| schema.as_ref().map_or(0, |s| s.version);
        let limit = version(&table.schema).saturating_add(1);
        return if version(&request.schema) <= limit { Ok(()) } else { no_change(table) };
    }
    match change_of(table, request.step.as_ref(), CHANGE_STEP)? {
        change if change.schema.is_none() => no_change(table),
        change if change.schema != request.schema || change.options != request.options => {
            refuse(format!("the catalog alters table {} in another way", table.name))
        }
        _ => Ok(()),
    }
}

/// Checks a truncation of a region.
pub(super) fn truncate(catalog: &CatalogRecords, request: &TruncateRegionRequest) -> Checked {
    let table = changing_table(catalog, request.group_id, request.region_id)?;
    if !catalog.has_table_changes {
        return Ok(());
    }
    let change = change_of(table, request.step.as_ref(), CHANGE_STEP)?;
    if change.schema.is_some() || !change.load_area.is_empty() { no_change(table) } else { Ok(()) }
}

/// Checks the opening of a staging area.
pub(super) fn open_area(catalog: &CatalogRecords, request: &OpenAreaRequest) -> Checked {
    let table = changing_table(catalog, request.group_id, request.region_id)?;
    if !catalog.has_table_changes {
        return Ok(());
    }
    let change = change_of(table, request.step.as_ref(), LOAD_OPEN_STEP)?;
    if change.load_area == request.area_id { Ok(()) } else { no_change(table) }
}

/// Checks the publication or abandonment of a staging area.
pub(super) fn close_area(catalog: &CatalogRecords, request: &CloseAreaRequest) -> Checked {
    let table = changing_table(catalog, request.group_id, request.region_id)?;
    if !catalog.has_table_changes {
        return Ok(());
    }
    let change = change_of(table, request.step.as_ref(), LOAD_CLOSE_STEP)?;
    let decided = if request.publish { change.load_publishing } else { change.load_abandoning };
    let is_published =
        request.published_epoch == 0 || request.published_epoch == table.published_epoch;
    if decided && is_published && change.load_area == request.area_id {
        Ok(())
    } else {
        no_change(table)
    }
}

/// Checks the adoption of another region's files.
pub(super) fn copy(catalog: &CatalogRecords, request: &CopyRegionRequest) -> Checked {
    let place = region_place(catalog, request.group_id, request.region_id)?;
    let table = table(catalog, place.table_id)?;
    if !catalog.has_table_changes {
        return Ok(());
    }
    let is_clone = table.state() == TableState::Creating
        && table.clone_of != 0
        && table.clone_of == request.source_table_id;
    let is_source = catalog.regions.get(&request.source_region_id).is_some_and(|source| {
        source.table_id == request.source_table_id && source.start == place.start
    });
    let step = request.step.as_ref().map(|step| (step.number, step.step));
    if is_clone && is_source && step == Some(CLONE_STEP) { Ok(()) } else { no_change(table) }
}

/// Checks the end of a region that its children have replaced.
pub(super) fn close(catalog: &CatalogRecords, request: &CloseRegionRequest) -> Checked {
    removed_region(catalog, request.region_id)
}

/// Checks the removal of a region.
pub(super) fn drop(catalog: &CatalogRecords, request: &DropRegionRequest) -> Checked {
    removed_region(catalog, request.region_id)
}

fn removed_region(catalog: &CatalogRecords, region: u64) -> Checked {
    if catalog.regions.contains_key(&region) {
        return refuse(format!("the catalog still has region {region}"));
    }
    // A group never opens a region that it has dropped.
    if catalog.next_region_id != 0 && region >= catalog.next_region_id {
        return refuse(format!("the catalog never had region {region}"));
    }
    // A child exists in its group before the catalog has its route.
    let mut changes = catalog.tables.values().flat_map(|table| &table.route_changes);
    if changes.any(|change| replaces(change, region) || change.child_ids.contains(&region)) {
        return refuse(format!("region {region} takes part in a split or merge"));
    }
    Ok(())
}

/// Checks the start of a replica.
pub(super) fn start_group(catalog: &CatalogRecords, request: &StartGroupRequest) -> Checked {
    let id = request.group_id;
    let group = group(catalog, id)?;
    let named: Vec<u64> = request.first_members.iter().map(|member| member.node_id).collect();
    if named != group.first_members {
        return refuse(format!("the catalog has other first members for group {id}"));
    }
    // The first membership has these addresses, and replicas are reached at them.
    let is_at = |member: &v1::GroupMember| {
        catalog.nodes.get(&member.node_id).is_some_and(|known| known.address == member.address)
    };
    if let Some(member) = request.first_members.iter().find(|member| !is_at(member)) {
        return refuse(format!("the catalog has another address for node {}", member.node_id));
    }
    let own = request.header.as_ref().map_or(0, |header| header.target_node);
    match (group.state(), request.initialize) {
        (GroupState::Creating, true) if group.first_members.first() == Some(&own) => Ok(()),
        (GroupState::Creating | GroupState::Active, false) => Ok(()),
        (state, _) => refuse(format!(
            "group {id} is {}: its replica is not started this way",
            state.as_str_name().trim_start_matches("GROUP_STATE_").to_lowercase()
        )),
    }
}

/// Checks the node of a change of members. A promoted learner must also have caught up, which only the
/// group's leader knows.
pub(super) fn change_membership(
    catalog: &CatalogRecords,
    request: &ChangeMembershipRequest,
) -> Checked {
    let id = request.group_id;
    if group(catalog, id)?.state() != GroupState::Active {
        return refuse(format!("group {id} is not active: its members do not change"));
    }
    match &request.change {
        Some(Change::AddLearner(member)) => {
            member_node(catalog, member.node_id, Some(&member.address))
        }
        Some(Change::Promote(node)) => member_node(catalog, *node, None),
        Some(Change::Remove(_)) | None => Ok(()),
    }
}

fn member_node(catalog: &CatalogRecords, node: u64, address: Option<&str>) -> Checked {
    let known = catalog
        .nodes
        .get(&node)
        .filter(|known| known.role() == NodeRole::Data && known.state() != NodeState::Removed);
    match (known, address) {
        (None, _) => refuse(format!("the catalog has no data node {node}")),
        (Some(known), Some(address)) if known.address != address => {
            refuse(format!("the catalog has another address for node {node}"))
        }
        (Some(_), _) => Ok(()),
    }
}

fn group(catalog: &CatalogRecords, id: u64) -> Result<&v1::Group, Refusal> {
    catalog.groups.get(&id).ok_or_else(|| contradiction(format!("the catalog has no group {id}")))
}

fn region_place(
    catalog: &CatalogRecords,
    group: u64,
    region: u64,
) -> Result<&crate::catalog::RegionPlace, Refusal> {
    catalog.regions.get(&region).filter(|place| place.group_id == group).ok_or_else(|| {
        contradiction(format!("the catalog has no region {region} in group {group}"))
    })
}

fn table(catalog: &CatalogRecords, id: u32) -> Result<&v1::Table, Refusal> {
    catalog.tables.get(&id).ok_or_else(|| contradiction(format!("the catalog has no table {id}")))
}

fn changing_table(
    catalog: &CatalogRecords,
    group: u64,
    region: u64,
) -> Result<&v1::Table, Refusal> {
    table(catalog, region_place(catalog, group, region)?.table_id)
}

/// Returns the change in progress if it is the one whose step a call names.
fn change_of<'a>(
    table: &'a v1::Table,
    step: Option<&ProcedureStep>,
    expected: u32,
) -> Result<&'a v1::TableChange, Refusal> {
    // A region never takes a step again that is not above its greatest one.
    let step = step.filter(|step| step.step == expected);
    let number = step.map(|step| step.number);
    match &table.change {
        Some(change) if Some(change.number) == number => Ok(change),
        _ => Err(contradiction(format!("the catalog has no such change of table {}", table.name))),
    }
}

fn no_change(table: &v1::Table) -> Checked {
    refuse(format!("the catalog has no such change of table {}", table.name))
}

fn refuse(text: impl Into<String>) -> Checked {
    Err(contradiction(text))
}

fn contradiction(text: impl Into<String>) -> Refusal {
    Refusal::new(Reason::InvalidArgument, text)
}

#[cfg(test)]
mod tests;
