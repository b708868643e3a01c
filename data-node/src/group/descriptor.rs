//! What a region is, apart from its contents, with everything derived from its schema.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use tidewater_common::ids::{Incarnation, RegionId, SchemaVersion, TableId};
use tidewater_common::keys::{KeyCodec, KeyError, KeyRange};
use tidewater_common::schema::{SchemaError, TableOptions, TableSchema};
use tidewater_proto::v1::{self, RowOp};
use tidewater_region_engine::RegionSpec;

/// A region's identity, schema and range, validated once. Cheap to share, immutable.
#[derive(Debug)]
pub struct Descriptor {
    /// The region; never 0.
    pub region_id: RegionId,
    /// Its table; never 0.
    pub table_id: TableId,
    /// For people: names in answers and logs.
    pub table_name: String,
    /// Part of the region's directory name.
    pub incarnation: Incarnation,
    /// Columns and keys.
    pub schema: TableSchema,
    /// Write mode, distribution, time to live.
    pub options: TableOptions,
    /// Row keys that the region serves.
    pub range: KeyRange,
    codec: KeyCodec,
}

/// A descriptor that cannot be accepted.
#[derive(Debug, thiserror::Error)]
pub enum DescriptorError {
    /// A field is missing or zero.
    #[error("a region's description lacks its {0}")]
    Missing(&'static str),
    /// The range holds no key.
    #[error("region {0} has an empty key range")]
    EmptyRange(RegionId),
    /// The schema is invalid.
    #[error("region {0}: {1}")]
    Schema(RegionId, #[source] SchemaError),
    /// The schema and the options do not give a key encoding.
    #[error("region {0}: {1}")]
    Key(RegionId, #[source] KeyError),
}

impl Descriptor {
    /// Validates a description as it stands in a call, an entry or a snapshot.
    pub fn new(wire: &v1::RegionDescriptor) -> Result<Arc<Self>, DescriptorError> {
        let region_id = RegionId(wire.region_id);
        if wire.region_id == 0 {
            return Err(DescriptorError::Missing("region id"));
        }
        if wire.table_id == 0 {
            return Err(DescriptorError::Missing("table id"));
        }
        let schema = wire.schema.as_ref().ok_or(DescriptorError::Missing("schema"))?;
        let options = wire.options.as_ref().ok_or(DescriptorError::Missing("table options"))?;
        let schema = TableSchema::try_from(schema)
            .map_err(|error| DescriptorError::Schema(region_id, error))?;
        let options = TableOptions::try_from(options)
            .map_err(|error| DescriptorError::Schema(region_id, error))?;
        let range =
            KeyRange { start: wire.start.to_vec(), end: wire.end.as_ref().map(|end| end.to_vec()) };
        if range.end.as_ref().is_some_and(|end| *end <= range.start) {
            return Err(DescriptorError::EmptyRange(region_id));
        }
        let codec = KeyCodec::new(&schema, &options)
            .map_err(|error| DescriptorError::Key(region_id, error))?;
        Ok(Arc::new(Self {
            region_id,
            table_id: TableId(wire.table_id),
            table_name: wire.table_name.clone(),
            incarnation: Incarnation(wire.incarnation),
            schema,
            options,
            range,
            codec,
        }))
    }

    /// The description as it is sent and stored.
    pub fn to_wire(&self) -> v1::RegionDescriptor {
        v1::RegionDescriptor {
            region_id: self.region_id.get(),
            table_id: self.table_id.get(),
            table_name: self.table_name.clone(),
            start: Bytes::from(self.range.start.clone()),
            end: self.range.end.clone().map(Bytes::from),
            schema: Some((&self.schema).into()),
            options: Some((&self.options).into()),
            incarnation: self.incarnation.get(),
        }
    }

    /// What the region engine must know of the region.
    pub fn spec(&self) -> RegionSpec {
        RegionSpec {
            region_id: self.region_id,
            table_id: self.table_id,
            incarnation: self.incarnation,
            schema: self.schema.clone(),
            options: self.options.clone(),
            range: self.range.clone(),
        }
    }

    /// Encodes and compares this table's keys.
    pub fn codec(&self) -> &KeyCodec {
        &self.codec
    }

    /// Version of the schema that the region is at.
    pub fn schema_version(&self) -> SchemaVersion {
        self.schema.version()
    }

    /// The columns that rows of this operation carry: all for a put, the key for a delete.
    pub fn row_schema(&self, op: RowOp) -> SchemaRef {
        match op {
            RowOp::Put => self.schema.arrow(),
            RowOp::Delete => self.schema.key_arrow(),
        }
    }

    /// The key columns, in key order, of rows of this operation.
    pub fn key_columns(&self, op: RowOp, rows: &RecordBatch) -> Vec<ArrayRef> {
        match op {
            RowOp::Put => {
                self.schema.key_indices().iter().map(|index| rows.column(*index).clone()).collect()
            }
            RowOp::Delete => rows.columns().to_vec(),
        }
    }
}

impl PartialEq for Descriptor {
    fn eq(&self, other: &Self) -> bool {
        self.to_wire() == other.to_wire()
    }
}
