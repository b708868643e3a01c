//! Dealing a batch out to several lanes without losing the order of any key's rows.
//!
//! Lanes overtake each other. In an upsert table the last row of a key wins, so all rows of one key
//! go through one lane, which sends them in the order in which they were handed in.

use std::hash::{DefaultHasher, Hasher};

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use tidewater_common::keys::KeyCodec;
use tidewater_proto::v1::RowOp;

use super::prepare::key_columns;
use crate::error::ClientError;

/// Cuts a batch into one part for each lane, by a hash of the key. Rows keep their order; lanes
/// that get none are left out.
///
/// # Errors
/// Keys that cannot be built.
pub(super) fn deal(
    codec: &KeyCodec,
    op: RowOp,
    batch: &RecordBatch,
    lanes: usize,
) -> Result<Vec<(usize, RecordBatch)>, ClientError> {
    let keys = codec.comparable(&key_columns(codec, op, batch))?;
    let share = keys.num_rows() / lanes.max(1);
    let mut rows_of: Vec<Vec<u32>> =
        (0..lanes).map(|_| Vec::with_capacity(share + share / 4)).collect();
    for (row, key) in (0..).zip(keys.iter()) {
        if let Some(rows) = rows_of.get_mut(lane_of(key.as_ref(), lanes)) {
            rows.push(row);
        }
    }
    rows_of
        .into_iter()
        .enumerate()
        .filter(|(_, rows)| !rows.is_empty())
        .map(|(lane, rows)| {
            let part = take_record_batch(batch, &UInt32Array::from(rows))
                .map_err(|error| ClientError::BadInput(error.to_string()))?;
            Ok((lane, part))
        })
        .collect()
}

/// The same for equal keys, for as long as the writer lives.
fn lane_of(key: &[u8], lanes: usize) -> usize {
    let mut hasher = DefaultHasher::new();
    hasher.write(key);
    let lanes = lanes.max(1) as u64;
    usize::try_from(hasher.finish() % lanes).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use arrow::array::{Array, Int64Array, StringArray};

    use super::*;
    use crate::fake::{rows, table_info};

    /// Ids with the number of the row that each stood in.
    fn numbered(ids: &[i64]) -> RecordBatch {
        let numbers: Vec<String> = (0..ids.len()).map(|row| row.to_string()).collect();
        let values = std::sync::Arc::new(StringArray::from(numbers));
        let batch = rows(ids.iter().copied());
        RecordBatch::try_new(batch.schema(), vec![batch.column(0).clone(), values]).unwrap()
    }

    fn contents(part: &RecordBatch) -> Vec<(i64, usize)> {
        let ids = part.column(0).as_any().downcast_ref::<Int64Array>().unwrap();
        let numbers = part.column(1).as_any().downcast_ref::<StringArray>().unwrap();
        (0..ids.len())
            .map(|row| (ids.value(row), numbers.value(row).parse::<usize>().unwrap()))
            .collect()
    }

    #[test]
    fn each_key_has_its_lane_and_its_order() {
        let ids: Vec<i64> = (0..1_000).map(|row| (row * 7) % 90).collect();
        let codec = table_info().codec;
        let parts = deal(&codec, RowOp::Put, &numbered(&ids), 4).unwrap();
        assert_eq!(parts.len(), 4);
        let mut lane_of_key = HashMap::new();
        let mut seen = Vec::new();
        for (lane, part) in &parts {
            let rows = contents(part);
            assert!(rows.is_sorted_by_key(|(_, number)| *number), "out of order in lane {lane}");
            for (id, number) in rows {
                assert_eq!(*lane_of_key.entry(id).or_insert(*lane), *lane, "key {id}");
                seen.push(number);
            }
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..1_000).collect::<Vec<_>>(), "every row once");
        // The next batch finds the keys where they were.
        for (lane, part) in deal(&codec, RowOp::Put, &numbered(&[3, 89, 42]), 4).unwrap() {
            for (id, _) in contents(&part) {
                assert_eq!(lane_of_key[&id], lane, "key {id}");
            }
        }
    }

    #[test]
    fn a_delete_goes_where_the_row_went() {
        let codec = table_info().codec;
        for id in 0..50 {
            let put = deal(&codec, RowOp::Put, &rows([id]), 5).unwrap();
            let delete = deal(&codec, RowOp::Delete, &crate::fake::keys(&[id]), 5).unwrap();
            assert_eq!(put[0].0, delete[0].0);
        }
    }

    #[test]
    fn no_lane_is_left_idle() {
        let ids: Vec<i64> = (0..8_192).collect();
        let parts = deal(&table_info().codec, RowOp::Put, &rows(ids), 8).unwrap();
        assert_eq!(parts.len(), 8);
        for (lane, part) in parts {
            assert!((800..1_300).contains(&part.num_rows()), "lane {lane}: {}", part.num_rows());
        }
    }
}
