//! Partitions a batch among several lanes and keeps the order of the rows of each key.
//!
//! Lanes run independently of each other. In an upsert table the last row of a key wins, so all rows of
//! a key go to one lane, which sends them in the order of the calls.

use std::hash::{DefaultHasher, Hasher};

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use tidewater_common::keys::KeyCodec;
use tidewater_proto::v1::RowOp;

use super::prepare::key_columns;
use crate::error::ClientError;

/// Partitions a batch by a hash of the key into pairs of a lane's index and its rows, in their order.
/// Lanes without rows are left out.
///
/// # Errors
/// [`ClientError::Key`] if a key cannot be built.
pub(super) fn partition_by_key(
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

/// Returns the index of a key's lane; constant for the lifetime of a writer.
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

    /// Returns rows with these ids, and the index of each row as its value.
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
    fn partitions_keep_the_lane_and_order_of_keys() {
        let ids: Vec<i64> = (0..1_000).map(|row| (row * 7) % 90).collect();
        let codec = table_info().codec;
        let parts = partition_by_key(&codec, RowOp::Put, &numbered(&ids), 4).unwrap();
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
        // Keys keep their lanes in the next batch.
        for (lane, part) in
            partition_by_key(&codec, RowOp::Put, &numbered(&[3, 89, 42]), 4).unwrap()
        {
            for (id, _) in contents(&part) {
                assert_eq!(lane_of_key[&id], lane, "key {id}");
            }
        }
    }

    #[test]
    fn deletes_go_to_the_lane_of_their_row() {
        let codec = table_info().codec;
        for id in 0..50 {
            let put = partition_by_key(&codec, RowOp::Put, &rows([id]), 5).unwrap();
            let delete =
                partition_by_key(&codec, RowOp::Delete, &crate::fake::keys(&[id]), 5).unwrap();
            assert_eq!(put[0].0, delete[0].0);
        }
    }

    #[test]
    fn partitions_are_of_similar_size() {
        let ids: Vec<i64> = (0..8_192).collect();
        let parts = partition_by_key(&table_info().codec, RowOp::Put, &rows(ids), 8).unwrap();
        assert_eq!(parts.len(), 8);
        for (lane, part) in parts {
            assert!((800..1_300).contains(&part.num_rows()), "lane {lane}: {}", part.num_rows());
        }
    }
}
