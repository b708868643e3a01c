//! Oldest readable epochs of the tables that have their own (`TableOptions::explicit_since`), as barriers name them (pure).
//!
//! A table that is not named keeps its epoch, so that a late or incomplete barrier only holds back more than is needed.

use std::collections::BTreeMap;

use tidewater_common::feature_level::FeatureLevel;
use tidewater_common::ids::{Epoch, TableId};
use tidewater_proto::v1::TableSince;

use super::state::{GroupState, RegionState};

#[cfg(test)]
mod tests;

/// Oldest readable epochs that a barrier names, by table.
#[derive(Debug)]
pub struct TableSinces(BTreeMap<TableId, Epoch>);

impl TableSinces {
    /// Creates the oldest readable epochs of a barrier. One beyond the epoch of the barrier, which is not complete, counts as
    /// that epoch. If a table is named twice, the greater one counts.
    pub fn new(named: &[TableSince], epoch: Epoch) -> Self {
        let mut sinces = BTreeMap::new();
        for named in named {
            let since: &mut Epoch = sinces.entry(TableId(named.table_id)).or_default();
            *since = Epoch(named.since).min(epoch).max(*since);
        }
        Self(sinces)
    }

    /// Returns those that have an effect in a group, for the entry of its log: the group has a region of the table with an
    /// earlier one. None below the level of such entries.
    pub fn for_group(&self, group: &GroupState) -> Vec<TableSince> {
        if self.0.is_empty() || group.level < FeatureLevel::COLLECTIONS {
            return Vec::new();
        }
        let later: BTreeMap<TableId, Epoch> =
            group.regions.values().filter_map(|region| self.later(region)).collect();
        let to_wire = |(table, since): (TableId, Epoch)| TableSince {
            table_id: table.get(),
            since: since.get(),
        };
        later.into_iter().map(to_wire).collect()
    }

    /// Advances the oldest readable epoch of a region, if its table is named and has its own.
    pub fn advance(&self, region: &mut RegionState) {
        if let Some((_, since)) = self.later(region) {
            region.since = since;
        }
    }

    /// Returns the table of a region, and its oldest readable epoch if it is later than the region's.
    fn later(&self, region: &RegionState) -> Option<(TableId, Epoch)> {
        let table = region.descriptor.table_id;
        let since = self.0.get(&table).copied()?;
        let is_later = region.descriptor.options.explicit_since && since > region.since;
        is_later.then_some((table, since))
    }
}
