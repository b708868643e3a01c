//! Conversion of table definitions to and from their protobuf form.

use std::time::Duration;

use tidewater_proto::v1;

use super::{Column, HashDistribution, SchemaError, TableOptions, TableSchema, WriteMode};
use crate::ids::{ColumnId, SchemaVersion};

impl From<&TableSchema> for v1::TableSchema {
    fn from(schema: &TableSchema) -> Self {
        Self {
            version: schema.version().get(),
            columns: schema
                .columns()
                .iter()
                .map(|column| v1::Column {
                    id: column.id.get(),
                    name: column.name.clone(),
                    r#type: column.data_type.to_string(),
                    nullable: column.nullable,
                    default: column.default.clone(),
                })
                .collect(),
            primary_key: schema.primary_key().iter().map(|id| id.get()).collect(),
            time_column: schema.time_column().map(ColumnId::get),
            next_column_id: schema.next_column_id().get(),
        }
    }
}

impl TryFrom<&v1::TableSchema> for TableSchema {
    type Error = SchemaError;

    fn try_from(wire: &v1::TableSchema) -> Result<Self, SchemaError> {
        let columns = wire
            .columns
            .iter()
            .map(|column| {
                Ok(Column {
                    id: ColumnId(column.id),
                    name: column.name.clone(),
                    data_type: column.r#type.parse()?,
                    nullable: column.nullable,
                    default: column.default.clone(),
                })
            })
            .collect::<Result<Vec<_>, SchemaError>>()?;
        Self::new(
            SchemaVersion(wire.version),
            columns,
            wire.primary_key.iter().copied().map(ColumnId).collect(),
            wire.time_column.map(ColumnId),
            ColumnId(wire.next_column_id),
        )
    }
}

impl From<&TableOptions> for v1::TableOptions {
    fn from(options: &TableOptions) -> Self {
        let mode = match options.write_mode {
            WriteMode::Upsert => v1::WriteMode::Upsert,
            WriteMode::AppendOnly => v1::WriteMode::AppendOnly,
        };
        Self {
            write_mode: mode.into(),
            hash: options.hash.as_ref().map(|hash| v1::HashDistribution {
                columns: hash.columns.iter().map(|id| id.get()).collect(),
                vnode_count: hash.vnode_count,
            }),
            ttl_ms: options.ttl_ms,
            refreshable: options.refreshable,
            compaction_window_ms: options.compaction_window_ms(),
            holds_events: options.holds_events,
            explicit_since: options.explicit_since,
            dropped: options.dropped,
        }
    }
}

impl TryFrom<&v1::TableOptions> for TableOptions {
    type Error = SchemaError;

    fn try_from(wire: &v1::TableOptions) -> Result<Self, SchemaError> {
        let write_mode = match wire.write_mode() {
            v1::WriteMode::Upsert => WriteMode::Upsert,
            v1::WriteMode::AppendOnly => WriteMode::AppendOnly,
            v1::WriteMode::Unspecified => return Err(SchemaError::FieldMissing("write mode")),
        };
        Ok(Self {
            write_mode,
            hash: wire.hash.as_ref().map(|hash| HashDistribution {
                columns: hash.columns.iter().copied().map(ColumnId).collect(),
                vnode_count: hash.vnode_count,
            }),
            ttl_ms: wire.ttl_ms,
            refreshable: wire.refreshable,
            compaction_window: wire.compaction_window_ms.map(Duration::from_millis),
            holds_events: wire.holds_events,
            explicit_since: wire.explicit_since,
            dropped: wire.dropped,
        })
    }
}
