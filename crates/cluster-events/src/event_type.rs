//! Descriptions of the types of events.

use tidewater_events::{Priority, ValueType};

use crate::types;

/// Description of a type of events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventType {
    /// Name, the value of column `type`.
    pub name: &'static str,
    /// Priority in a full spool.
    pub priority: Priority,
    /// Meaning, a sentence.
    pub meaning: &'static str,
    /// Extra columns.
    pub columns: &'static [ColumnInfo],
}

/// Description of an extra column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnInfo {
    /// Name of the column.
    pub name: &'static str,
    /// Type of its values.
    pub value_type: ValueType,
    /// Meaning, a sentence.
    pub meaning: &'static str,
}

/// Summary that the recorder itself adds when it had no room for events.
pub const EVENTS_DROPPED: EventType = EventType {
    name: "events_dropped",
    priority: Priority::High,
    meaning: "The spool or the queue of a node had no room for events. The payload has their numbers by priority.",
    columns: &[],
};

/// Returns all types of events that nodes record, in the order of the documentation.
pub fn event_types() -> Vec<&'static EventType> {
    let mut all = types::ALL.to_vec();
    all.push(&EVENTS_DROPPED);
    all
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use tidewater_events::{COMMON_COLUMNS, TypeFilter};

    use super::*;

    #[test]
    fn types_are_unique_names() {
        let names: BTreeSet<_> = event_types().iter().map(|known| known.name).collect();
        assert_eq!(names.len(), event_types().len());
        for name in names {
            assert!(TypeFilter::parse(name).is_ok(), "{name}");
        }
    }

    #[test]
    fn columns_of_a_name_have_one_type() {
        let mut known = BTreeMap::new();
        for event_type in event_types() {
            for column in event_type.columns {
                assert!(!COMMON_COLUMNS.contains(&column.name), "{}", column.name);
                let first = *known.entry(column.name).or_insert(column.value_type);
                assert_eq!(first, column.value_type, "{} of {}", column.name, event_type.name);
            }
        }
    }

    #[test]
    fn meanings_are_sentences() {
        for event_type in event_types() {
            let columns = event_type.columns.iter().map(|column| column.meaning);
            for meaning in columns.chain([event_type.meaning]) {
                let first = meaning.trim().chars().next();
                assert!(first.is_some_and(char::is_uppercase), "{meaning}");
                assert!(meaning.ends_with('.'), "{meaning}");
            }
        }
    }
}
