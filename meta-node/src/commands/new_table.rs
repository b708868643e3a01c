//! From a request with names to columns with ids, options, and an even split of the keys.

use tidewater_common::ids::{ColumnId, SchemaVersion, TableId};
use tidewater_common::schema::{
    Column, ColumnType, DEFAULT_VNODES, HashDistribution, MAX_COLUMNS, SchemaError, TableOptions,
    TableSchema, WriteMode, check_name,
};
use tidewater_proto::v1;

use super::CommandError;
use crate::catalog::table_bounds;

/// Regions that one table may begin with.
pub(super) const MOST_REGIONS: u32 = 1_024;

/// Checks a request and gives its columns ids from 1 on.
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
        // A key column is never null, whether or not the request says so.
        let nullable = column.nullable && !request.primary_key.contains(&column.name);
        let (id, name, default) = (ColumnId(id), column.name.clone(), column.default.clone());
        columns.push(Column { id, name, data_type, nullable, default });
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
                Err(SchemaError::BadDistribution("a vnode count needs columns to hash".to_owned())
                    .into())
            }
        };
    }
    let vnode_count = if vnode_count == 0 { DEFAULT_VNODES } else { vnode_count };
    Ok(Some(HashDistribution { columns, vnode_count }))
}

/// How many regions a table begins with: as asked; else, when hash-distributed, one for each group.
pub(super) fn region_count(
    asked: u32,
    options: &TableOptions,
    groups: usize,
) -> Result<u32, CommandError> {
    let buckets = options.hash.as_ref().map_or(u32::from(u16::MAX), |hash| hash.vnode_count);
    let most = MOST_REGIONS.min(buckets);
    match (asked, &options.hash) {
        (0, None) => Ok(1),
        (0, Some(_)) => Ok(u32::try_from(groups).unwrap_or(most).clamp(1, most)),
        (asked, _) if asked > most => Err(CommandError::Regions { asked, most }),
        (asked, _) => Ok(asked),
    }
}

/// Start and end of a range of global keys.
pub(super) type Bounds = (Vec<u8>, Vec<u8>);

/// Global key ranges that tile the table: evenly over its vnodes, or over the first two bytes of
/// its row keys.
pub(super) fn split(
    table: TableId,
    options: &TableOptions,
    regions: u32,
) -> Result<Vec<Bounds>, CommandError> {
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
