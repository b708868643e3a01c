//! Costs of holds: the row versions that they keep.
//!
//! A region keeps the versions that reads as of its oldest readable epoch or later return. When the hold at the least epoch of a
//! table ends, since moves to the next hold, or to the epoch that the policy implies, and the versions that only reads before
//! return are dropped. These are the cost of a hold: what would be freed, in addition, if it ended after all earlier ones.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tidewater_common::ids::{Epoch, RegionId};
use tidewater_common::quote::quoted;
use tidewater_proto::v1;
use tidewater_rpc::timed;

use crate::client::Client;
use crate::core::Repeat;
use crate::error::ClientError;

/// Timeout of an attempt to count the versions of a region, which reads the keys of all of its rows.
const COUNT_TIMEOUT: Duration = Duration::from_secs(600);
/// Maximum number of held epochs of a table: with another one, they are the most that a data node counts in a call.
const MAX_HELD: usize = 1_023;

/// Row versions that holds keep.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HoldCost {
    /// Number of versions.
    pub versions: u64,
    /// Their size in bytes, estimated by the average size of the versions of each region.
    pub bytes: u64,
}

impl HoldCost {
    /// Returns the sum of two costs.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            versions: self.versions.saturating_add(other.versions),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }
}

/// Costs of the holds of a table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableHoldCosts {
    /// Costs by the epochs of the holds. Holds at the same epoch share a cost, since only all of them keep it.
    pub by_epoch: BTreeMap<Epoch, HoldCost>,
}

impl TableHoldCosts {
    /// Returns what all holds of the table keep.
    pub fn total(&self) -> HoldCost {
        self.by_epoch.values().copied().fold(HoldCost::default(), HoldCost::plus)
    }
}

impl Client {
    /// Returns what the holds of a table keep. Each region reads the keys of its rows once; regions that
    /// were written during the call count as of different times. The deadline of the client bounds the count of each region.
    ///
    /// # Errors
    /// [`ClientError::BadInput`] for more than 1,023 held epochs; [`ClientError::Refused`] with `TableNotFound` and others; those of
    /// the calls to the regions.
    pub async fn hold_costs(&self, table: &str) -> Result<TableHoldCosts, ClientError> {
        let holds = self.read_holds(Some(table)).await?;
        let held = holds.iter().filter_map(|listed| listed.hold.as_ref());
        let held: BTreeSet<Epoch> = held.map(|hold| Epoch(hold.epoch)).collect();
        if held.is_empty() {
            return Ok(TableHoldCosts::default());
        }
        if held.len() > MAX_HELD {
            let (table, epochs) = (quoted(table), held.len());
            let text = format!(
                "table {table} is held at {epochs} epochs: costs are counted for at most {MAX_HELD}"
            );
            return Err(ClientError::BadInput(text));
        }
        let found = self.collection_frontiers(&[table.to_owned()]).await?;
        let frontiers = found.into_iter().next().unwrap_or_default();
        // The last hold of a dropped table keeps all of its rows.
        let is_dropped = !frontiers.dropped_name.is_empty();
        // An earlier release of the meta leader does not report the second one.
        let unheld = match frontiers.unheld_since {
            0 => frontiers.upper,
            since => since,
        };
        let unheld = (!is_dropped).then_some(Epoch(unheld));
        let sinces = sinces(&held, unheld);
        let mut costs = TableHoldCosts::default();
        for region in self.table_region_ids(table).await? {
            let counted = self.count_versions(region, &sinces).await?;
            add_region(&mut costs, (&held, is_dropped), &sinces, &counted);
        }
        Ok(costs)
    }

    /// Counts the row versions that a region has to keep while these epochs are its oldest readable ones.
    async fn count_versions(
        &self,
        region: RegionId,
        sinces: &[Epoch],
    ) -> Result<v1::CountVersionsResponse, ClientError> {
        let router = &self.core.router;
        let what = format!("count of the versions of region {region}");
        self.on_region(region, &what, Repeat::Read, COUNT_TIMEOUT, |group, channel, timeout| {
            let mut client = router.region_admin(channel);
            let request = v1::CountVersionsRequest {
                group_id: group.get(),
                region_id: region.get(),
                sinces: sinces.iter().map(|epoch| epoch.get()).collect(),
            };
            async move { client.count_versions(timed(request, timeout)).await }
        })
        .await
    }
}

