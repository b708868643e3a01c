//! Groups of events, and their rows (pure).

use std::collections::BTreeMap;

use crate::recorded::RecordedEvent;
use crate::value::{ExtraColumn, Value};

/// Key of a group: the table and the type of its events.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventGroupKey {
    /// Table that has the events.
    pub table: String,
    /// Type of the events.
    pub event_type: String,
}

/// Groups events by table and type. Each group keeps their order.
pub fn group_events_by_type<'a>(
    events: impl IntoIterator<Item = &'a RecordedEvent>,
) -> BTreeMap<EventGroupKey, Vec<&'a RecordedEvent>> {
    let mut groups = BTreeMap::<_, Vec<_>>::new();
    for event in events {
        let key =
            EventGroupKey { table: event.table.clone(), event_type: event.event_type.clone() };
        groups.entry(key).or_default().push(event);
    }
    groups
}

/// Rows of a group: the columns of all events, then the extra columns of its type.
#[derive(Debug, Clone, PartialEq)]
pub struct RowInsertsRequest<'a> {
    /// Table and type of the rows.
    pub key: EventGroupKey,
    /// Extra columns.
    pub extra: Vec<ExtraColumn>,
    /// One event for each row.
    pub events: Vec<&'a RecordedEvent>,
}

impl<'a> RowInsertsRequest<'a> {
    /// Returns the values of an extra column, one for each row.
    pub fn extra_values(&self, column: usize) -> impl Iterator<Item = &'a Value> + '_ {
        const NULL: &Value = &Value::Null;
        self.events.iter().map(move |event| event.extra.get(column).map_or(NULL, |(_, v)| v))
    }
}

/// An extra schema that differs from that of its group or table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the extra columns differ: expected {}, found {}", shown(.expected), shown(.actual))]
pub struct MismatchedSchema {
    /// Columns of the group or of the table.
    pub expected: Vec<ExtraColumn>,
    /// Columns of the event.
    pub actual: Vec<ExtraColumn>,
}

fn shown(columns: &[ExtraColumn]) -> String {
    if columns.is_empty() {
        return "none".to_owned();
    }
    let columns: Vec<String> = columns
        .iter()
        .map(|column| format!("{} {}", column.name, column.value_type.as_str()))
        .collect();
    columns.join(", ")
}

/// Builds the rows of a group.
///
/// # Errors
/// [`MismatchedSchema`] when the extra schema of an event differs from that of the first one.
pub fn build_row_inserts_request<'a>(
    key: EventGroupKey,
    events: &[&'a RecordedEvent],
) -> Result<RowInsertsRequest<'a>, MismatchedSchema> {
    let extra = events.first().map(|event| event.extra_schema()).unwrap_or_default();
    for event in events {
        let actual = event.extra_schema();
        if actual != extra {
            return Err(MismatchedSchema { expected: extra, actual });
        }
    }
    Ok(RowInsertsRequest { key, extra, events: events.to_vec() })
}

/// Divides a group into the events with the extra schema that most of them have, and the others.
pub fn divide_by_schema<'a>(
    events: &[&'a RecordedEvent],
) -> (Vec<&'a RecordedEvent>, Vec<(&'a RecordedEvent, MismatchedSchema)>) {
    let mut schemas: Vec<(Vec<ExtraColumn>, usize)> = Vec::new();
    for event in events {
        let schema = event.extra_schema();
        match schemas.iter_mut().find(|(known, _)| *known == schema) {
            Some((_, count)) => *count += 1,
            None => schemas.push((schema, 1)),
        }
    }
    // The first one of those with the same number.
    let most = schemas.iter().rev().max_by_key(|(_, count)| *count);
    let expected = most.map(|(schema, _)| schema.clone()).unwrap_or_default();
    let mut fitting = Vec::new();
    let mut odd = Vec::new();
    for event in events {
        let actual = event.extra_schema();
        if actual == expected {
            fitting.push(*event);
        } else {
            odd.push((*event, MismatchedSchema { expected: expected.clone(), actual }));
        }
    }
    (fitting, odd)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::testing::TestEvent;
    use crate::value::ValueType;

    fn recorded(event: &TestEvent) -> RecordedEvent {
        RecordedEvent::new(event, Uuid::from_u128(1), 0, 1_000).unwrap()
    }

    #[test]
    fn events_are_grouped_by_table_and_type() {
        let other = TestEvent { table: "audit".to_owned(), ..TestEvent::new("a") };
        let events = [
            recorded(&TestEvent { payload: "1".to_owned(), ..TestEvent::new("a") }),
            recorded(&TestEvent::new("b")),
            recorded(&other),
            recorded(&TestEvent { payload: "2".to_owned(), ..TestEvent::new("a") }),
        ];
        let groups = group_events_by_type(&events);
        let shown: Vec<_> = groups
            .iter()
            .map(|(key, events)| {
                let payloads: Vec<_> = events.iter().map(|event| event.payload.as_str()).collect();
                (key.table.as_str(), key.event_type.as_str(), payloads)
            })
            .collect();
        assert_eq!(
            shown,
            [("audit", "a", vec![""]), ("events", "a", vec!["1", "2"]), ("events", "b", vec![""])]
        );
    }

    #[test]
    fn event_with_another_schema_is_divided_off() {
        let with = |name: &str| {
            let extra = vec![(ExtraColumn::new(name, ValueType::Bool), Value::Bool(true))];
            recorded(&TestEvent { extra, ..TestEvent::new("a") })
        };
        let first = with("x");
        let odd = with("y");
        let last = with("x");
        let key = EventGroupKey { table: "events".to_owned(), event_type: "a".to_owned() };
        let error = build_row_inserts_request(key.clone(), &[&first, &odd, &last]).unwrap_err();
        assert_eq!(error.expected, first.extra_schema());
        assert_eq!(error.to_string(), "the extra columns differ: expected x bool, found y bool");
        let (fitting, set_aside) = divide_by_schema(&[&odd, &first, &last]);
        assert_eq!(set_aside, [(&odd, error)]);
        let request = build_row_inserts_request(key, &fitting).unwrap();
        assert_eq!(request.extra_values(0).collect::<Vec<_>>(), [&Value::Bool(true); 2]);
        assert_eq!(request.extra_values(1).collect::<Vec<_>>(), [&Value::Null; 2]);
    }
}
