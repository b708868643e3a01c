//! Partitioning of a batch by key into lane batches.
//!
//! Lanes do not keep any order between each other. In an upsert table the last row of a key wins, so
//! all rows of a key go through one lane, which sends them in the order of the calls.

use std::hash::{DefaultHasher, Hasher};

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use tidewater_common::keys::KeyCodec;
use tidewater_proto::v1::RowOp;

use super::prepare::key_columns;
use crate::error::ClientError;

/// Partitions a batch into one part per lane, by a hash of the key. Rows keep their order; lanes
/// without rows are omitted.
///
/// # Errors
/// Keys that cannot be built.
pub(super) fn partition_by_key(
    codec: &KeyCodec,
    op: RowOp,
    batch: &RecordBatch,
    lanes: usize,
) -> Result<Vec<(usize, RecordBatch)>, ClientError> {
    let keys = codec.comparable(&key_columns(codec, op, batch))?;
    let rows_per_lane = keys.num_rows() / lanes.max(1);
    let mut rows_by_lane: Vec<Vec<u32>> =
        (0..lanes).map(|_| Vec::with_capacity(rows_per_lane + rows_per_lane / 4)).collect();
    for (row, key) in (0..).zip(keys.iter()) {
        if let Some(rows) = rows_by_lane.get_mut(lane_of(key.as_ref(), lanes)) {
            rows.push(row);
        }
    }
    rows_by_lane
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

/// Returns the lane of a key. Equal keys have the same lane for the lifetime of the writer.
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

    /// Returns rows with these ids; the value is the number of the row.
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
    fn keys_keep_their_lane_and_row_order() {
        let ids: Vec<i64> = (0..1_000).map(|row| (row * 7) % 90).collect();
        let codec = table_info().codec;
        let lane_batches = partition_by_key(&codec, RowOp::Put, &numbered(&ids), 4).unwrap();
        assert_eq!(lane_batches.len(), 4);
        let mut lane_of_key = HashMap::new();
        let mut seen = Vec::new();
        for (lane, part) in &lane_batches {
            let rows = contents(part);
            assert!(rows.is_sorted_by_key(|(_, number)| *number), "out of order in lane {lane}");
            for (id, number) in rows {
                assert_eq!(*lane_of_key.entry(id).or_insert(*lane), *lane, "key {id}");
                seen.push(number);
            }
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..1_000).collect::<Vec<_>>(), "every row once");
        // The next batch assigns keys to the same lanes.
        for (lane, part) in
            partition_by_key(&codec, RowOp::Put, &numbered(&[3, 89, 42]), 4).unwrap()
        {
            for (id, _) in contents(&part) {
                assert_eq!(lane_of_key[&id], lane, "key {id}");
            }
        }
    }

    #[test]
    fn delete_goes_to_the_lane_of_its_row() {
        let codec = table_info().codec;
        for id in 0..50 {
            let put = partition_by_key(&codec, RowOp::Put, &rows([id]), 5).unwrap();
            let delete =
                partition_by_key(&codec, RowOp::Delete, &crate::fake::keys(&[id]), 5).unwrap();
            assert_eq!(put[0].0, delete[0].0);
        }
    }

    #[test]
    fn keys_are_spread_over_all_lanes() {
        let ids: Vec<i64> = (0..8_192).collect();
        let lane_batches =
            partition_by_key(&table_info().codec, RowOp::Put, &rows(ids), 8).unwrap();
        assert_eq!(lane_batches.len(), 8);
        for (lane, part) in lane_batches {
            assert!((800..1_300).contains(&part.num_rows()), "lane {lane}: {}", part.num_rows());
        }
    }
}
