//! Oldest readable epochs of tables, as the leaders of their regions report them.
//!
//! A table whose oldest readable epoch is its own, and not known, is named by no barrier, and its regions keep all versions. A
//! change of the table learns it; for a table that is altered or truncated and not changed afterwards, the leader does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, StreamExt};
use tidewater_common::feature_level::FeatureLevel;
use tidewater_common::ids::{GroupId, NodeId, RegionId, TableId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::meta_command::Kind;
use tidewater_proto::v1::{self, Reason, RegionInfo, change_collections::Change};
use tokio::time::{MissedTickBehavior, interval};

use super::leader_term::LeaderTerm;
use super::{Control, Observations};
use crate::catalog::{MetaState, Since};
use crate::commands::collections::{MAX_NAMES, is_truncated};

/// Time between two looks for tables.
const INTERVAL: Duration = Duration::from_secs(2);
/// Data nodes that are asked at a time.
const CONCURRENT_NODES: usize = 16;

/// Table whose oldest readable epoch is its own, and not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UnknownSince {
    table: TableId,
    name: String,
    /// Number of its changes: the answers of regions are void after another one.
    changes: u64,
}

/// Returns a table if its regions can be asked for its oldest readable epoch, and have to be.
pub(crate) fn unknown_since(state: &MetaState, table: TableId) -> Option<UnknownSince> {
    let record = state.collection(table);
    let known = record.is_some_and(|record| matches!(record.since, Since::Known(_)));
    let table =
        state.table(table).filter(|table| table.is_live() && table.options.explicit_since)?;
    // The regions do not have their epochs after the truncation yet.
    let is_asked = !known && !is_truncated(state, table);
    let unknown =
        || UnknownSince { table: table.id, name: table.name.clone(), changes: table.changes };
    is_asked.then(unknown)
}

/// Returns the oldest epoch that all regions of a table can be read at. `state`: that in which the table was found.
///
/// # Errors
/// A region was not reported by a leader that has confirmed to lead its group.
pub(crate) async fn learn(
    control: &Control,
    observations: &Observations,
    state: &MetaState,
    of: &UnknownSince,
) -> Result<v1::LearnedSince, Refusal> {
    let routes = || state.routes_of(of.table);
    let regions: BTreeSet<RegionId> = routes().map(|route| route.route_id).collect();
    let groups: BTreeSet<GroupId> = routes().map(|route| route.group_id).collect();
    let leader = |group: GroupId| -> Option<NodeId> {
        let observed = observations.leader_of(group);
        observed.or_else(|| state.group(group).and_then(|group| group.leader))
    };
    let nodes: BTreeSet<NodeId> = groups.into_iter().filter_map(leader).collect();
    let answers: Vec<Vec<RegionInfo>> = stream::iter(nodes)
        .map(|node| control.led_regions(node, &of.name))
        .buffer_unordered(CONCURRENT_NODES)
        .filter_map(|answer| async { answer.ok() })
        .collect()
        .await;
    let led = answers.into_iter().flatten().filter(|info| info.leader);
    let reported = led.map(|info| (RegionId(info.region_id), info.since)).collect();
    let since = greatest_since(&regions, &reported).map_err(|missing| {
        let text =
            format!("the leader of region {missing} of table {:?} has not answered", of.name);
        Refusal::new(Reason::RegionLoading, text)
    })?;
    let table = Some(v1::TableSince { table_id: of.table.get(), since });
    Ok(v1::LearnedSince { table, changes: of.changes })
}

/// Returns the greatest of the regions' oldest readable epochs, or the first region without one.
fn greatest_since(
    regions: &BTreeSet<RegionId>,
    reported: &BTreeMap<RegionId, u64>,
) -> Result<u64, RegionId> {
    let mut greatest = 0;
    for region in regions {
        greatest = greatest.max(*reported.get(region).ok_or(*region)?);
    }
    Ok(greatest)
}

impl LeaderTerm {
    /// Learns the oldest readable epochs that are not known until the term ends.
    pub(super) async fn learn_sinces(self: Arc<Self>) {
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Err(problem) = self.learn_unknown_sinces().await {
                tracing::debug!(%problem, "oldest readable epochs are not recorded yet");
            }
        }
    }

    async fn learn_unknown_sinces(&self) -> Result<(), Refusal> {
        let state = self.group.view.read();
        if state.header().feature_level < FeatureLevel::COLLECTIONS {
            return Ok(());
        }
        let explicit = state.tables().filter(|table| table.options.explicit_since);
        let unknown = explicit.filter_map(|table| unknown_since(&state, table.id));
        let mut learned = Vec::new();
        for of in unknown.take(MAX_NAMES) {
            match learn(&self.control, &self.observations, &state, &of).await {
                Ok(since) => learned.push(since),
                Err(problem) => tracing::debug!(%problem, "oldest readable epoch not learned yet"),
            }
        }
        if learned.is_empty() {
            return Ok(());
        }
        let Some(change) = self.observations.sent_epochs.begin_change(self.term) else {
            return Ok(());
        };
        let command = v1::ChangeCollections {
            upper: change.epoch().get(),
            history_ms: self.timing.barriers.history_ms(),
            learned,
            change: Some(Change::Record(v1::RecordSinces {})),
        };
        self.command(Kind::ChangeCollections(command)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::collections::testing::{acquire, alter, change, with_tables};
    use crate::commands::procedures::testing::{complete, truncate};
    use crate::commands::testing::run;

    #[test]
    fn all_regions_must_report_their_since() {
        let regions = [1, 2].map(RegionId).into();
        let reports = |of: &[(u64, u64)]| -> BTreeMap<RegionId, u64> {
            of.iter().map(|(region, since)| (RegionId(*region), *since)).collect()
        };
        // Another region has left the table.
        let all = reports(&[(1, 5), (2, 9), (3, 20)]);
        assert_eq!(greatest_since(&regions, &all), Ok(9));
        assert_eq!(greatest_since(&regions, &reports(&[(1, 5)])), Err(RegionId(2)));
        assert_eq!(greatest_since(&regions, &reports(&[])), Err(RegionId(1)));
    }

    #[test]
    fn unknown_sinces_are_asked_for_outside_truncations() {
        let mut state = crate::commands::procedures::testing::with_tables();
        let t = TableId(1);
        assert_eq!(unknown_since(&state, t), None, "its since is that of its groups");
        alter(&mut state, 3, "t");
        assert_eq!(unknown_since(&state, t).unwrap().changes, 2);
        let mut state = with_tables();
        run(&mut state, change(20, acquire(1, "h", &["t"], 0))).unwrap();
        assert_eq!(unknown_since(&state, t), None, "its since is known");
        let u = TableId(2);
        run(&mut state, truncate(10, "u")).unwrap();
        assert_eq!(unknown_since(&state, u), None, "its regions are being truncated");
        complete(&mut state, 10);
        assert_eq!(unknown_since(&state, u).unwrap().changes, 3);
    }
}
