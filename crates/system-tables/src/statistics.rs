//! Statistics of collections: the definition of their table, and their rows (pure).

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray};
use tidewater_client::admin::{NewTable, TableSize};
use tidewater_client::catalog::TableInfo;
use tidewater_common::ids::{Epoch, TableId};
use tidewater_common::schema::dropped_table_name;
use tidewater_proto::v1;

use crate::columns::{self, ColumnDefinition, numbers, texts};

/// Name of the table.
pub(crate) const STATISTICS: &str = "collection_statistics";

/// Columns. The first one is the key.
const COLUMNS: [ColumnDefinition; 13] = [
    ("table_id", "uint64", false),
    ("table", "utf8", false),
    ("dropped", "bool", false),
    ("regions", "uint64", false),
    ("rows", "uint64", true),
    ("bytes", "uint64", true),
    ("lag_ms", "uint64", true),
    ("holds", "uint64", false),
    ("oldest_hold", "utf8", true),
    ("oldest_hold_epoch", "uint64", true),
    ("capabilities", "uint64", false),
    ("refresh_state", "utf8", true),
    ("refreshed_rows", "uint64", true),
];

/// Statistics of a collection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct CollectionStatistics {
    /// Id of the table.
    pub(crate) table: TableId,
    /// Name of the table; of a dropped one, the name that it had.
    pub(crate) name: String,
    /// Holds keep the rows of a dropped table.
    pub(crate) dropped: bool,
    /// Number of regions.
    pub(crate) regions: u64,
    /// Row versions in files and in memory; `None`: the owner of a region has not reported.
    pub(crate) rows: Option<u64>,
    /// Size of the files; `None` as before.
    pub(crate) bytes: Option<u64>,
    /// Time between since and upper; `None`: one of them has no begin, or they are not reported.
    pub(crate) lag_ms: Option<u64>,
    /// Number of holds.
    pub(crate) holds: u64,
    /// Hold at the least epoch, with the epoch.
    pub(crate) oldest_hold: Option<(String, Epoch)>,
    /// Number of capabilities.
    pub(crate) capabilities: u64,
    /// State of the refreshes of a refreshable table, and rows of the source at the last one that was published.
    pub(crate) refresh: Option<(String, u64)>,
}

/// Reports of a cluster about its collections.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    pub(crate) frontiers: Vec<v1::CollectionFrontiers>,
    pub(crate) sizes: BTreeMap<TableId, TableSize>,
    pub(crate) refreshes: Vec<v1::RefreshInfo>,
}

/// Returns the statistics of these tables, by id. The table of the statistics is left out: each round would change it.
pub(crate) fn statistics<'a>(
    tables: impl IntoIterator<Item = &'a TableInfo>,
    reports: &Reports,
) -> Vec<CollectionStatistics> {
    let frontiers: BTreeMap<TableId, &v1::CollectionFrontiers> =
        reports.frontiers.iter().map(|of| (TableId(of.table_id), of)).collect();
    let refreshes: BTreeMap<&str, &v1::RefreshInfo> =
        reports.refreshes.iter().map(|of| (of.table.as_str(), of)).collect();
    // A table may have been dropped after its frontiers were read: the next round has both.
    let is_kept = |id| frontiers.get(&id).is_some_and(|of| !of.dropped_name.is_empty());
    let is_shown = |table: &&TableInfo| {
        let is_dropped = table.name == dropped_table_name(table.id);
        table.name != STATISTICS && (!is_dropped || is_kept(table.id))
    };
    let tables = tables.into_iter().filter(is_shown);
    let mut found: Vec<CollectionStatistics> = tables
        .map(|table| {
            let size = reports.sizes.get(&table.id).copied();
            let known = size.filter(|size| size.reported == size.regions);
            let refresh = refreshes.get(table.name.as_str()).map(|of| {
                let rows = of.record.as_ref().map_or(0, |record| record.published_rows);
                (of.state.clone(), rows)
            });
            let described = CollectionStatistics {
                table: table.id,
                name: table.name.clone(),
                regions: size.map_or(0, |size| size.regions as u64),
                rows: known.map(|size| size.rows),
                bytes: known.map(|size| size.bytes),
                refresh,
                ..CollectionStatistics::default()
            };
            match frontiers.get(&table.id) {
                Some(of) => with_frontiers(described, of),
                None => described,
            }
        })
        .collect();
    found.sort_by_key(|of| of.table);
    found
}

/// Adds the epochs of a collection.
fn with_frontiers(
    of: CollectionStatistics,
    frontiers: &v1::CollectionFrontiers,
) -> CollectionStatistics {
    let begins = Epoch(frontiers.since).ms().zip(Epoch(frontiers.upper).ms());
    let dropped = !frontiers.dropped_name.is_empty();
    CollectionStatistics {
        name: if dropped { frontiers.dropped_name.clone() } else { of.name },
        dropped,
        lag_ms: begins.map(|(since_ms, upper_ms)| upper_ms.saturating_sub(since_ms)),
        holds: frontiers.holds.into(),
        oldest_hold: frontiers.least.as_ref().map(|hold| (hold.name.clone(), Epoch(hold.epoch))),
        capabilities: frontiers.capabilities,
        ..of
    }
}

