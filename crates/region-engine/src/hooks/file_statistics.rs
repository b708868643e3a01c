//! Statistics of the columns of data files, from their footers.

use std::cmp::Ordering;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, ArrayRef, make_comparator};
use arrow::compute::SortOptions;
use arrow::datatypes::DataType;
use arrow::util::display::array_value_to_string;
use futures::{StreamExt, stream};
use tidewater_common::ids::ColumnId;
use tidewater_common::schema::{Column, TableSchema};
use tokio::time::{Instant, timeout_at};

use crate::file_meta::FileMeta;
use crate::read::prune::ColumnBounds;
use crate::sst::FooterCache;
use crate::sst::convert::from_stored;
use crate::sst::footer::{Footer, footer};
use crate::sst::statistics::ColumnStatistics;
use crate::storage::Storage;

/// Maximum number of columns of which one event has statistics, over all its files.
pub const MAX_EVENT_COLUMNS: usize = 4_096;
/// Maximum length of a bound as text, in bytes; a longer one is unknown.
pub const MAX_BOUND_BYTES: usize = 128;
/// Time within which the footers of an event are read. Well below the time limit of a call: a store
/// that is slow delays a call, and does not fail it.
const READ_TIME: Duration = Duration::from_secs(2);
/// Footers that are read concurrently.
const CONCURRENT_READS: usize = 8;

/// Statistics of one column of a data file. Deletes count as rows: they have nulls in all columns but
/// those of the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnSummary {
    /// Id of the column.
    pub column: ColumnId,
    /// Encoded and compressed size in the file, in bytes.
    pub bytes: u64,
    /// Number of nulls; `None`: unknown.
    pub nulls: Option<u64>,
    /// True if a value is NaN, which the bounds ignore; `None`: unknown. False for columns other than
    /// floats.
    pub has_nan: Option<bool>,
    /// Lower bound of the values in the text form of predicates, instants with a zone in UTC; `None`:
    /// unknown, or no value.
    pub min: Option<String>,
    /// Upper bound, like `min`.
    pub max: Option<String>,
}

/// Reader of the statistics of data files; cheap to clone.
#[derive(Debug, Clone)]
pub struct FileStatisticsReader {
    storage: Storage,
    footers: Arc<FooterCache>,
}

impl FileStatisticsReader {
    /// Creates a reader of the files in a store, with a cache of footers.
    pub fn new(storage: Storage, footers: Arc<FooterCache>) -> Self {
        Self { storage, footers }
    }

    /// Returns the statistics of files, in their order and that of `schema`. `None` for a file whose
    /// footer cannot be read, or not within 2 s, and for the files after [`MAX_EVENT_COLUMNS`] columns.
    pub(crate) async fn read(
        &self,
        files: &[&FileMeta],
        schema: &TableSchema,
    ) -> Vec<Option<Vec<ColumnSummary>>> {
        let deadline = Instant::now() + READ_TIME;
        let within = MAX_EVENT_COLUMNS / schema.columns().len().max(1);
        let mut reads = Vec::with_capacity(files.len().min(within));
        for file in files.iter().take(within) {
            reads.push(self.read_one(file, schema, deadline));
        }
        let mut found: Vec<_> = stream::iter(reads).buffered(CONCURRENT_READS).collect().await;
        found.resize(files.len(), None);
        found
    }

    async fn read_one(
        &self,
        file: &FileMeta,
        schema: &TableSchema,
        deadline: Instant,
    ) -> Option<Vec<ColumnSummary>> {
        match timeout_at(deadline, footer(&self.storage, &self.footers, file)).await {
            Ok(Ok(footer)) => Some(summaries(&footer, schema)),
            Ok(Err(error)) => {
                tracing::debug!(%error, "a hook's event lacks the statistics of a file");
                None
            }
            Err(_) => None,
        }
    }
}

/// Returns the statistics of the columns that the file has.
fn summaries(footer: &Footer, schema: &TableSchema) -> Vec<ColumnSummary> {
    let groups = footer.metadata.metadata().row_groups();
    let summary = |column: &Column| {
        let leaf = *footer.leaves.get(&column.id)?;
        let chunks = groups.iter().filter_map(|group| group.columns().get(leaf));
        let bytes = chunks.map(|chunk| u64::try_from(chunk.compressed_size()).unwrap_or(0)).sum();
        let bounds = ColumnStatistics::new(footer, column.id, column.data_type.arrow())
            .map(|statistics| statistics.groups());
        let is_float = column.data_type.arrow().is_floating();
        let has_nan = match &footer.nan_columns {
            _ if !is_float => Some(false),
            Some(listed) => Some(listed.contains(&column.id)),
            None => None,
        };
        let bound = |order, of: fn(&ColumnBounds) -> &ArrayRef| {
            bounds.as_ref().and_then(|bounds| extreme(bounds, of(bounds), order))
        };
        Some(ColumnSummary {
            column: column.id,
            bytes,
            nulls: bounds.as_ref().and_then(|bounds| bounds.nulls.iter().copied().sum()),
            has_nan,
            min: bound(Ordering::Less, |bounds| &bounds.mins),
            max: bound(Ordering::Greater, |bounds| &bounds.maxes),
        })
    };
    schema.columns().iter().filter_map(summary).collect()
}

