//! Regions of a table as their owners report them, and the regions whose owner did not report.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidewater_common::ids::{GroupId, NodeId, RegionId, TableId};
use tidewater_proto::v1;

use super::RegionFilter;
use crate::catalog::{Catalog, RouteInfo, TableInfo};
use crate::client::Client;
use crate::error::ClientError;

/// State in which the numbers of a region are complete.
const SERVING: &str = "serving";

/// A region of a table.
#[derive(Debug, Clone, PartialEq)]
pub struct TableRegion {
    /// Id of the region.
    pub region: RegionId,
    /// Report of the owner, or the reason why there is none.
    pub report: Result<v1::RegionInfo, String>,
}

/// A table and its regions.
#[derive(Debug, Clone)]
pub struct TableRegions {
    /// The table.
    pub table: Arc<TableInfo>,
    /// All regions of the table, in order of id.
    pub regions: Vec<TableRegion>,
}

/// Stored rows and files of a table: sums over the regions that were reported.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TableSize {
    /// Regions of the table.
    pub regions: usize,
    /// Regions whose owners have reported.
    pub reported: usize,
    /// Row versions in files and in memory.
    pub rows: u64,
    /// Size of the files in bytes.
    pub bytes: u64,
}

/// Region that an owner should report.
#[derive(Debug, Clone, Copy)]
struct ExpectedRegion {
    region: RegionId,
    group: GroupId,
    /// Leader of the group, as last reported to the meta service.
    leader: Option<NodeId>,
}

impl Client {
    /// Returns a table and the state of its regions, with the bounds of their time columns.
    ///
    /// # Errors
    /// [`ClientError::TableNotFound`]. A region without a report is part of the result.
    pub async fn table_regions(&self, name: &str) -> Result<TableRegions, ClientError> {
        let table = self.table(name).await?;
        let filter = RegionFilter {
            table: Some(name.to_owned()),
            with_times: true,
            ..RegionFilter::default()
        };
        let (reported, silent) = self.list_regions(filter).await?;
        let catalog = self.core.catalog();
        let routes = table_routes(&catalog, &table);
        let expected: Vec<ExpectedRegion> =
            routes.map(|route| expected_region(&catalog, route)).collect();
        let regions = match_reports(&expected, reported, &silent);
        Ok(TableRegions { table, regions })
    }

    /// Returns the sizes of all tables with regions, by the ids of the tables, and the data nodes that did not answer with the
    /// reasons. Calls all data nodes once.
    ///
    /// # Errors
    /// The meta service cannot be reached.
    #[allow(clippy::type_complexity, reason = "the second part is that of `list_regions`")]
    pub async fn table_sizes(
        &self,
    ) -> Result<(BTreeMap<TableId, TableSize>, Vec<(NodeId, String)>), ClientError> {
        let (reported, silent) = self.list_regions(RegionFilter::default()).await?;
        let catalog = self.core.catalog();
        let mut expected: BTreeMap<TableId, Vec<ExpectedRegion>> = BTreeMap::new();
        for route in catalog.routes() {
            expected.entry(route.table).or_default().push(expected_region(&catalog, route));
        }
        Ok((sizes(&expected, reported), silent))
    }

    /// Returns the ids of a table's regions, in order.
    ///
    /// # Errors
    /// [`ClientError::TableNotFound`].
    pub async fn table_region_ids(&self, name: &str) -> Result<Vec<RegionId>, ClientError> {
        let table = self.table(name).await?;
        let catalog = self.core.refresh_catalog().await?;
        let mut ids: Vec<RegionId> =
            table_routes(&catalog, &table).map(|route| route.region).collect();
        ids.sort_unstable();
        Ok(ids)
    }
}

fn table_routes<'a>(
    catalog: &'a Catalog,
    table: &TableInfo,
) -> impl Iterator<Item = &'a Arc<RouteInfo>> {
    let table = table.id;
    catalog.routes().filter(move |route| route.table == table)
}

fn expected_region(catalog: &Catalog, route: &RouteInfo) -> ExpectedRegion {
    let leader = catalog.group(route.group).map(|group| NodeId(group.leader));
    ExpectedRegion { region: route.region, group: route.group, leader }
}

fn sizes(
    expected: &BTreeMap<TableId, Vec<ExpectedRegion>>,
    reported: Vec<v1::RegionInfo>,
) -> BTreeMap<TableId, TableSize> {
    let all: Vec<ExpectedRegion> = expected.values().flatten().copied().collect();
    let matched = match_reports(&all, reported, &[]);
    let reports: BTreeMap<RegionId, &v1::RegionInfo> = matched
        .iter()
        .filter_map(|of| of.report.as_ref().ok().map(|report| (of.region, report)))
        .collect();
    let size = |regions: &Vec<ExpectedRegion>| {
        let known = regions.iter().filter_map(|of| reports.get(&of.region));
        known.fold(TableSize { regions: regions.len(), ..TableSize::default() }, |sum, report| {
            TableSize {
                regions: sum.regions,
                reported: sum.reported + 1,
                rows: sum.rows.saturating_add(report.rows),
                bytes: sum.bytes.saturating_add(report.bytes),
            }
        })
    };
    expected.iter().map(|(table, regions)| (*table, size(regions))).collect()
}

