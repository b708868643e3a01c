//! Writer of one SST: takes rows, emits the parts of a file and its description. CPU-bound and
//! synchronous.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::{max, min};
use arrow::datatypes::{DataType, Float32Type, Float64Type, Int64Type, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::file::metadata::{KeyValue, ParquetMetaData};
use tidewater_common::ids::{ColumnId, Epoch, FileId, Sequence};
use tidewater_common::keys::KeyRange;
use tidewater_common::rows::{bytes_of, rows_within};
use tidewater_common::schema::{TableSchema, WriteMode};

use super::convert::to_stored;
use super::format::{
    BLOCKS_KEY, KEY_INDEX_KEY, NAN_KEY, PAGE_ROWS, ROW_GROUP_ROWS, SLICE_BYTES, encode_checksums,
    encode_ids, encode_keys, file_schema, group_is_full, properties,
};
use super::sink::{PartReceiver, PartSink};
use super::units::StoredUnits;
use crate::EngineError;
use crate::expiry::as_numbers;
use crate::file_meta::{FileMeta, FileTail, TimeRange};
use crate::hooks::{SstFileInfo, SstInfo};
use crate::layout::RegionDir;
use crate::memtable::run::key_columns;
use crate::read::shape::TableShape;
use crate::row_versions::RowVersions;

/// Content of a file, known before it is written.
#[derive(Debug, Clone)]
pub(crate) struct FilePlan {
    pub(crate) shape: Arc<TableShape>,
    pub(crate) dir: RegionDir,
    /// True if the table is hash-distributed: row keys begin with the vnode.
    pub(crate) hashed: bool,
    /// True if some rows may be deletes.
    pub(crate) with_deletes: bool,
    /// True if no key occurs twice, whatever the rows are.
    pub(crate) unique: bool,
}

/// A written file without its id.
#[derive(Debug)]
pub(crate) struct WrittenFile {
    meta: FileMeta,
    footer: Arc<ParquetMetaData>,
}

impl WrittenFile {
    pub(crate) fn size(&self) -> u64 {
        self.meta.size
    }

    /// Returns the description of the file with its id.
    pub(crate) fn with_id(self, file_id: FileId) -> SstFileInfo {
        let meta = FileMeta { file_id, ..self.meta };
        let sst = SstInfo {
            file_id,
            time: meta.time,
            size: meta.size,
            rows: meta.rows,
            row_groups: meta.row_groups,
            footer: self.footer,
            indexes: meta.indexes.clone(),
        };
        SstFileInfo { sst, meta }
    }
}

/// Writer of one SST.
pub(crate) struct SstWriter<R: PartReceiver> {
    plan: FilePlan,
    units: StoredUnits,
    schema: SchemaRef,
    writer: ArrowWriter<PartSink<R>>,
    group_rows: usize,
    /// Unencoded bytes of these rows, which are also the bytes to read them.
    group_bytes: usize,
    rows: u64,
    deletes: u64,
    key_index: Vec<Vec<u8>>,
    last: Option<RowVersions>,
    sequences: Option<(u64, u64)>,
    epochs: Option<(u64, u64)>,
    time: Option<TimeRange>,
    /// Several versions of a key were appended.
    repeats: bool,
    /// Float columns in which a NaN occurred.
    nans: BTreeSet<ColumnId>,
}

impl<R: PartReceiver> SstWriter<R> {
    /// Creates a writer of rows that `units` hold.
    pub(crate) fn new(
        plan: FilePlan,
        units: StoredUnits,
        receiver: R,
    ) -> Result<Self, EngineError> {
        let schema = file_schema(&plan.shape.schema, &units, plan.with_deletes);
        let properties = properties(&plan.shape.schema, plan.dir.region_id, !plan.hashed)?;
        let writer =
            ArrowWriter::try_new(PartSink::new(receiver), schema.clone(), Some(properties))
                .map_err(encoding)?;
        Ok(Self {
            plan,
            units,
            schema,
            writer,
            group_rows: 0,
            group_bytes: 0,
            rows: 0,
            deletes: 0,
            key_index: Vec::new(),
            last: None,
            sequences: None,
            epochs: None,
            time: None,
            repeats: false,
            nans: BTreeSet::new(),
        })
    }

    /// Records that a key occurs twice.
    pub(crate) fn note_repeats(&mut self) {
        self.repeats = true;
    }

    /// Appends rows with all columns of the schema, in key order after earlier rows.
    pub(crate) fn push(&mut self, rows: &RowVersions) -> Result<(), EngineError> {
        let mut offset = 0;
        while offset < rows.rows() {
            let room = (ROW_GROUP_ROWS - self.group_rows).min(rows.rows() - offset);
            let room = rows_within(rows.arrays(), offset..offset + room, SLICE_BYTES);
            self.group_bytes += bytes_of(rows.arrays(), offset..offset + room);
            self.push_within_group(&rows.slice(offset, room))?;
            offset += room;
            // Repeated values take next to nothing here, but all their bytes when they are read.
            let bytes = self.group_bytes.max(self.writer.memory_size());
            if group_is_full(self.group_rows, bytes) {
                self.end_group()?;
            }
        }
        Ok(())
    }

    /// Returns the units in which the file stores its columns.
    pub(crate) fn units(&self) -> &StoredUnits {
        &self.units
    }

    /// Returns the approximate size of the file if it ended now, in bytes.
    pub(crate) fn estimated_bytes(&self) -> usize {
        self.writer.bytes_written() + self.writer.in_progress_size()
    }

    /// Returns the row key of the last row.
    pub(crate) fn last_key(&self) -> Result<Option<Vec<u8>>, EngineError> {
        let Some(last) = &self.last else { return Ok(None) };
        let keys = key_columns(last, &self.plan.shape.schema);
        Ok(Some(self.plan.shape.codec.row_key(&keys, last.rows() - 1)?))
    }

    /// Ends the file; returns the receiver, which has received all bytes.
    pub(crate) fn finish(mut self) -> Result<(WrittenFile, R), EngineError> {
        self.end_group()?;
        let max_key = self.last_key()?;
        let row_groups = self.writer.flushed_row_groups().len();
        let data_end = self.writer.inner().written();
        let checksums = self.writer.inner_mut().end_data();
        let pair = |key: &str, value| KeyValue::new(key.to_owned(), Some(value));
        self.writer.append_key_value_metadata(pair(BLOCKS_KEY, encode_checksums(&checksums)));
        self.writer.append_key_value_metadata(pair(KEY_INDEX_KEY, encode_keys(&self.key_index)));
        self.writer.append_key_value_metadata(pair(NAN_KEY, encode_ids(&self.nan_columns())));
        let footer = Arc::new(self.writer.finish().map_err(encoding)?);
        let sink = self.writer.inner_mut();
        let (min_key, max_key) = match (self.key_index.first(), max_key) {
            (Some(min_key), Some(max_key)) => (min_key.clone(), max_key),
            _ => {
                return Err(EngineError::Internal {
                    detail: "cannot finish a file without rows".to_owned(),
                });
            }
        };
        let upsert = self.plan.shape.mode() == WriteMode::Upsert;
        let (min_sequence, max_sequence) = self.sequences.unwrap_or_default();
        let (min_epoch, max_epoch) = self.epochs.unwrap_or_default();
        let meta = FileMeta {
            file_id: FileId(uuid::Uuid::nil()),
            origin: self.plan.dir,
            clip: KeyRange::whole(),
            level: 0,
            size: sink.written(),
            rows: self.rows,
            row_groups: u32::try_from(row_groups).unwrap_or(u32::MAX),
            min_key,
            max_key,
            time: self.time,
            stored_min_sequence: Sequence(min_sequence),
            stored_max_sequence: Sequence(max_sequence),
            stored_min_epoch: Epoch(min_epoch),
            stored_max_epoch: Epoch(max_epoch),
            deletes: self.deletes,
            one_version_per_key: self.plan.unique || (upsert && !self.repeats),
            schema_version: self.plan.shape.schema.version(),
            indexes: Vec::new(),
            stamp: None,
            checksum: sink.checksum(),
            tail: FileTail { length: sink.written() - data_end, checksum: sink.tail_checksum() },
        };
        let receiver = sink.finish().map_err(|error| encoding(error.into()))?;
        Ok((WrittenFile { meta, footer }, receiver))
    }

    fn push_within_group(&mut self, rows: &RowVersions) -> Result<(), EngineError> {
        self.index_keys(rows)?;
        if let Some(times) = time_bounds(rows, &self.plan.shape.schema)? {
            self.time = Some(times.and(self.time));
        }
        let stamps = rows.stamps();
        widen(&mut self.sequences, stamps.sequences.bounds(rows.rows()));
        widen(&mut self.epochs, stamps.epochs.bounds(rows.rows()));
        self.deletes += stamps.ops.deletes(rows.rows()) as u64;
        self.rows += rows.rows() as u64;
        self.group_rows += rows.rows();
        self.nans.extend(nan_columns(rows));
        let mut arrays: Vec<ArrayRef> = rows
            .arrays()
            .iter()
            .zip(self.schema.fields())
            .zip(self.units.iter())
            .map(|((array, field), unit)| to_stored(field.name(), array, unit))
            .collect::<Result<_, _>>()?;
        arrays.push(Arc::new(stamps.sequences.to_array(rows.rows())));
        arrays.push(Arc::new(stamps.epochs.to_array(rows.rows())));
        arrays.push(Arc::new(stamps.ops.to_array(rows.rows())));
        let batch = RecordBatch::try_new(self.schema.clone(), arrays)?;
        self.writer.write(&batch).map_err(encoding)?;
        self.last = Some(rows.clone());
        Ok(())
    }

    /// Records the key of every row of the row group whose number is a multiple of [`PAGE_ROWS`].
    fn index_keys(&mut self, rows: &RowVersions) -> Result<(), EngineError> {
        let mut next = self.group_rows.next_multiple_of(PAGE_ROWS) - self.group_rows;
        if next >= rows.rows() {
            return Ok(());
        }
        let keys = key_columns(rows, &self.plan.shape.schema);
        while next < rows.rows() {
            self.key_index.push(self.plan.shape.codec.row_key(&keys, next)?);
            next += PAGE_ROWS;
        }
        Ok(())
    }

    fn nan_columns(&self) -> Vec<ColumnId> {
        // In the schema's order, which determines the bytes of a file.
        let columns = self.plan.shape.schema.columns();
        columns.iter().map(|column| column.id).filter(|id| self.nans.contains(id)).collect()
    }

    fn end_group(&mut self) -> Result<(), EngineError> {
        if self.group_rows > 0 {
            self.writer.flush().map_err(encoding)?;
            self.group_rows = 0;
            self.group_bytes = 0;
        }
        // The encoder buffers some bytes; block checksums and offsets need all of them.
        self.writer.sync().map_err(|error| encoding(error.into()))
    }
}

/// Returns the lowest and highest value of the time column; `None` without one, or if all are null.
pub(crate) fn time_bounds(
    rows: &RowVersions,
    schema: &TableSchema,
) -> Result<Option<TimeRange>, EngineError> {
    let Some(column) = schema.time_column() else { return Ok(None) };
    let Some(times) = rows.column(column) else { return Ok(None) };
    let times = as_numbers(times)?;
    let times = times.as_primitive::<Int64Type>();
    Ok(min(times).zip(max(times)).map(|(min, max)| TimeRange { min, max }))
}

/// Returns the float columns that contain a NaN.
pub(crate) fn nan_columns(rows: &RowVersions) -> impl Iterator<Item = ColumnId> {
    let holds = |array: &ArrayRef| match array.data_type() {
        DataType::Float32 => {
            array.as_primitive::<Float32Type>().values().iter().any(|v| v.is_nan())
        }
        DataType::Float64 => {
            array.as_primitive::<Float64Type>().values().iter().any(|v| v.is_nan())
        }
        _ => false,
    };
    let columns = rows.ids().iter().zip(rows.arrays());
    columns.filter(move |(_, array)| holds(array)).map(|(id, _)| *id)
}

/// Extends bounds to include others.
pub(crate) fn widen(bounds: &mut Option<(u64, u64)>, more: Option<(u64, u64)>) {
    *bounds = match (*bounds, more) {
        (Some((low, high)), Some((min, max))) => Some((low.min(min), high.max(max))),
        (bounds, more) => bounds.or(more),
    };
}

fn encoding(error: parquet::errors::ParquetError) -> EngineError {
    EngineError::Internal { detail: format!("cannot encode rows as Parquet: {error}") }
}
