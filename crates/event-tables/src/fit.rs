//! Fit of events and their table (pure).

use std::collections::BTreeMap;

use tidewater_common::schema::{MAX_COLUMNS, TableSchema};
use tidewater_events::{ExtraColumn, RecordedEvent, group_events_by_type};
use uuid::Uuid;

/// Fit of events and their table.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Fit {
    /// Columns that the table needs for the events.
    pub(crate) missing: Vec<ExtraColumn>,
    /// Events that the table can never take, with the reasons.
    pub(crate) misfits: Vec<(Uuid, String)>,
}

/// Decides which events a table takes, once it has their columns. Of several types with columns of one name, the first one
/// decides.
pub(crate) fn fit(table: &TableSchema, events: &[&RecordedEvent]) -> Fit {
    let columns = table.columns().iter();
    let mut types: BTreeMap<String, String> =
        columns.map(|column| (column.name.clone(), column.data_type.to_string())).collect();
    let mut fit = Fit::default();
    for mut group in group_events_by_type(events.iter().copied()).into_values() {
        // Those of earlier releases have other columns: all are nullable.
        while let Some(schema) = group.first().map(|event| event.extra_schema()) {
            let (alike, others): (Vec<&RecordedEvent>, Vec<&RecordedEvent>) =
                group.into_iter().partition(|event| event.extra_schema() == schema);
            group = others;
            if let Some(clash) = clash(&types, &schema) {
                fit.misfits.extend(alike.iter().map(|event| (event.id, clash.clone())));
                continue;
            }
            for column in schema {
                if !types.contains_key(&column.name) {
                    types.insert(column.name.clone(), column.value_type.as_str().to_owned());
                    fit.missing.push(column);
                }
            }
        }
    }
    fit
}

/// Returns the reason why a table with columns of these types cannot take an extra schema.
fn clash(types: &BTreeMap<String, String>, schema: &[ExtraColumn]) -> Option<String> {
    let differs = |column: &&ExtraColumn| {
        types.get(&column.name).is_some_and(|known| known != column.value_type.as_str())
    };
    let differing: Vec<&ExtraColumn> = schema.iter().filter(differs).collect();
    if differing.is_empty() {
        let new = schema.iter().filter(|column| !types.contains_key(&column.name)).count();
        return (types.len() + new > MAX_COLUMNS).then(|| {
            format!("the table has no room for {new} more columns: it may have {MAX_COLUMNS}")
        });
    }
    let shown = |type_of: &dyn Fn(&ExtraColumn) -> String| {
        let columns = differing.iter().map(|column| format!("{} {}", column.name, type_of(column)));
        columns.collect::<Vec<_>>().join(", ")
    };
    let expected = shown(&|column| types.get(&column.name).cloned().unwrap_or_default());
    let found = shown(&|column| column.value_type.as_str().to_owned());
    Some(format!("the extra columns differ: expected {expected}, found {found}"))
}

#[cfg(test)]
mod tests {
    use tidewater_events::{Value, ValueType};

    use super::*;
    use crate::testing::{event, events_table};

    fn column(name: &str, value_type: ValueType) -> (ExtraColumn, Value) {
        (ExtraColumn::new(name, value_type), Value::Null)
    }

    #[test]
    fn missing_columns_are_found_once() {
        let table = events_table(&[("node_id", "uint64"), ("cause", "utf8")]);
        let events = [
            event(1, "node_down", vec![column("node_id", ValueType::UInt64)]),
            event(2, "refresh", vec![column("phase", ValueType::Text)]),
            event(
                3,
                "split",
                vec![column("at", ValueType::Int64), column("phase", ValueType::Text)],
            ),
            event(4, "plain", vec![]),
        ];
        let fit = fit(&table, &events.iter().collect::<Vec<_>>());
        assert!(fit.misfits.is_empty(), "{fit:?}");
        let expected = [("phase", ValueType::Text), ("at", ValueType::Int64)];
        assert_eq!(fit.missing, expected.map(|(name, of)| ExtraColumn::new(name, of)));
    }

    #[test]
    fn clashing_types_do_not_hold_up_others() {
        let table = events_table(&[("node_id", "int32"), ("at", "timestamp(ns, UTC)")]);
        let uint64 = column("node_id", ValueType::UInt64);
        let events = [
            event(1, "a", vec![uint64.clone(), column("x", ValueType::Bool)]),
            event(2, "a", vec![uint64, column("x", ValueType::Bool)]),
            event(3, "b", vec![column("at", ValueType::Timestamp)]),
            // Clashes with the new column of an earlier type.
            event(4, "c", vec![column("new", ValueType::Text)]),
            event(5, "d", vec![column("new", ValueType::Int64)]),
        ];
        let fit = fit(&table, &events.iter().collect::<Vec<_>>());
        let clash = "the extra columns differ: expected node_id int32, found node_id uint64";
        let later = "the extra columns differ: expected new utf8, found new int64";
        let expected = [(1, clash), (2, clash), (5, later)];
        let expected = expected.map(|(id, reason)| (Uuid::from_u128(id), reason.to_owned()));
        assert_eq!(fit.misfits, expected);
        assert_eq!(fit.missing, [ExtraColumn::new("new", ValueType::Text)]);
    }

    // A node restarts with a release that adds a column to a type.
    #[test]
    fn events_of_one_type_may_have_different_columns() {
        let with = |id, name, of| event(id, "a", vec![column(name, of)]);
        let events = [
            with(1, "x", ValueType::Bool),
            with(2, "y", ValueType::Bool),
            with(3, "x", ValueType::Bool),
            with(4, "x", ValueType::Text),
        ];
        let fit = fit(&events_table(&[]), &events.iter().collect::<Vec<_>>());
        let reason = "the extra columns differ: expected x bool, found x utf8".to_owned();
        assert_eq!(fit.misfits, [(Uuid::from_u128(4), reason)]);
        assert_eq!(fit.missing, ["x", "y"].map(|name| ExtraColumn::new(name, ValueType::Bool)));
    }

    #[test]
    fn table_without_room_for_columns_refuses_them() {
        let names: Vec<String> = (4..MAX_COLUMNS - 1).map(|number| format!("c{number}")).collect();
        let columns: Vec<_> = names.iter().map(|name| (name.as_str(), "bool")).collect();
        let table = events_table(&columns);
        let events = [
            event(1, "a", vec![column("x", ValueType::Bool), column("y", ValueType::Bool)]),
            event(2, "b", vec![column("z", ValueType::Bool)]),
        ];
        let fit = fit(&table, &events.iter().collect::<Vec<_>>());
        assert_eq!(fit.misfits.len(), 1);
        assert!(fit.misfits[0].1.contains("no room for 2 more columns"), "{fit:?}");
        assert_eq!(fit.missing, [ExtraColumn::new("z", ValueType::Bool)]);
    }
}