/// Assigns the reports to the regions of a table. A region without a complete report gets the reason.
fn match_reports(
    expected: &[ExpectedRegion],
    reported: Vec<v1::RegionInfo>,
    silent: &[(NodeId, String)],
) -> Vec<TableRegion> {
    // Two groups report a region that moves between them: that of its route counts.
    let mut latest: BTreeMap<(u64, u64), v1::RegionInfo> = BTreeMap::new();
    for report in reported {
        // A deposed leader may still report a region that its successor reports too.
        let is_older = latest
            .get(&(report.group_id, report.region_id))
            .is_some_and(|known| report.applied_index <= known.applied_index);
        if !is_older {
            latest.insert((report.group_id, report.region_id), report);
        }
    }
    let mut regions: Vec<TableRegion> = expected
        .iter()
        .map(|expected| {
            let report = match latest.remove(&(expected.group.get(), expected.region.get())) {
                Some(report) if report.state == SERVING => Ok(report),
                Some(report) => {
                    Err(format!("node {} reports it as {}", report.node_id, report.state))
                }
                None => Err(missing_report(*expected, silent)),
            };
            TableRegion { region: expected.region, report }
        })
        .collect();
    regions.sort_by_key(|region| region.region);
    regions
}

fn missing_report(expected: ExpectedRegion, silent: &[(NodeId, String)]) -> String {
    let of_leader = silent.iter().find(|(node, _)| Some(*node) == expected.leader);
    match of_leader {
        Some((node, reason)) => format!("node {node} did not answer: {reason}"),
        None => format!("no node leads its group {}", expected.group),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(region: u64, node: u64, applied_index: u64, state: &str) -> v1::RegionInfo {
        v1::RegionInfo {
            region_id: region,
            group_id: region + 100,
            node_id: node,
            applied_index,
            state: state.to_owned(),
            ..v1::RegionInfo::default()
        }
    }

    fn matched(reported: Vec<v1::RegionInfo>, silent: &[(u64, &str)]) -> Vec<(u64, String)> {
        let expected = |region, leader| ExpectedRegion {
            region: RegionId(region),
            group: GroupId(region + 100),
            leader: Some(NodeId(leader)),
        };
        let silent: Vec<(NodeId, String)> =
            silent.iter().map(|(node, reason)| (NodeId(*node), (*reason).to_owned())).collect();
        match_reports(&[expected(2, 12), expected(1, 11)], reported, &silent)
            .into_iter()
            .map(|region| {
                let shown = match region.report {
                    Ok(report) => format!("node {}", report.node_id),
                    Err(reason) => reason,
                };
                (region.region.get(), shown)
            })
            .collect()
    }

    #[test]
    fn sizes_are_sums_over_reported_regions() {
        let expected = |region| ExpectedRegion {
            region: RegionId(region),
            group: GroupId(region + 100),
            leader: None,
        };
        let of_tables = BTreeMap::from([
            (TableId(1), vec![expected(1), expected(2)]),
            (TableId(2), vec![expected(3), expected(4)]),
        ]);
        let of =
            |region, rows| v1::RegionInfo { rows, bytes: 10, ..report(region, 11, 5, SERVING) };
        // The last one is of no table.
        let found = sizes(&of_tables, vec![of(1, 3), of(2, 4), of(3, 5), of(9, 6)]);
        let size = |reported, rows, bytes| TableSize { regions: 2, reported, rows, bytes };
        let expected = [(TableId(1), size(2, 7, 20)), (TableId(2), size(1, 5, 10))];
        assert_eq!(found, BTreeMap::from(expected));
    }

    #[test]
    fn each_region_has_a_report_or_a_reason() {
        let serving = |region, node| report(region, node, 5, SERVING);
        type Case = (Vec<v1::RegionInfo>, &'static [(u64, &'static str)], [&'static str; 2]);
        let leaving = v1::RegionInfo { group_id: 9, ..report(2, 14, 7, SERVING) };
        let cases: [Case; 7] = [
            (vec![serving(1, 11), serving(2, 12)], &[], ["node 11", "node 12"]),
            (
                vec![serving(1, 11)],
                &[(12, "timeout")],
                ["node 11", "node 12 did not answer: timeout"],
            ),
            (vec![serving(1, 11)], &[(13, "timeout")], ["node 11", "no node leads its group 102"]),
            (
                vec![serving(1, 11), report(2, 12, 5, "loading")],
                &[],
                ["node 11", "node 12 reports it as loading"],
            ),
            // The successor has applied more entries than the deposed leader.
            (
                vec![serving(1, 11), report(2, 13, 6, SERVING), serving(2, 12)],
                &[],
                ["node 11", "node 13"],
            ),
            // A region moves: the group of its route counts.
            (vec![serving(1, 11), leaving, serving(2, 12)], &[], ["node 11", "node 12"]),
            // A region that the catalog does not contain is of a dropped table.
            (vec![serving(1, 11), serving(2, 12), serving(3, 11)], &[], ["node 11", "node 12"]),
        ];
        for (reported, silent, expected) in cases {
            let expected = [(1, expected[0].to_owned()), (2, expected[1].to_owned())];
            assert_eq!(matched(reported, silent), expected);
        }
    }
}
