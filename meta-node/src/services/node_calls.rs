//! Administrative calls that nodes make by themselves, to write their events (pure).
//!
//! They are not recorded as those of an administrator: while such a call fails, it would make an event for each attempt.
//! Any caller can claim to be a node, so that a request passes for that of a node only if it does no more than nodes need.

use tidewater_proto::v1::{self, column_change::Change};

/// Returns whether a request creates a table that holds events.
pub(super) fn creates_event_table(request: &v1::CreateTableRequest) -> bool {
    request.holds_events && request.refresh.is_none()
}

/// Returns whether a request adds columns of events to their table. `holds_events`: option of the table.
pub(super) fn adds_event_columns(request: &v1::AlterTableRequest, holds_events: bool) -> bool {
    let changes_options = request.ttl_ms.is_some() || request.compaction_window_ms.is_some();
    request.by_node
        && holds_events
        && !changes_options
        && request.columns.iter().all(is_column_of_events)
}

/// Returns whether a change adds a column without which the rows stay as they are.
fn is_column_of_events(change: &v1::ColumnChange) -> bool {
    matches!(&change.change, Some(Change::Add(new)) if new.nullable && new.default.is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(nullable: bool, default: Option<&str>) -> v1::ColumnChange {
        let new = v1::NewColumn {
            name: "node_id".to_owned(),
            r#type: "uint64".to_owned(),
            nullable,
            default: default.map(str::to_owned),
        };
        v1::ColumnChange { change: Some(Change::Add(new)) }
    }

    #[test]
    fn only_new_nullable_columns_are_those_of_nodes() {
        let by_node = v1::AlterTableRequest {
            name: "events".to_owned(),
            columns: vec![column(true, None), column(true, None)],
            by_node: true,
            ..v1::AlterTableRequest::default()
        };
        let with = |change: v1::ColumnChange| v1::AlterTableRequest {
            columns: vec![column(true, None), change],
            ..by_node.clone()
        };
        let dropped = v1::ColumnChange { change: Some(Change::Drop("cause".to_owned())) };
        let cases = [
            ("columns of events", by_node.clone(), true),
            ("by a user", v1::AlterTableRequest { by_node: false, ..by_node.clone() }, false),
            ("a dropped column", with(dropped), false),
            ("no change", with(v1::ColumnChange { change: None }), false),
            ("a column with a default", with(column(true, Some("7"))), false),
            ("a column without nulls", with(column(false, None)), false),
            ("a TTL", v1::AlterTableRequest { ttl_ms: Some(0), ..by_node.clone() }, false),
            (
                "a window",
                v1::AlterTableRequest { compaction_window_ms: Some(0), ..by_node.clone() },
                false,
            ),
        ];
        for (case, request, expected) in cases {
            assert_eq!(adds_event_columns(&request, true), expected, "{case}");
            assert!(!adds_event_columns(&request, false), "{case} of another table");
        }
    }

    #[test]
    fn only_tables_of_events_are_created_by_nodes() {
        let refresh = Some(v1::RefreshDefinition::default());
        for (holds_events, refresh, expected) in
            [(true, None, true), (false, None, false), (true, refresh, false)]
        {
            let request = v1::CreateTableRequest {
                holds_events,
                refresh,
                ..v1::CreateTableRequest::default()
            };
            assert_eq!(creates_event_table(&request), expected);
        }
    }
}
