//! Checks of requests that define names and types, before a command is proposed. They are no part of
//! the commands: replaying a log of an earlier release, which accepted more, gives the same catalog.

use std::time::Duration;

use tidewater_common::refusal::Refusal;
use tidewater_common::schema::{ColumnType, SchemaError, TableOptions, check_table_name};
use tidewater_proto::v1::{self, Reason, column_change};

/// Greatest length of the kind and the configuration of a source, in bytes.
const MAX_SOURCE_BYTES: usize = 64 << 10;

/// Checks the name, the types and the compaction window of a new table.
pub(super) fn check_create(request: &v1::CreateTableRequest) -> Result<(), Refusal> {
    check_name(&request.name)?;
    request.compaction_window_ms.map_or(Ok(()), check_window)?;
    request.columns.iter().try_for_each(|column| check_type(&column.r#type))
}

/// Checks the length of a source's configuration, which is stored.
pub(super) fn check_source_length(refresh: &v1::RefreshDefinition) -> Result<(), Refusal> {
    let length = refresh.source_kind.len() + refresh.source_config.len();
    if length <= MAX_SOURCE_BYTES {
        return Ok(());
    }
    let text = format!(
        "kind and configuration of a source have {length} bytes, more than {MAX_SOURCE_BYTES}"
    );
    Err(Refusal::new(Reason::InvalidArgument, text))
}

/// Checks the name of a clone.
pub(super) fn check_clone(request: &v1::CloneTableRequest) -> Result<(), Refusal> {
    check_name(&request.new_name)
}

/// Checks the types of added columns and a new compaction window.
pub(super) fn check_alter(request: &v1::AlterTableRequest) -> Result<(), Refusal> {
    // 0 removes the window.
    let window_ms = request.compaction_window_ms.filter(|window_ms| *window_ms != 0);
    window_ms.map_or(Ok(()), check_window)?;
    let mut added = request.columns.iter().filter_map(|change| match &change.change {
        Some(column_change::Change::Add(column)) => Some(column),
        _ => None,
    });
    added.try_for_each(|column| check_type(&column.r#type))
}

fn check_window(window_ms: u64) -> Result<(), Refusal> {
    TableOptions::check_new_window(Duration::from_millis(window_ms))
        .map_err(|error| refusal(&error))
}

fn check_name(name: &str) -> Result<(), Refusal> {
    check_table_name(name).map_err(|error| refusal(&error))
}

/// Leaves a text that is no type to the command, which refuses it.
fn check_type(text: &str) -> Result<(), Refusal> {
    let Ok(data_type) = text.parse::<ColumnType>() else { return Ok(()) };
    data_type.check_new().map_err(|error| refusal(&SchemaError::Type(error)))
}

fn refusal(error: &SchemaError) -> Refusal {
    Refusal::new(Reason::InvalidArgument, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::testing::table;

    #[test]
    fn new_tables_have_plain_names_and_known_zones() {
        assert_eq!(check_create(&table(1, "t")), Ok(()));
        for name in ["..", "../x", "a/b", "-x"] {
            let refused = check_create(&table(1, name)).unwrap_err();
            assert_eq!(refused.reason, Reason::InvalidArgument, "{name}");
            let clone = v1::CloneTableRequest { new_name: name.into(), ..Default::default() };
            assert!(check_clone(&clone).is_err(), "{name}");
        }
        let mut zoned = table(1, "t");
        zoned.columns[0].r#type = "timestamp(us, ../../etc/passwd)".into();
        let refused = check_create(&zoned).unwrap_err();
        assert!(refused.message.contains("unknown time zone"), "{refused}");
        zoned.columns[0].r#type = "timestamp(us, Europe/Berlin)".into();
        assert_eq!(check_create(&zoned), Ok(()));
    }

    #[test]
    fn short_compaction_windows_are_refused() {
        for (compaction_window_ms, in_create, in_alter) in [
            (None, true, true),
            (Some(0), false, true),
            (Some(60_000), false, false),
            (Some(3_600_000), true, true),
            (Some(3_600_001), false, false),
        ] {
            let create = v1::CreateTableRequest { compaction_window_ms, ..table(1, "t") };
            let created = check_create(&create);
            assert_eq!(created.is_ok(), in_create, "{compaction_window_ms:?}");
            let alter = v1::AlterTableRequest { compaction_window_ms, ..Default::default() };
            let altered = check_alter(&alter);
            assert_eq!(altered.is_ok(), in_alter, "{compaction_window_ms:?}");
            for refused in [created, altered].into_iter().filter_map(Result::err) {
                assert_eq!(refused.reason, Reason::InvalidArgument);
                assert!(refused.message.ends_with("at least 1h"), "{refused}");
            }
        }
    }
}
