//! Checks of requests that define names and types, before a command is proposed. They are no part of
//! the commands: replaying a log of an earlier release, which accepted more, gives the same catalog.

use tidewater_common::refusal::Refusal;
use tidewater_common::schema::{ColumnType, SchemaError, check_table_name};
use tidewater_proto::v1::{self, Reason, column_change};

/// Greatest length of the kind and the configuration of a source, in bytes.
const MAX_SOURCE_BYTES: usize = 64 << 10;

/// Checks the name and the types of a new table.
pub(super) fn check_create(request: &v1::CreateTableRequest) -> Result<(), Refusal> {
    check_name(&request.name)?;
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

/// Checks the types of added columns.
pub(super) fn check_alter(request: &v1::AlterTableRequest) -> Result<(), Refusal> {
    let mut added = request.columns.iter().filter_map(|change| match &change.change {
        Some(column_change::Change::Add(column)) => Some(column),
        _ => None,
    });
    added.try_for_each(|column| check_type(&column.r#type))
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
}
