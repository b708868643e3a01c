//! Collection of a table: its epochs that can be read, as the owners of its regions report them, and what keeps them, as the
//! meta leader reports it. The epochs of a refreshable table are those that the meta leader reports.

use std::slice;
use std::time::Duration;

use serde::Serialize;
use tidewater_client::admin::{HoldCost, TableEpochs, TableHoldCosts, TableRegion, TableRegions};
use tidewater_client::{Client, ClientError};
use tidewater_common::feature_level::FeatureLevel;
use tidewater_common::ids::Epoch;
use tidewater_proto::v1::{CollectionFrontiers, ListedHold, Reason};

use crate::commands::collection::capabilities::capabilities_text;
use crate::commands::collection::list::lag_ms;
use crate::commands::collection::policy_text::policy_text;
use crate::commands::hold::list::costs_of;
use crate::output::amount::{bytes_text, duration_text, grouped};
use crate::output::table;

/// Epochs of a table that can be read, and what keeps them. The JSON field names and the texts of policies are stable.
#[derive(Debug, Serialize)]
pub(super) struct Collection {
    /// Oldest epoch that can be read, and first one that is not complete; null if the owner of a region did not report, or
    /// has applied no barrier.
    since: Option<u64>,
    upper: Option<u64>,
    /// Time between them; null if one is null or has no begin.
    lag_ms: Option<u64>,
    policy: String,
    /// Number of capabilities.
    capabilities: u64,
    /// Number of holds.
    holds: usize,
    /// The holds, by epoch.
    held_by: Vec<TableHold>,
}

/// A hold of the table. The JSON field names are stable.
#[derive(Debug, Serialize)]
struct TableHold {
    name: String,
    epoch: u64,
    /// Row versions that would be freed if the hold and all earlier ones of the table ended; null without --costs.
    freed_versions: Option<u64>,
    /// Their size, estimated by the average version.
    freed_bytes: Option<u64>,
}

impl Collection {
    /// Returns the collection of a table; `None`: the feature level of the cluster is below that of collections, or the table
    /// is refreshable and the meta leader does not report its frontiers.
    pub(super) async fn of(
        client: &Client,
        found: &TableRegions,
        with_costs: bool,
    ) -> Result<Option<Self>, ClientError> {
        // A cluster of a low level sends no barriers: the meta leader does not answer the next call then.
        let level = FeatureLevel::new(client.cluster_status().await?.feature_level);
        if level < FeatureLevel::COLLECTIONS {
            return Ok(None);
        }
        let name = &found.table.name;
        let frontiers = match client.collection_frontiers(slice::from_ref(name)).await {
            Ok(frontiers) => frontiers.into_iter().next(),
            Err(error) if is_refreshable(&error) => None,
            Err(error) => return Err(error),
        };
        let Some(frontiers) = frontiers else { return Ok(None) };
        let holds = client.read_holds(Some(name)).await?;
        let costs = if with_costs { Some(costs_of(client, name).await?) } else { None };
        let epochs = epochs_of(found.table.options.refreshable, &frontiers, &found.regions);
        Ok(Some(Self::new(epochs, &frontiers, table_holds(holds, costs.as_ref()))))
    }

    fn new(
        epochs: Option<TableEpochs>,
        frontiers: &CollectionFrontiers,
        held_by: Vec<TableHold>,
    ) -> Self {
        Self {
            since: epochs.map(|epochs| epochs.since.get()),
            upper: epochs.map(|epochs| epochs.upper.get()),
            lag_ms: epochs.and_then(|TableEpochs { since, upper }| lag_ms(since, upper)),
            policy: policy_text(frontiers.policy.as_ref()),
            capabilities: frontiers.capabilities,
            holds: held_by.len(),
            held_by,
        }
    }

    /// Returns the lines for people, without the list of holds.
    pub(super) fn lines(&self) -> Vec<String> {
        let holds = match self.holds {
            1 => "1 hold".to_owned(),
            number => format!("{number} holds"),
        };
        let mut lines: Vec<String> = self.epochs_line().into_iter().collect();
        lines.push(format!("policy       {}", self.policy));
        lines.push(format!("held by      {holds}, {}", capabilities_text(self.capabilities)));
        lines
    }

    fn epochs_line(&self) -> Option<String> {
        let epochs = TableEpochs { since: Epoch(self.since?), upper: Epoch(self.upper?) };
        Some(match (epochs.newest(), self.lag_ms) {
            (Some(newest), Some(lag_ms)) => {
                let history = duration_text(Duration::from_millis(lag_ms));
                format!("epochs       {} to {newest} can be read: the last {history}", epochs.since)
            }
            (Some(newest), None) => {
                format!("epochs       {} to {newest} can be read", epochs.since)
            }
            (None, _) => {
                format!("epochs       none can be read, the current one is {}", epochs.upper)
            }
        })
    }

    /// Returns the list of holds for people; `None`: there are none.
    pub(super) fn hold_table(&self) -> Option<String> {
        let has_costs = self.held_by.first()?.freed_versions.is_some();
        let headings: &[&str] = if has_costs {
            &["HOLD", "EPOCH", "FREED VERSIONS", "FREED SIZE"]
        } else {
            &["HOLD", "EPOCH"]
        };
        Some(table(headings, self.held_by.iter().map(TableHold::cells)))
    }
}

impl TableHold {
    fn cells(&self) -> Vec<String> {
        let mut cells = vec![self.name.clone(), self.epoch.to_string()];
        cells.extend(self.freed_versions.map(grouped));
        cells.extend(self.freed_bytes.map(bytes_text));
        cells
    }
}

/// Returns the epochs of a table that can be read; `None`: the owner of a region did not report, or has applied no barrier.
fn epochs_of(
    is_refreshable: bool,
    frontiers: &CollectionFrontiers,
    regions: &[TableRegion],
) -> Option<TableEpochs> {
    let epochs = if is_refreshable {
        // Its regions report epochs in which a refresh may be incomplete.
        TableEpochs { since: Epoch(frontiers.since), upper: Epoch(frontiers.upper) }
    } else {
        TableEpochs::of(regions)?
    };
    (epochs.upper > Epoch(0)).then_some(epochs)
}

/// Returns true if the frontiers of a refreshable table were refused.
fn is_refreshable(error: &ClientError) -> bool {
    error.refusal().is_some_and(|refusal| refusal.reason == Reason::TableRefreshable)
}

/// Returns the holds of a table, by epoch, those of an epoch by name.
fn table_holds(listed: Vec<ListedHold>, costs: Option<&TableHoldCosts>) -> Vec<TableHold> {
    let holds = listed.into_iter().filter_map(|listed| listed.hold);
    let mut holds: Vec<TableHold> = holds
        .map(|hold| {
            let freed = costs.map(|costs| freed_until(costs, Epoch(hold.epoch)));
            TableHold {
                name: hold.name,
                epoch: hold.epoch,
                freed_versions: freed.map(|cost| cost.versions),
                freed_bytes: freed.map(|cost| cost.bytes),
            }
        })
        .collect();
    // A stable sort: the holds of a list are in the order of their names.
    holds.sort_by_key(|hold| hold.epoch);
    holds
}

/// Returns the versions that would be freed if all holds at an epoch and before it ended. The cost of an epoch is counted from
/// the end of the earlier holds on.
fn freed_until(costs: &TableHoldCosts, epoch: Epoch) -> HoldCost {
    let ended = costs.by_epoch.range(..=epoch);
    ended.map(|(_, cost)| *cost).fold(HoldCost::default(), HoldCost::plus)
}

#[cfg(test)]
mod tests;
