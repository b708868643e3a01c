//! Statistics of collections: the definition of their table, and their rows (pure).

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, StringArray, UInt64Array};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use tidewater_client::admin::{NewColumn, NewTable, TableSize};
use tidewater_client::catalog::TableInfo;
use tidewater_common::ids::{Epoch, TableId};
use tidewater_common::schema::dropped_table_name;
use tidewater_proto::v1;

/// Name of the table.
pub const STATISTICS: &str = "collection_statistics";

/// Columns: name, type, and whether it may be null. The first one is the key.
const COLUMNS: [(&str, &str, bool); 13] = [
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
    /// Time between since and upper; `None`: one of them has no begin, or the table is refreshable.
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
    let columns =
        COLUMNS.map(|(name, data_type, nullable)| NewColumn::new(name, data_type, nullable));
    let key = [COLUMNS[0].0];
    NewTable { regions: 1, ..NewTable::upsert(STATISTICS, columns.to_vec(), &key) }
}

/// Returns statistics as rows of the table.
///
/// # Errors
/// `schema` is that of another table.
pub(crate) fn rows(
    schema: SchemaRef,
    statistics: &[CollectionStatistics],
) -> Result<RecordBatch, ArrowError> {
    type Of = CollectionStatistics;
    let numbers = |number: fn(&Of) -> Option<u64>| -> ArrayRef {
        Arc::new(statistics.iter().map(number).collect::<UInt64Array>())
    };
    let texts = |text: fn(&Of) -> Option<&str>| -> ArrayRef {
        Arc::new(statistics.iter().map(text).collect::<StringArray>())
    };
    let dropped: BooleanArray = statistics.iter().map(|of| Some(of.dropped)).collect();
    RecordBatch::try_new(
        schema,
        vec![
            numbers(|of| Some(of.table.get().into())),
            texts(|of| Some(&of.name)),
            Arc::new(dropped),
            numbers(|of| Some(of.regions)),
            numbers(|of| of.rows),
            numbers(|of| of.bytes),
            numbers(|of| of.lag_ms),
            numbers(|of| Some(of.holds)),
            texts(|of| of.oldest_hold.as_ref().map(|(name, _)| name.as_str())),
            numbers(|of| of.oldest_hold.as_ref().map(|(_, epoch)| epoch.get())),
            numbers(|of| Some(of.capabilities)),
            texts(|of| of.refresh.as_ref().map(|(state, _)| state.as_str())),
            numbers(|of| of.refresh.as_ref().map(|(_, rows)| *rows)),
        ],
    )
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use tidewater_client::catalog::Catalog;

    use super::*;

    fn table(table_id: u32, name: &str) -> v1::Table {
        let column = |id, name: &str| v1::Column {
            id,
            name: name.to_owned(),
            r#type: "int64".to_owned(),
            nullable: false,
            default: None,
        };
        let schema = v1::TableSchema {
            version: 1,
            columns: vec![column(1, "k")],
            primary_key: vec![1],
            time_column: None,
            next_column_id: 2,
        };
        let options =
            v1::TableOptions { write_mode: v1::WriteMode::Upsert.into(), ..Default::default() };
        v1::Table {
            table_id,
            name: name.to_owned(),
            state: v1::TableState::Active.into(),
            schema: Some(schema),
            options: Some(options),
            ..v1::Table::default()
        }
    }

    fn catalog() -> Catalog {
        let names =
            [(3, "t"), (7, "_tw_dropped_7"), (4, STATISTICS), (5, "mirror"), (6, "_tw_dropped_6")];
        let tables = names.map(|(id, name)| table(id, name)).to_vec();
        let cluster_id = "00000000-0000-0000-0000-000000000001".to_owned();
        let snapshot = v1::CatalogSnapshot { cluster_id, tables, ..v1::CatalogSnapshot::default() };
        Catalog::from_snapshot(&snapshot).unwrap()
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
        let definition = definition();
        let fields: Vec<_> = definition
            .columns
            .iter()
            .map(|column| {
                let data_type: tidewater_common::schema::ColumnType =
                    column.data_type.parse().unwrap();
                arrow::datatypes::Field::new(&column.name, data_type.arrow(), column.nullable)
            })
            .collect();
        let schema = Arc::new(arrow::datatypes::Schema::new(fields));
        let catalog = catalog();
        let statistics = statistics(catalog.tables().map(AsRef::as_ref), &reports());
        let batch = rows(schema.clone(), &statistics).unwrap();
        let number = |name: &str, row: usize| {
            let column = batch.column_by_name(name).unwrap();
            let values = column.as_primitive::<arrow::datatypes::UInt64Type>();
            (!arrow::array::Array::is_null(values, row)).then(|| values.value(row))
        };
        assert_eq!((number("table_id", 2), number("rows", 2)), (Some(7), None));
        assert_eq!((number("oldest_hold_epoch", 2), number("lag_ms", 0)), (Some(9), None));
        assert_eq!(number("refreshed_rows", 1), Some(6));
        assert_eq!(rows(schema, &[]).unwrap().num_rows(), 0);
    }
}
