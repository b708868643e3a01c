//! Choice of events, and their scan.

use std::str::FromStr;
use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};
use clap::Args;
use tidewater_client::catalog::TableInfo;
use tidewater_client::{Client, ClientError, ScanSpec};
use tidewater_common::quote::quoted;
use tidewater_common::schema::Column;
use tidewater_events::{COMMON_COLUMNS, FilterError, TypeFilter};
use tidewater_proto::v1::{CompareOp, Predicate};
use tidewater_readers::value::instants::time_text;

use super::line::{EventLine, event_lines};
use crate::commands::scan::conditions;
use crate::exit::Failure;

/// Most bytes of events that a command keeps.
const MAX_BYTES: usize = 128 << 20;

/// Options that choose events.
#[derive(Debug, Args)]
pub(super) struct EventChoice {
    /// Return only events of these types, or not of those with !, separated by commas, e.g. `hook_*,node_down`
    #[arg(long = "type", value_name = "TYPES")]
    types: Option<TypeChoice>,

    /// Return only events that satisfy this condition on their columns, as for `scan`
    #[arg(long = "where", value_name = "CONDITION")]
    condition: Option<String>,

    /// Table of the events
    #[arg(long, value_name = "TABLE", default_value = tidewater_events::DEFAULT_TABLE)]
    table: String,
}

/// Chosen types.
#[derive(Debug, Clone, PartialEq, Eq)]
struct TypeChoice {
    filter: TypeFilter,
    /// The types, if all are named in full.
    names: Option<Vec<String>>,
}

impl FromStr for TypeChoice {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        let filter = TypeFilter::parse(text)?;
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let names: Vec<String> = parts.map(ToOwned::to_owned).collect();
        let is_named = !names.is_empty() && names.iter().all(|name| !name.contains(['!', '*']));
        Ok(Self { filter, names: is_named.then_some(names) })
    }
}

/// Scan of events.
#[derive(Debug)]
pub(super) struct EventScan {
    spec: ScanSpec,
    filter: TypeFilter,
}

impl EventChoice {
    /// Returns the table of the events.
    pub(super) async fn table_info(&self, client: &Client) -> Result<Arc<TableInfo>, Failure> {
        match client.table(&self.table).await {
            Ok(table) => Ok(table),
            Err(ClientError::TableNotFound(name)) => Err(Failure::not_found(format!(
                "there is no table {}: no event has been written yet; are nodes started with --events off?",
                quoted(&name)
            ))),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns the scan of the chosen events from `since_ns` on and before `until_ns`, nanoseconds since the Unix epoch.
    pub(super) fn scan(
        &self,
        table: &TableInfo,
        since_ns: i64,
        until_ns: Option<i64>,
    ) -> Result<EventScan, Failure> {
        for name in COMMON_COLUMNS {
            common_column(table, name)?;
        }
        let time = common_column(table, "timestamp")?;
        let time_type = time.data_type.arrow();
        if !matches!(time_type, DataType::Timestamp(TimeUnit::Nanosecond, _)) {
            return Err(no_events(table, &format!("its column timestamp is {}", time.data_type)));
        }
        let mut spec = ScanSpec::all(&self.table);
        spec.unordered = true;
        if let Some(condition) = &self.condition {
            spec.predicates = conditions(&table.schema, condition)?;
        }
        spec.predicates.push(time_predicate(time, CompareOp::Ge, since_ns)?);
        if let Some(until_ns) = until_ns {
            spec.predicates.push(time_predicate(time, CompareOp::Lt, until_ns)?);
        }
        let filter = self.types.as_ref().map(|types| types.filter.clone()).unwrap_or_default();
        if let Some(names) = self.types.as_ref().and_then(|types| types.names.clone()) {
            let column_id = common_column(table, "type")?.id.get();
            let op = CompareOp::In.into();
            spec.predicates.push(Predicate { column_id, op, values: names });
        }
        Ok(EventScan { spec, filter })
    }
}

impl EventScan {
    /// Passes the events to `each`, in no particular order.
    pub(super) async fn run(
        self,
        client: &Client,
        mut each: impl FnMut(EventLine) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut stream = client.scan(self.spec).await?;
        while let Some(batch) = stream.next_batch().await {
            let lines = event_lines(&batch?)?;
            let chosen = lines.into_iter().filter(|line| self.filter.records(&line.event_type));
            for line in chosen {
                each(line)?;
            }
        }
        Ok(())
    }
}

/// Checks the bytes of the events that a command keeps.
pub(super) fn check_bytes(bytes: usize) -> Result<(), Failure> {
    if bytes <= MAX_BYTES {
        return Ok(());
    }
    Err(Failure::other(
        "the events exceed 128MiB: ask for fewer with --since, --type, --where or, in a list, --limit",
    ))
}

fn common_column<'a>(table: &'a TableInfo, name: &str) -> Result<&'a Column, Failure> {
    let column = table.schema.column_named(name);
    column.ok_or_else(|| no_events(table, &format!("it has no column {name}")))
}

