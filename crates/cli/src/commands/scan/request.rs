//! Kind of result that the options of `scan` ask for.

use crate::exit::Failure;
use crate::query::aggregate::{Aggregate, ColumnFunction};
use crate::query::sort_key::SortKey;

/// Options of `scan` that determine the kind of its result.
#[derive(Debug, Default)]
pub(super) struct RequestOptions {
    pub(super) columns: Option<Vec<String>>,
    pub(super) order_by: Vec<SortKey>,
    pub(super) limit: Option<u64>,
    pub(super) count: bool,
    pub(super) sum: Vec<String>,
    pub(super) min: Vec<String>,
    pub(super) max: Vec<String>,
    pub(super) avg: Vec<String>,
    /// A format or a file of rows is given.
    pub(super) as_rows: bool,
}

/// Kind of result.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ScanRequest {
    /// Rows in key order.
    Rows,
    /// Rows in the order of sort keys.
    Sorted(Vec<SortKey>),
    /// The number of rows, as a bare number.
    RowCount,
    /// One row of aggregates.
    Aggregates(Vec<Aggregate>),
}

/// Options that contradict each other.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum RequestError {
    #[error(
        "--order-by sorts rows, but --count, --sum, --min, --max and --avg return one row: leave out \
         --order-by"
    )]
    SortedAggregates,
    #[error(
        "--limit limits the rows that are returned, but aggregates are one row: leave out --limit, \
         and choose rows with --where"
    )]
    LimitedAggregates,
    #[error(
        "--columns chooses the columns of rows, but --sum, --min, --max and --avg name their own: \
         leave out --columns, or add --count to count the values of those columns"
    )]
    ColumnsOfAggregates,
    #[error("--order-by: column `{0}` is named twice: name it once")]
    SortedTwice(String),
}

impl From<RequestError> for Failure {
    fn from(error: RequestError) -> Self {
        Self::usage(error.to_string())
    }
}

/// Returns the kind of result for these options.
pub(super) fn request(options: &RequestOptions) -> Result<ScanRequest, RequestError> {
    let aggregates = aggregates(options);
    if aggregates.is_empty() {
        return sorted_or_not(&options.order_by);
    }
    if !options.order_by.is_empty() {
        return Err(RequestError::SortedAggregates);
    }
    if options.columns.is_some() && !options.count {
        return Err(RequestError::ColumnsOfAggregates);
    }
    if aggregates == [Aggregate::Rows] {
        return Ok(if options.as_rows {
            ScanRequest::Aggregates(aggregates)
        } else {
            ScanRequest::RowCount
        });
    }
    if options.limit.is_some() {
        return Err(RequestError::LimitedAggregates);
    }
    Ok(ScanRequest::Aggregates(aggregates))
}

fn sorted_or_not(order_by: &[SortKey]) -> Result<ScanRequest, RequestError> {
    if order_by.is_empty() {
        return Ok(ScanRequest::Rows);
    }
    for (position, key) in order_by.iter().enumerate() {
        if order_by[..position].iter().any(|known| known.column == key.column) {
            return Err(RequestError::SortedTwice(key.column.clone()));
        }
    }
    Ok(ScanRequest::Sorted(order_by.to_vec()))
}

/// Returns the aggregates in the order of their functions, each once.
fn aggregates(options: &RequestOptions) -> Vec<Aggregate> {
    let mut aggregates = Vec::new();
    let mut add = |aggregate: Aggregate| {
        if !aggregates.contains(&aggregate) {
            aggregates.push(aggregate);
        }
    };
    let counted = options.columns.as_deref().filter(|_| options.count);
    if options.count && counted.is_none() {
        add(Aggregate::Rows);
    }
    for (function, columns) in [
        (ColumnFunction::Count, counted.unwrap_or_default()),
        (ColumnFunction::Sum, &options.sum),
        (ColumnFunction::Min, &options.min),
        (ColumnFunction::Max, &options.max),
        (ColumnFunction::Avg, &options.avg),
    ] {
        for column in columns {
            add(Aggregate::Column { function, column: column.clone() });
        }
    }
    aggregates
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn key(text: &str) -> SortKey {
        text.parse().unwrap()
    }

    /// Returns the names of the result's columns.
    fn result_columns(options: &RequestOptions) -> Vec<String> {
        match request(options) {
            Ok(ScanRequest::Aggregates(aggregates)) => {
                aggregates.iter().map(ToString::to_string).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn rows_are_requested_without_aggregates() {
        let columns = || Some(names(&["a"]));
        let plain = RequestOptions { columns: columns(), limit: Some(1), ..Default::default() };
        assert_eq!(request(&plain), Ok(ScanRequest::Rows));
        let keys = vec![key("b:desc"), key("a")];
        let sorted = RequestOptions { order_by: keys.clone(), ..plain };
        assert_eq!(request(&sorted), Ok(ScanRequest::Sorted(keys)));
    }

    #[test]
    fn count_alone_is_a_bare_number() {
        let count = RequestOptions { count: true, limit: Some(5), ..Default::default() };
        assert_eq!(request(&count), Ok(ScanRequest::RowCount));
        assert_eq!(result_columns(&RequestOptions { as_rows: true, ..count }), ["count"]);
    }

    #[test]
    fn aggregates_are_in_the_order_of_their_functions() {
        let options = RequestOptions {
            count: true,
            sum: names(&["a", "b", "a"]),
            min: names(&["c"]),
            max: names(&["a"]),
            avg: names(&["b"]),
            ..Default::default()
        };
        let found = result_columns(&options);
        assert_eq!(found, ["count", "sum(a)", "sum(b)", "min(c)", "max(a)", "avg(b)"]);
        let counted = RequestOptions { columns: Some(names(&["x", "y"])), ..options };
        let found = result_columns(&counted);
        assert_eq!(found[..3], ["count(x)", "count(y)", "sum(a)"]);
    }

    #[test]
    fn contradicting_options_are_rejected() {
        let base = || RequestOptions { sum: names(&["a"]), ..Default::default() };
        for (options, error) in [
            (RequestOptions { order_by: vec![key("a")], ..base() }, RequestError::SortedAggregates),
            (
                RequestOptions { count: true, order_by: vec![key("a")], ..Default::default() },
                RequestError::SortedAggregates,
            ),
            (RequestOptions { limit: Some(1), ..base() }, RequestError::LimitedAggregates),
            (
                RequestOptions {
                    count: true,
                    columns: Some(names(&["a"])),
                    limit: Some(1),
                    ..Default::default()
                },
                RequestError::LimitedAggregates,
            ),
            (
                RequestOptions { columns: Some(names(&["a"])), ..base() },
                RequestError::ColumnsOfAggregates,
            ),
            (
                RequestOptions { order_by: vec![key("a"), key("a:desc")], ..Default::default() },
                RequestError::SortedTwice("a".to_owned()),
            ),
        ] {
            assert_eq!(request(&options), Err(error), "{options:?}");
        }
    }
}