/// Returns the epochs at which versions are counted, ascending: those of the holds, and the one from which on the table can be
/// read without holds. A hold at or after that keeps nothing. `None`: without holds, the table is removed.
fn sinces(held: &BTreeSet<Epoch>, unheld: Option<Epoch>) -> Vec<Epoch> {
    let keeps = |epoch: &Epoch| unheld.is_none_or(|unheld| *epoch < unheld);
    held.iter().copied().filter(keeps).chain(unheld).collect()
}

/// Adds the costs in a region, which has counted its versions at `sinces`.
fn add_region(
    costs: &mut TableHoldCosts,
    (held, is_dropped): (&BTreeSet<Epoch>, bool),
    sinces: &[Epoch],
    counted: &v1::CountVersionsResponse,
) {
    let later = counted.versions.iter().copied().skip(1).chain([0]);
    let counts = counted.versions.iter().copied().zip(later);
    let differences = counts.map(|(versions, later)| versions.saturating_sub(later));
    let kept: BTreeMap<Epoch, u64> = sinces.iter().copied().zip(differences).collect();
    for epoch in held {
        // Without holds, the last of the epochs is the oldest readable one.
        let is_kept = is_dropped || sinces.last() != Some(epoch);
        let versions = kept.get(epoch).copied().filter(|_| is_kept).unwrap_or(0);
        let bytes = versions.saturating_mul(counted.version_bytes);
        let cost = costs.by_epoch.entry(*epoch).or_default();
        *cost = cost.plus(HoldCost { versions, bytes });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cost_of_a_hold_ends_at_the_next_one() {
        let held: BTreeSet<Epoch> = [3, 5, 9].map(Epoch).into();
        let sinces = sinces(&held, Some(Epoch(8)));
        assert_eq!(sinces, [3, 5, 8].map(Epoch));
        let mut costs = TableHoldCosts::default();
        for (versions, version_bytes) in [([100, 60, 50], 10), ([9, 9, 9], 3)] {
            let versions = versions.to_vec();
            let counted = v1::CountVersionsResponse { versions, version_bytes };
            add_region(&mut costs, (&held, false), &sinces, &counted);
        }
        let cost = |versions, bytes| HoldCost { versions, bytes };
        let expected = [(3, cost(40, 400)), (5, cost(10, 100)), (9, cost(0, 0))];
        let expected = expected.map(|(epoch, cost)| (Epoch(epoch), cost));
        assert_eq!(costs.by_epoch, expected.into());
        assert_eq!(costs.total(), cost(50, 500));
    }

    #[test]
    fn holds_within_the_policy_keep_nothing() {
        let held: BTreeSet<Epoch> = [7, 8].map(Epoch).into();
        assert_eq!(sinces(&held, Some(Epoch(7))), [Epoch(7)]);
        let mut costs = TableHoldCosts::default();
        let counted = v1::CountVersionsResponse { versions: vec![60], version_bytes: 10 };
        add_region(&mut costs, (&held, false), &[Epoch(7)], &counted);
        assert_eq!(costs.total(), HoldCost::default());
    }

    #[test]
    fn last_hold_of_a_dropped_table_keeps_its_rows() {
        let held: BTreeSet<Epoch> = [3, 5].map(Epoch).into();
        let sinces = sinces(&held, None);
        let mut costs = TableHoldCosts::default();
        let counted = v1::CountVersionsResponse { versions: vec![100, 60], version_bytes: 1 };
        add_region(&mut costs, (&held, true), &sinces, &counted);
        let versions: Vec<u64> = costs.by_epoch.values().map(|cost| cost.versions).collect();
        assert_eq!(versions, [40, 60]);
    }
}