fn no_events(table: &TableInfo, problem: &str) -> Failure {
    Failure::usage(format!("table {} is no table of events: {problem}", quoted(&table.name)))
}

fn time_predicate(column: &Column, op: CompareOp, time_ns: i64) -> Result<Predicate, Failure> {
    let text = time_text(&column.data_type.arrow(), time_ns);
    let text = text.map_err(|error| Failure::usage(format!("a time is out of range: {error}")))?;
    Ok(Predicate { column_id: column.id.get(), op: op.into(), values: vec![text] })
}

#[cfg(test)]
mod tests {
    use tidewater_common::ids::{ColumnId, SchemaVersion};
    use tidewater_common::schema::{ColumnType, TableSchema};

    use super::*;

    #[test]
    fn named_types_are_chosen_by_the_node() {
        for (text, names) in [
            ("node_up", Some(vec!["node_up"])),
            ("node_up, node_down", Some(vec!["node_up", "node_down"])),
            ("node_*", None),
            ("node_up,hook_*", None),
            ("!node_up", None),
            ("", None),
        ] {
            let choice: TypeChoice = text.parse().unwrap();
            let names = names.map(|names| names.into_iter().map(ToOwned::to_owned).collect());
            assert_eq!(choice.names, names, "{text}");
        }
        assert!("Node".parse::<TypeChoice>().is_err());
    }

    #[test]
    fn kept_events_are_bounded() {
        assert!(check_bytes(MAX_BYTES).is_ok());
        assert!(check_bytes(MAX_BYTES + 1).unwrap_err().message.contains("128MiB"));
    }

    fn schema(columns: &[(&str, &str)]) -> TableSchema {
        let columns: Vec<Column> = (1..)
            .zip(columns)
            .map(|(id, (name, data_type))| Column {
                id: ColumnId(id),
                name: (*name).to_owned(),
                data_type: data_type.parse::<ColumnType>().unwrap(),
                nullable: false,
                default: None,
            })
            .collect();
        let next = ColumnId(u32::try_from(columns.len()).unwrap() + 1);
        TableSchema::new(SchemaVersion(1), columns, vec![ColumnId(1)], None, next).unwrap()
    }

    #[test]
    fn condition_of_time_has_the_form_of_its_column() {
        let schema = schema(&[("type", "utf8"), ("timestamp", "timestamp(ns, UTC)")]);
        let column = schema.column_named("timestamp").unwrap();
        let predicate = time_predicate(column, CompareOp::Ge, 1_500_000_000).unwrap();
        let expected = Predicate {
            column_id: 2,
            op: CompareOp::Ge.into(),
            values: vec!["1970-01-01T00:00:01.500Z".to_owned()],
        };
        assert_eq!(predicate, expected);
        let parsed = conditions(&schema, "timestamp >= \"1970-01-01T00:00:01.500Z\"").unwrap();
        assert_eq!(parsed, [expected]);
    }
}
