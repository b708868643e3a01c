//! Read policies and capabilities of tables.

use std::collections::BTreeMap;

use tidewater_collections::{CapabilityError, ChangeBatch};
use tidewater_common::ids::{Epoch, TableId};
use tidewater_proto::v1;

use super::CollectionsAt;
use crate::catalog::{CatalogChange, Collection, Table, policy_from_wire};
use crate::commands::{CollectionCommandError, CommandError};

/// Maximum number of tables of which one command changes the capabilities. Apply depends on it, so it never changes.
const MAX_TABLES: usize = 1_000;

/// Changes of the capabilities of a table, by epoch.
type EpochChanges = Vec<(Epoch, i64)>;

/// Sets the policy of a table, or that of the cluster.
pub(super) fn set(
    at: &CollectionsAt<'_>,
    request: &v1::SetReadPolicyRequest,
) -> Result<CatalogChange, CommandError> {
    let table = at.table(&request.table)?;
    let policy = match &request.policy {
        Some(wire) => policy_from_wire(wire).ok_or_else(|| {
            CommandError::Malformed("the kind of the read policy is unknown".to_owned())
        })?,
        None => at.cluster_policy(),
    };
    policy.validate(at.upper).map_err(CollectionCommandError::Policy)?;
    let (record, _) = at.advanced(table)?;
    Ok(at.changed(vec![Collection { policy, ..record }]))
}

/// Adds and takes away capabilities of tables, all or none.
pub(super) fn update_capabilities(
    at: &CollectionsAt<'_>,
    request: &v1::UpdateReadCapabilitiesRequest,
) -> Result<CatalogChange, CommandError> {
    if request.changes.len() > MAX_TABLES {
        let text = "capabilities of more than 1,000 tables are changed";
        return Err(CollectionCommandError::BadRequest(text.to_owned()).into());
    }
    let mut by_table: BTreeMap<TableId, (&Table, EpochChanges)> = BTreeMap::new();
    for of_table in &request.changes {
        let table = at.table(&of_table.table)?;
        let changes = of_table.changes.iter().map(|of| (Epoch(of.epoch), of.difference));
        by_table.entry(table.id).or_insert((table, Vec::new())).1.extend(changes);
    }
    let mut records = Vec::with_capacity(by_table.len());
    for (table, changes) in by_table.into_values() {
        let changes = ChangeBatch::joined(changes).map_err(CollectionCommandError::Changes)?;
        let (record, since) = at.advanced(table)?;
        let refused =
            |error| CollectionCommandError::Capabilities { table: table.name.clone(), error };
        records.push(with_capabilities(record, since, &changes).map_err(refused)?);
    }
    Ok(at.changed(records))
}

/// Returns a record after changes of its capabilities.
fn with_capabilities(
    record: Collection,
    since: Epoch,
    changes: &ChangeBatch,
) -> Result<Collection, CapabilityError> {
    let below = changes.changes().find(|(epoch, difference)| *difference > 0 && *epoch < since);
    if let Some((requested, _)) = below {
        return Err(CapabilityError::BelowSince { requested, since });
    }
    let capabilities = record.capabilities.checked_apply(changes)?;
    Ok(Collection { capabilities, ..record })
}