/// Returns the least or greatest of the row groups' bounds as text; `None` if a row group with values has
/// no bound.
fn extreme(bounds: &ColumnBounds, values: &ArrayRef, order: Ordering) -> Option<String> {
    let compare = make_comparator(values, values, SortOptions::default()).ok()?;
    let mut best: Option<usize> = None;
    for group in 0..bounds.rows.len() {
        if bounds.nulls.get(group).copied().flatten() == Some(bounds.rows[group]) {
            continue;
        }
        if values.is_null(group) {
            return None;
        }
        if best.is_none_or(|best| compare(group, best) == order) {
            best = Some(group);
        }
    }
    let text = array_value_to_string(&in_utc(values)?, best?).ok()?;
    (text.len() <= MAX_BOUND_BYTES).then_some(text)
}

/// Returns instants with a time zone in UTC: Arrow does not know the names of zones.
fn in_utc(values: &ArrayRef) -> Option<ArrayRef> {
    match values.data_type() {
        DataType::Timestamp(unit, Some(_)) => {
            from_stored(values, &DataType::Timestamp(*unit, Some("+00:00".into()))).ok()
        }
        _ => Some(values.clone()),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, Int64Array, StringArray};
    use arrow::compute::cast;
    use arrow::datatypes::TimeUnit;

    use super::*;

    fn bounds(mins: ArrayRef, maxes: ArrayRef, nulls: &[Option<u64>]) -> ColumnBounds {
        let rows = vec![10; mins.len()];
        ColumnBounds { mins, maxes, nulls: nulls.to_vec(), rows, nan_free: true }
    }

    /// Returns the least and greatest value.
    fn extremes(bounds: &ColumnBounds) -> (Option<String>, Option<String>) {
        (
            extreme(bounds, &bounds.mins, Ordering::Less),
            extreme(bounds, &bounds.maxes, Ordering::Greater),
        )
    }

    #[test]
    fn bounds_of_file_cover_its_row_groups() {
        let text = |text: &str| Some(text.to_owned());
        let numbers =
            |values: &[Option<i64>]| Arc::new(Int64Array::from(values.to_vec())) as ArrayRef;
        let known = [Some(0), Some(3)];
        let mins = numbers(&[Some(-5), Some(-40)]);
        let found = bounds(mins.clone(), numbers(&[Some(7), Some(100)]), &known);
        assert_eq!(extremes(&found), (text("-40"), text("100")));
        // Only nulls.
        let found =
            bounds(numbers(&[Some(4), None]), numbers(&[Some(6), None]), &[Some(0), Some(10)]);
        assert_eq!(extremes(&found), (text("4"), text("6")));
        // Unknown.
        let found = bounds(mins, numbers(&[Some(6), None]), &[Some(0), None]);
        assert_eq!(extremes(&found), (text("-40"), None));
        assert_eq!(extremes(&bounds(numbers(&[]), numbers(&[]), &[])), (None, None));
        let floats = |value| Arc::new(Float64Array::from(vec![value])) as ArrayRef;
        let found = bounds(floats(-0.5), floats(1e300), &[Some(0)]);
        assert_eq!(extremes(&found), (text("-0.5"), text("1e300")));
        let paris = DataType::Timestamp(TimeUnit::Millisecond, Some("Europe/Paris".into()));
        let times = |value| cast(&numbers(&[Some(value)]), &paris).unwrap();
        let found = bounds(times(-1), times(1_700_000_000_123), &[Some(0)]);
        let expected = (text("1969-12-31T23:59:59.999Z"), text("2023-11-14T22:13:20.123Z"));
        assert_eq!(extremes(&found), expected);
        let texts = |text: String| Arc::new(StringArray::from(vec![text])) as ArrayRef;
        let long = "x".repeat(MAX_BOUND_BYTES + 1);
        let found = bounds(texts("a\"b".to_owned()), texts(long), &[Some(0)]);
        assert_eq!(extremes(&found), (text("a\"b"), None));
    }
}