/// Returns the definition of the table.
pub(crate) fn definition() -> NewTable {
    columns::definition(STATISTICS, &COLUMNS, 1)
}

/// Returns statistics as columns of the table.
pub(crate) fn columns(statistics: &[CollectionStatistics]) -> Vec<ArrayRef> {
    let dropped: BooleanArray = statistics.iter().map(|of| Some(of.dropped)).collect();
    vec![
        numbers(statistics, |of| Some(of.table.get().into())),
        texts(statistics, |of| Some(of.name.as_str())),
        Arc::new(dropped),
        numbers(statistics, |of| Some(of.regions)),
        numbers(statistics, |of| of.rows),
        numbers(statistics, |of| of.bytes),
        numbers(statistics, |of| of.lag_ms),
        numbers(statistics, |of| Some(of.holds)),
        texts(statistics, |of| of.oldest_hold.as_ref().map(|(name, _)| name.as_str())),
        numbers(statistics, |of| of.oldest_hold.as_ref().map(|(_, epoch)| epoch.get())),
        numbers(statistics, |of| Some(of.capabilities)),
        texts(statistics, |of| of.refresh.as_ref().map(|(state, _)| state.as_str())),
        numbers(statistics, |of| of.refresh.as_ref().map(|(_, rows)| *rows)),
    ]
}

#[cfg(test)]
mod tests {
    use tidewater_client::Catalog;

    use super::*;
    use crate::testing::{batch, number, table};

    fn catalog() -> Catalog {
        let names =
            [(3, "t"), (7, "_tw_dropped_7"), (4, STATISTICS), (5, "mirror"), (6, "_tw_dropped_6")];
        crate::testing::catalog(names.map(|(id, name)| table(id, name)).to_vec())
    }

    fn reports() -> Reports {
        let ms = 1_800_000_000_000;
        let hold = v1::ReadHold { name: "h".to_owned(), epoch: 9, ..v1::ReadHold::default() };
        let dropped = v1::CollectionFrontiers {
            table_id: 7,
            since: Epoch::at_ms(ms).get(),
            upper: Epoch::at_ms(ms + 5_000).get(),
            holds: 2,
            least: Some(hold),
            capabilities: 1,
            dropped_name: "old".to_owned(),
            ..v1::CollectionFrontiers::default()
        };
        let known = TableSize { regions: 2, reported: 2, rows: 10, bytes: 200 };
        let silent = TableSize { reported: 1, ..known };
        let record = v1::RefreshRecord { published_rows: 6, ..v1::RefreshRecord::default() };
        let refresh = v1::RefreshInfo {
            table: "mirror".to_owned(),
            state: "idle".to_owned(),
            record: Some(record),
            ..v1::RefreshInfo::default()
        };
        Reports {
            frontiers: vec![dropped],
            sizes: [(TableId(3), known), (TableId(7), silent)].into(),
            refreshes: vec![refresh],
        }
    }

    #[test]
    fn statistics_join_the_reports_of_a_table() {
        let catalog = catalog();
        let found = statistics(catalog.tables().map(AsRef::as_ref), &reports());
        let plain = CollectionStatistics {
            table: TableId(3),
            name: "t".to_owned(),
            regions: 2,
            rows: Some(10),
            bytes: Some(200),
            ..CollectionStatistics::default()
        };
        let mirror = CollectionStatistics {
            table: TableId(5),
            name: "mirror".to_owned(),
            refresh: Some(("idle".to_owned(), 6)),
            ..CollectionStatistics::default()
        };
        let dropped = CollectionStatistics {
            table: TableId(7),
            name: "old".to_owned(),
            dropped: true,
            regions: 2,
            lag_ms: Some(5_000),
            holds: 2,
            oldest_hold: Some(("h".to_owned(), Epoch(9))),
            capabilities: 1,
            ..CollectionStatistics::default()
        };
        assert_eq!(found, [plain, mirror, dropped]);
    }

    #[test]
    fn rows_have_the_columns_of_the_definition() {
        let catalog = catalog();
        let statistics = statistics(catalog.tables().map(AsRef::as_ref), &reports());
        let rows = batch(&definition(), columns(&statistics));
        assert_eq!((number(&rows, "table_id", 2), number(&rows, "rows", 2)), (Some(7), None));
        let epochs = (number(&rows, "oldest_hold_epoch", 2), number(&rows, "lag_ms", 0));
        assert_eq!(epochs, (Some(9), None));
        assert_eq!(number(&rows, "refreshed_rows", 1), Some(6));
        assert_eq!(batch(&definition(), columns(&[])).num_rows(), 0);
        assert_eq!(definition().primary_key, ["table_id"]);
    }
}
