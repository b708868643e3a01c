//! Description of a region apart from its contents, with everything derived from its schema.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use tidewater_common::ids::{Incarnation, RegionId, SchemaVersion, TableId};
use tidewater_common::keys::{KeyCodec, KeyRange};
use tidewater_common::schema::{SchemaError, TableOptions, TableSchema, dropped_table_name};
use tidewater_proto::v1::{self, RowOp};
use tidewater_region_engine::layout::RegionDir;
use tidewater_region_engine::{EngineError, RegionSpec, TableShape};

/// A region's identity, schema and range, validated once. Immutable and cheap to share.
#[derive(Debug, Clone)]
pub struct Descriptor {
    /// Id of the region; never 0.
    pub region_id: RegionId,
    /// Id of its table; never 0.
    pub table_id: TableId,
    /// Name of the table, for messages and logs. That of a dropped one is reserved.
    pub table_name: String,
    /// Part of the region's directory name.
    pub incarnation: Incarnation,
    /// Columns and keys.
    pub schema: TableSchema,
    /// Write mode, distribution, time to live.
    pub options: TableOptions,
    /// Row keys that the region serves.
    pub range: KeyRange,
    shape: Arc<TableShape>,
    /// The region before it was altered: calls that name that version of the schema are served, too.
    previous: Option<Arc<Self>>,
}

/// An invalid region description.
#[derive(Debug, thiserror::Error)]
pub enum DescriptorError {
    /// A field is missing or zero.
    #[error("a region's description lacks its {0}")]
    Missing(&'static str),
    /// The key range is empty.
    #[error("region {0} has an empty key range")]
    EmptyRange(RegionId),
    /// The schema is invalid.
    #[error("region {0}: {1}")]
    Schema(RegionId, #[source] SchemaError),
    /// The schema and the options do not give a key encoding.
    #[error("region {0}: {1}")]
    Shape(RegionId, #[source] EngineError),
}

impl Descriptor {
    /// Validates a description from a call, a log entry or a snapshot.
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
        let shape = TableShape::new(schema.clone(), options.clone())
            .map_err(|error| DescriptorError::Shape(region_id, error))?;
        let table_id = TableId(wire.table_id);
        // The name that the table had may be that of a later one.
        let kept_as = options.dropped.then(|| dropped_table_name(table_id));
        Ok(Arc::new(Self {
            region_id,
            table_id,
            table_name: kept_as.unwrap_or_else(|| wire.table_name.clone()),
            incarnation: Incarnation(wire.incarnation),
            schema,
            options,
            range,
            shape: Arc::new(shape),
            previous: None,
        }))
    }

    /// Returns this description of a region that was altered, with the one before.
    pub fn altered_from(self: Arc<Self>, before: &Self) -> Arc<Self> {
        let before = Arc::new(Self { previous: None, ..before.clone() });
        Arc::new(Self { previous: Some(before), ..self.as_ref().clone() })
    }

    /// Returns the description of a child, which has another id and range.
    ///
    /// # Errors
    /// [`DescriptorError::Missing`] for id 0, [`DescriptorError::EmptyRange`].
    pub fn child(&self, id: RegionId, range: KeyRange) -> Result<Arc<Self>, DescriptorError> {
        if id.get() == 0 {
            return Err(DescriptorError::Missing("region id"));
        }
        if range.end.as_ref().is_some_and(|end| *end <= range.start) {
            return Err(DescriptorError::EmptyRange(id));
        }
        let of = |description: &Self| Self {
            region_id: id,
            range: range.clone(),
            previous: None,
            ..description.clone()
        };
        let previous = self.previous().map(|previous| Arc::new(of(previous)));
        Ok(Arc::new(Self { previous, ..of(self) }))
    }

    /// Returns the region without the version before its last alteration.
    #[must_use]
    pub fn only_current(&self) -> Arc<Self> {
        Arc::new(Self { previous: None, ..self.clone() })
    }

    /// Returns the region before it was altered, while calls that name its version are served.
    pub fn previous(&self) -> Option<&Arc<Self>> {
        self.previous.as_ref()
    }

    /// Returns the region as a call with this version of the schema sees it: as it is, or before it was altered.
    pub fn at_version(self: &Arc<Self>, named: SchemaVersion) -> Option<&Arc<Self>> {
        if named == self.schema_version() {
            return Some(self);
        }
        self.previous().filter(|previous| named == previous.schema_version())
    }

    /// Converts to the wire form.
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

    /// Returns the description that the region engine needs.
    pub fn spec(&self) -> RegionSpec {
        RegionSpec {
            region_id: self.region_id,
            table_id: self.table_id,
            incarnation: self.incarnation,
            schema: self.schema.clone(),
            options: self.options.clone(),
            range: self.range.clone(),
            parents: Vec::new(),
        }
    }

    /// Directory of the region in the object store.
    pub fn dir(&self) -> RegionDir {
        RegionDir {
            table_id: self.table_id,
            region_id: self.region_id,
            incarnation: self.incarnation,
        }
    }

    /// Codec of the table's row keys.
    pub fn codec(&self) -> &KeyCodec {
        self.shape.codec()
    }

    /// Schema, options and key codec for reads.
    pub fn shape(&self) -> &Arc<TableShape> {
        &self.shape
    }

    /// Version of the region's schema.
    pub fn schema_version(&self) -> SchemaVersion {
        self.schema.version()
    }

    /// Columns of rows of this operation: all columns for a put, the key for a delete.
    pub fn row_schema(&self, op: RowOp) -> SchemaRef {
        match op {
            RowOp::Put => self.schema.arrow(),
            RowOp::Delete => self.schema.key_arrow(),
        }
    }

    /// Key columns, in key order, of rows of this operation.
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
        self.to_wire() == other.to_wire() && self.previous == other.previous
    }
}
