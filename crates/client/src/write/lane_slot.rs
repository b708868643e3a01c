//! The lanes of a writer, with their queues.

use std::collections::VecDeque;

use arrow::array::RecordBatch;
use tidewater_proto::v1::RowOp;

use super::lane::{Lane, LaneWrite};
use super::prepare::PieceLimits;

/// Maximum number of lane batches queued for one lane.
const MAX_QUEUED: usize = 4;

/// Rows of a batch for one lane.
#[derive(Debug)]
pub(super) struct LaneBatch {
    pub(super) op: RowOp,
    pub(super) rows: RecordBatch,
    /// Identifies the caller that waits for the report of this batch.
    pub(super) ticket: Option<u64>,
}

/// A lane and its queue, in the order of arrival.
#[derive(Debug)]
pub(super) struct LaneSlot {
    /// `None` while the lane runs a write.
    pub(super) lane: Option<Lane>,
    queue: VecDeque<LaneBatch>,
}

impl Default for LaneSlot {
    fn default() -> Self {
        Self { lane: Some(Lane::default()), queue: VecDeque::new() }
    }
}

impl LaneSlot {
    pub(super) fn is_idle(&self) -> bool {
        self.lane.is_some() && self.queue.is_empty()
    }

    pub(super) fn has_capacity(&self) -> bool {
        self.queue.len() < MAX_QUEUED
    }

    pub(super) fn push(&mut self, lane_batch: LaneBatch) {
        self.queue.push_back(lane_batch);
    }

    /// Takes the lane and its next write, if the lane is idle and its queue is not empty.
    pub(super) fn next(&mut self, limits: PieceLimits) -> Option<(Lane, LaneWrite, Option<u64>)> {
        if self.queue.is_empty() {
            return None;
        }
        let lane = self.lane.take()?;
        match next_write(&mut self.queue, limits) {
            Some((write, ticket)) => Some((lane, write, ticket)),
            None => {
                self.lane = Some(lane);
                None
            }
        }
    }
}

/// Takes the first lane batch, and the following ones that fit into the same write: batches queued
/// for a busy lane would otherwise be sent in ever smaller writes. A batch with a waiting caller
/// is written alone, so that its report is separate.
fn next_write(
    queue: &mut VecDeque<LaneBatch>,
    limits: PieceLimits,
) -> Option<(LaneWrite, Option<u64>)> {
    let first = queue.pop_front()?;
    let op = first.op;
    let ticket = first.ticket;
    let mut size = (first.rows.num_rows(), first.rows.get_array_memory_size());
    let mut rows = vec![first.rows];
    while let Some(next) = queue.front() {
        size.0 += next.rows.num_rows();
        size.1 += next.rows.get_array_memory_size();
        let alone = ticket.is_some() || next.ticket.is_some() || next.op != op;
        if alone || size.0 > limits.rows || size.1 > limits.bytes {
            break;
        }
        rows.extend(queue.pop_front().map(|next| next.rows));
    }
    Some((LaneWrite { op, rows }, ticket))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::rows;

    const LIMITS: PieceLimits = PieceLimits { rows: 10, bytes: usize::MAX };

    fn queue(lane_batches: &[(i64, RowOp, Option<u64>)]) -> VecDeque<LaneBatch> {
        let lane_batch = |(count, op, ticket): &(i64, RowOp, Option<u64>)| LaneBatch {
            op: *op,
            rows: rows(0..*count),
            ticket: *ticket,
        };
        lane_batches.iter().map(lane_batch).collect()
    }

    /// Returns the row counts of each write of a queue.
    fn writes(mut queue: VecDeque<LaneBatch>, limits: PieceLimits) -> Vec<Vec<usize>> {
        std::iter::from_fn(|| next_write(&mut queue, limits))
            .map(|(write, _)| write.rows.iter().map(RecordBatch::num_rows).collect())
            .collect()
    }

    #[test]
    fn queued_batches_are_merged_up_to_the_limits() {
        use RowOp::{Delete, Put};
        let plain = queue(&[(4, Put, None), (6, Put, None), (1, Put, None)]);
        assert_eq!(writes(plain, LIMITS), [vec![4, 6], vec![1]]);
        let mixed = queue(&[(1, Put, None), (1, Delete, None), (1, Delete, None), (1, Put, None)]);
        assert_eq!(writes(mixed, LIMITS), [vec![1], vec![1, 1], vec![1]]);
        let with_caller =
            queue(&[(1, Put, None), (1, Put, Some(1)), (1, Put, None), (1, Put, None)]);
        assert_eq!(writes(with_caller, LIMITS), [vec![1], vec![1], vec![1, 1]]);
        let large = queue(&[(20, Put, None), (1, Put, None)]);
        assert_eq!(writes(large, LIMITS), [vec![20], vec![1]]);
        let heavy = queue(&[(1, Put, None), (1, Put, None)]);
        assert_eq!(writes(heavy, PieceLimits { bytes: 1, ..LIMITS }), [vec![1], vec![1]]);
    }

    #[test]
    fn lane_runs_one_write_at_a_time() {
        let mut slot = LaneSlot::default();
        assert!(slot.is_idle() && slot.next(LIMITS).is_none());
        for ticket in 0..4 {
            assert!(slot.has_capacity());
            slot.push(LaneBatch { op: RowOp::Put, rows: rows([1]), ticket: Some(ticket) });
        }
        assert!(!slot.has_capacity());
        let (lane, _, ticket) = slot.next(LIMITS).unwrap();
        assert_eq!(ticket, Some(0));
        assert!(slot.next(LIMITS).is_none(), "the lane is busy");
        slot.lane = Some(lane);
        assert_eq!(slot.next(LIMITS).unwrap().2, Some(1), "in the order of arrival");
    }
}
