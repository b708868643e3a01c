//! Rows of the children that have replaced a region, as one stream.

use futures::StreamExt;
use tidewater_region_engine::RowStream;

/// Returns the rows of several scans, one after the other, up to the limit of all.
pub(super) fn chained(mut parts: Vec<RowStream>, limit: Option<u64>) -> RowStream {
    match (parts.len(), limit) {
        (1, _) => parts.remove(0),
        (_, None) => futures::stream::iter(parts).flatten().boxed(),
        (_, Some(limit)) => {
            let rows = futures::stream::iter(parts).flatten();
            let limited = rows.scan(limit, |left, batch| {
                if *left == 0 {
                    return std::future::ready(None);
                }
                let batch = batch.map(|batch| {
                    let rows = usize::try_from(*left).unwrap_or(usize::MAX).min(batch.num_rows());
                    *left -= rows as u64;
                    batch.slice(0, rows)
                });
                std::future::ready(Some(batch))
            });
            limited.boxed()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, RecordBatch};
    use futures::stream;

    use super::*;

    /// A batch of this number of rows.
    fn batch(rows: i64) -> RecordBatch {
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows));
        RecordBatch::try_from_iter([("k", column)]).unwrap()
    }

    #[tokio::test]
    async fn scans_of_children_share_the_limit() {
        let parts =
            || vec![3, 0, 4].into_iter().map(|rows| stream::iter([Ok(batch(rows))]).boxed());
        for (limit, expected) in [
            (None, vec![3, 0, 4]),
            (Some(9), vec![3, 0, 4]),
            (Some(5), vec![3, 0, 2]),
            (Some(3), vec![3]),
            (Some(0), vec![]),
        ] {
            let rows = chained(parts().collect(), limit);
            let rows: Vec<usize> = rows.map(|batch| batch.unwrap().num_rows()).collect().await;
            assert_eq!(rows, expected, "{limit:?}");
        }
    }
}
