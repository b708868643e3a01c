//! Statistics of the values in a file, from its metadata.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, UInt64Array, new_null_array};
use arrow::datatypes::DataType;
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use parquet::basic::ColumnOrder;
use parquet::errors::Result as ParquetResult;
use tidewater_common::ids::ColumnId;
use tidewater_common::schema::{Column, TableSchema};

use super::convert::{StoredUnit, from_stored};
use super::footer::Footer;
use super::units::{StoredUnits, has_units, unit_within};
use crate::file_meta::FileMeta;
use crate::read::filter::Term;
use crate::read::prune::{ColumnBounds, admits};

/// Statistics of one column of a file, in the types of a schema.
pub(crate) struct ColumnStatistics<'a> {
    footer: &'a Footer,
    leaf: usize,
    data_type: DataType,
    nan_free: bool,
    converter: StatisticsConverter<'a>,
}

impl<'a> ColumnStatistics<'a> {
    /// Returns `None` when nothing is known: the file lacks the column, or does not define its
    /// order.
    pub(crate) fn new(footer: &'a Footer, id: ColumnId, data_type: DataType) -> Option<Self> {
        let leaf = *footer.leaves.get(&id)?;
        let file = footer.metadata.metadata().file_metadata();
        let descriptor = file.schema_descr();
        if !matches!(file.column_order(leaf), ColumnOrder::TYPE_DEFINED_ORDER(_)) {
            return None;
        }
        // All columns of a table are flat, so leaves are fields.
        let field = footer.metadata.schema().fields().get(leaf)?;
        let converter = StatisticsConverter::from_column_index(leaf, field, descriptor).ok()?;
        let converter = converter.with_missing_null_counts_as_zero(false);
        let nan_free = footer.nan_columns.as_ref().is_some_and(|columns| !columns.contains(&id));
        Some(Self { footer, leaf, data_type, nan_free, converter })
    }

    /// Returns the bounds of every row group.
    pub(crate) fn groups(&self) -> ColumnBounds {
        let groups = self.footer.metadata.metadata().row_groups();
        let rows: Vec<u64> =
            groups.iter().map(|group| u64::try_from(group.num_rows()).unwrap_or(0)).collect();
        // Old writers compared bytes as signed.
        let old = groups.iter().any(|group| {
            let statistics = group.columns().get(self.leaf).and_then(|chunk| chunk.statistics());
            statistics.is_some_and(|statistics| statistics.is_min_max_deprecated())
        });
        let values = |stored: ParquetResult<ArrayRef>| {
            if old { self.unknown(rows.len()) } else { self.values(stored, rows.len()) }
        };
        ColumnBounds {
            mins: values(self.converter.row_group_mins(groups)),
            maxes: values(self.converter.row_group_maxes(groups)),
            nulls: counts(self.converter.row_group_null_counts(groups), rows.len()),
            nan_free: self.nan_free,
            rows,
        }
    }

    /// Returns the bounds and the rows of every page of a row group; `None` when the file has no
    /// page index.
    pub(super) fn pages(&self, group: usize) -> Option<(ColumnBounds, Vec<Range<usize>>)> {
        let metadata = self.footer.metadata.metadata();
        let columns = metadata.column_index()?;
        let offsets = metadata.offset_index()?;
        columns.get(group)?.get(self.leaf)?;
        let ranges = page_rows(self.footer, group, self.leaf)?;
        let rows: Vec<u64> = ranges.iter().map(|range| range.len() as u64).collect();
        let pages = rows.len();
        let groups = [group];
        let bounds = ColumnBounds {
            mins: self.values(self.converter.data_page_mins(columns, offsets, &groups), pages),
            maxes: self.values(self.converter.data_page_maxes(columns, offsets, &groups), pages),
            nulls: counts(self.converter.data_page_null_counts(columns, offsets, &groups), pages),
            nan_free: self.nan_free,
            rows,
        };
        Some((bounds, ranges))
    }

    fn values(&self, stored: ParquetResult<ArrayRef>, count: usize) -> ArrayRef {
        stored
            .ok()
            .filter(|array| array.len() == count)
            .and_then(|array| from_stored(&array, &self.data_type).ok())
            .unwrap_or_else(|| self.unknown(count))
    }

    fn unknown(&self, count: usize) -> ArrayRef {
        new_null_array(&self.data_type, count)
    }
}

fn counts(stored: ParquetResult<UInt64Array>, count: usize) -> Vec<Option<u64>> {
    match stored {
        Ok(counts) if counts.len() == count => counts.iter().collect(),
        _ => vec![None; count],
    }
}

/// Returns the units that hold all values of a file, by its statistics, as columns of `schema`.
pub(crate) fn stored_units(footer: &Footer, schema: &TableSchema) -> StoredUnits {
    let unit = |column: &Column| {
        let data_type = column.data_type.arrow();
        if !has_units(&data_type) || !footer.leaves.contains_key(&column.id) {
            return StoredUnit::Micros;
        }
        ColumnStatistics::new(footer, column.id, data_type)
            .map_or(StoredUnit::Millis, |statistics| unit_within(&statistics.groups()))
    };
    schema.columns().iter().map(unit).collect()
}

/// Returns the rows of each page of a column, within its row group; `None` when the file has no
/// valid page index.
pub(super) fn page_rows(footer: &Footer, group: usize, leaf: usize) -> Option<Vec<Range<usize>>> {
    let metadata = footer.metadata.metadata();
    let pages = metadata.offset_index()?.get(group)?.get(leaf)?.page_locations();
    let rows = usize::try_from(metadata.row_groups().get(group)?.num_rows()).ok()?;
    let mut starts = Vec::with_capacity(pages.len() + 1);
    for page in pages {
        starts.push(usize::try_from(page.first_row_index).ok()?);
    }
    starts.push(rows);
    let ordered = starts.first() == Some(&0) && starts.is_sorted();
    ordered.then(|| starts.windows(2).map(|pair| pair[0]..pair[1]).collect())
}

/// Returns whether the file may hold a row for which the terms hold, judged by its time range.
pub(crate) fn file_admits<'a>(
    schema: &TableSchema,
    file: &FileMeta,
    mut terms: impl Iterator<Item = &'a Term>,
) -> bool {
    let Some(column) = schema.time_column().and_then(|id| schema.column(id)) else { return true };
    let Some(time) = file.time else { return true };
    let bound = |value: i64| {
        let number: ArrayRef = Arc::new(Int64Array::from(vec![value]));
        let data_type = column.data_type.arrow();
        match data_type {
            // Arrow has no direct cast from 64 bits to dates.
            DataType::Date32 => from_stored(&number, &DataType::Int32)
                .and_then(|number| from_stored(&number, &data_type)),
            _ => from_stored(&number, &data_type),
        }
    };
    let (Ok(mins), Ok(maxes)) = (bound(time.min), bound(time.max)) else { return true };
    let nulls = if column.nullable { None } else { Some(0) };
    let bounds =
        ColumnBounds { mins, maxes, nulls: vec![nulls], rows: vec![file.rows], nan_free: true };
    terms.all(|term| term.column != column.id || admits(term, &bounds) != [false])
}
