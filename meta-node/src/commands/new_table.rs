//! Definition of a new table: columns with ids, options, and an even split of the key space.

use std::time::Duration;

use tidewater_common::ids::{ColumnId, SchemaVersion, TableId};
use tidewater_common::schema::{
    Column, ColumnType, DEFAULT_VNODES, HashDistribution, MAX_COLUMNS, SchemaError, TableOptions,
    TableSchema, WriteMode, check_name,
};
use tidewater_proto::v1;

use super::CommandError;
use crate::catalog::table_bounds;

/// Maximum number of regions of a new table.
pub(super) const MAX_REGIONS: u32 = 1_024;

/// Validates a request and assigns column ids, from 1.
pub(super) fn definition(
    request: &v1::CreateTableRequest,
) -> Result<(TableSchema, TableOptions), CommandError> {
    check_name("table", &request.name)?;
    if request.columns.len() > MAX_COLUMNS {
        return Err(SchemaError::TooManyColumns(request.columns.len()).into());
    }
    let mut columns = Vec::with_capacity(request.columns.len());
    for (id, column) in (1..).zip(&request.columns) {
        let data_type: ColumnType = column.r#type.parse().map_err(SchemaError::Type)?;
        // A key column is never nullable, whatever the request has.
        let nullable = column.nullable && !request.primary_key.contains(&column.name);
        columns.push(Column {
            id: ColumnId(id),
            name: column.name.clone(),
            data_type,
            nullable,
            default: column.default.clone(),
        });
    }
    let id_of = |what: &'static str, name: &String| {
        columns
            .iter()
            .find(|column| column.name == *name)
            .map(|column| column.id)
            .ok_or_else(|| CommandError::UnknownColumn { what, name: name.clone() })
    };
    let ids_of = |what: &'static str, names: &[String]| {
        names.iter().map(|name| id_of(what, name)).collect::<Result<Vec<_>, _>>()
    };
    let primary_key = ids_of("primary key column", &request.primary_key)?;
    let hash_columns = ids_of("hash column", &request.hash_columns)?;
    let time_column =
        request.time_column.as_ref().map(|name| id_of("time column", name)).transpose()?;
    let next = ColumnId(u32::try_from(columns.len()).unwrap_or(u32::MAX).saturating_add(1));
    let schema = TableSchema::new(SchemaVersion(1), columns, primary_key, time_column, next)?;
    let options = TableOptions {
        write_mode: write_mode(request.write_mode)?,
        hash: distribution(hash_columns, request.vnode_count)?,
        ttl_ms: request.ttl_ms,
        refreshable: request.refresh.is_some(),
        compaction_window: request.compaction_window_ms.map(Duration::from_millis),
        holds_events: request.holds_events,
        explicit_since: false,
        dropped: false,
    };
    options.validate(&schema)?;
    Ok((schema, options))
}

fn write_mode(number: i32) -> Result<WriteMode, CommandError> {
    match v1::WriteMode::try_from(number) {
        Ok(v1::WriteMode::Unspecified | v1::WriteMode::Upsert) => Ok(WriteMode::Upsert),
        Ok(v1::WriteMode::AppendOnly) => Ok(WriteMode::AppendOnly),
        Err(_) => Err(CommandError::Malformed(format!("write mode {number} is unknown"))),
    }
}

fn distribution(
    columns: Vec<ColumnId>,
    vnode_count: u32,
) -> Result<Option<HashDistribution>, CommandError> {
    if columns.is_empty() {
        return match vnode_count {
            0 => Ok(None),
            _ => {
                Err(SchemaError::BadDistribution("a vnode count requires hash columns".to_owned())
                    .into())
            }
        };
    }
    let vnode_count = if vnode_count == 0 { DEFAULT_VNODES } else { vnode_count };
    Ok(Some(HashDistribution { columns, vnode_count }))
}

/// Returns the number of regions of a new table: the requested number, or, for 0, one region, or one
/// for each group when the table is hash-distributed.
pub(super) fn region_count(
    requested: u32,
    options: &TableOptions,
    groups: usize,
) -> Result<u32, CommandError> {
    let buckets = options.hash.as_ref().map_or(u32::from(u16::MAX), |hash| hash.vnode_count);
    let max = MAX_REGIONS.min(buckets);
    match (requested, &options.hash) {
        (0, None) => Ok(1),
        (0, Some(_)) => Ok(u32::try_from(groups).unwrap_or(max).clamp(1, max)),
        (requested, _) if requested > max => Err(CommandError::Regions { requested, max }),
        (requested, _) => Ok(requested),
    }
}

/// Start and end of a range of global keys.
pub(super) type GlobalKeyRange = (Vec<u8>, Vec<u8>);

/// Returns global key ranges that tile the table: evenly over its vnodes, or over the first two bytes
/// of its row keys.
pub(super) fn split(
    table: TableId,
    options: &TableOptions,
    regions: u32,
) -> Result<Vec<GlobalKeyRange>, CommandError> {
    let (start, end) = table_bounds(table).ok_or(CommandError::IdsUsedUp("table"))?;
    let buckets = options.hash.as_ref().map_or(65_536, |hash| u64::from(hash.vnode_count));
    let mut bounds = vec![start.clone()];
    for region in 1..u64::from(regions) {
        let bucket = region * buckets / u64::from(regions);
        let prefix = u16::try_from(bucket).unwrap_or(u16::MAX).to_be_bytes();
        bounds.push([start.as_slice(), &prefix].concat());
    }
    bounds.push(end);
    Ok(bounds.windows(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect())
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::commands::testing::{hex, table};

    // Arguments of commands and rows of tables: a log must stay readable.
    #[test]
    fn bytes_of_event_table_options_are_frozen() {
        let definition = v1::CreateTableRequest {
            compaction_window_ms: Some(86_400_000),
            holds_events: true,
            ..v1::CreateTableRequest::default()
        };
        assert_eq!(hex(&definition.encode_to_vec()), "6080b899296801");
        let alter = v1::AlterTableRequest {
            compaction_window_ms: Some(86_400_000),
            ..v1::AlterTableRequest::default()
        };
        assert_eq!(hex(&alter.encode_to_vec()), "2880b89929");
        let options = TableOptions {
            compaction_window: Some(Duration::from_secs(86_400)),
            holds_events: true,
            ..TableOptions::append_only()
        };
        let stored = v1::TableOptions::from(&options);
        assert_eq!(hex(&stored.encode_to_vec()), "08022880b899293001");
    }

    // The call refuses windows below an hour; a log may have them.
    #[test]
    fn invalid_compaction_windows_are_refused() {
        let windowed = |compaction_window_ms| v1::CreateTableRequest {
            write_mode: v1::WriteMode::AppendOnly.into(),
            time_column: Some("t".into()),
            compaction_window_ms: Some(compaction_window_ms),
            ..table(1, "t")
        };
        let (_, options) = definition(&windowed(60_000)).unwrap();
        assert_eq!(options.compaction_window, Some(Duration::from_secs(60)));
        for window_ms in [0, 59_000, 60_001, u64::MAX] {
            let window = Duration::from_millis(window_ms);
            let expected = CommandError::Schema(SchemaError::BadCompactionWindow(window));
            assert_eq!(definition(&windowed(window_ms)).unwrap_err(), expected);
        }
        let upsert = v1::CreateTableRequest { write_mode: 0, ..windowed(60_000) };
        let expected = CommandError::Schema(SchemaError::WindowTimeNotInKey);
        assert_eq!(definition(&upsert).unwrap_err(), expected);
    }
}
