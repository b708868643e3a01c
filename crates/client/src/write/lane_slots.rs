//! Lane slots: the lanes of a writer and their queues.

use std::collections::VecDeque;

use arrow::array::RecordBatch;
use tidewater_proto::v1::RowOp;

use super::lane::{Lane, LaneWrite};
use super::prepare::PieceLimits;

/// Capacity of a lane's queue, in lane batches. The writer accepts no rows while a queue is full.
const QUEUE_CAPACITY: usize = 4;

/// Rows of one batch for one lane.
#[derive(Debug)]
pub(super) struct LaneBatch {
    pub(super) op: RowOp,
    pub(super) rows: RecordBatch,
    /// Number of the caller's batch if the caller waits for its outcome.
    pub(super) ticket: Option<u64>,
}

/// Lane and its queue of lane batches, in the order of the calls.
#[derive(Debug)]
pub(super) struct LaneSlot {
    /// `None` while a task runs a write of the lane.
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

    pub(super) fn has_room(&self) -> bool {
        self.queue.len() < QUEUE_CAPACITY
    }

    pub(super) fn push(&mut self, batch: LaneBatch) {
        self.queue.push_back(batch);
    }

    /// Removes the lane and its next write; `None` if the lane is busy or its queue is empty.
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

/// Removes the first lane batch and those after it that fit into the same write. Otherwise, the queue
/// of a busy lane would be sent in ever smaller writes. A lane batch with a ticket is written alone, so
/// that its outcome is known separately.
fn next_write(
    queue: &mut VecDeque<LaneBatch>,
    limits: PieceLimits,
) -> Option<(LaneWrite, Option<u64>)> {
    let first = queue.pop_front()?;
    let op = first.op;
    let ticket = first.ticket;
    let mut total_rows = first.rows.num_rows();
    let mut total_bytes = first.rows.get_array_memory_size();
    let mut rows = vec![first.rows];
    while let Some(batch) = queue.front() {
        total_rows += batch.rows.num_rows();
        total_bytes += batch.rows.get_array_memory_size();
        let separate = ticket.is_some() || batch.ticket.is_some() || batch.op != op;
        if separate || total_rows > limits.rows || total_bytes > limits.bytes {
            break;
        }
        rows.extend(queue.pop_front().map(|batch| batch.rows));
    }
    Some((LaneWrite { op, rows }, ticket))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::rows;

    const LIMITS: PieceLimits = PieceLimits { rows: 10, bytes: usize::MAX };

    fn queue(batches: &[(i64, RowOp, Option<u64>)]) -> VecDeque<LaneBatch> {
        let batch = |(count, op, ticket): &(i64, RowOp, Option<u64>)| LaneBatch {
            op: *op,
            rows: rows(0..*count),
            ticket: *ticket,
        };
        batches.iter().map(batch).collect()
    }

    /// Returns the rows of each lane batch, by write.
    fn writes(mut queue: VecDeque<LaneBatch>, limits: PieceLimits) -> Vec<Vec<usize>> {
        std::iter::from_fn(|| next_write(&mut queue, limits))
            .map(|(write, _)| write.rows.iter().map(RecordBatch::num_rows).collect())
            .collect()
    }

    #[test]
    fn queued_lane_batches_are_written_together_within_the_limits() {
        use RowOp::{Delete, Put};
        let plain = queue(&[(4, Put, None), (6, Put, None), (1, Put, None)]);
        assert_eq!(writes(plain, LIMITS), [vec![4, 6], vec![1]]);
        let mixed = queue(&[(1, Put, None), (1, Delete, None), (1, Delete, None), (1, Put, None)]);
        assert_eq!(writes(mixed, LIMITS), [vec![1], vec![1, 1], vec![1]]);
        let awaited = queue(&[(1, Put, None), (1, Put, Some(1)), (1, Put, None), (1, Put, None)]);
        assert_eq!(writes(awaited, LIMITS), [vec![1], vec![1], vec![1, 1]]);
        let large = queue(&[(20, Put, None), (1, Put, None)]);
        assert_eq!(writes(large, LIMITS), [vec![20], vec![1]]);
        let heavy = queue(&[(1, Put, None), (1, Put, None)]);
        assert_eq!(writes(heavy, PieceLimits { bytes: 1, ..LIMITS }), [vec![1], vec![1]]);
    }

    #[test]
    fn lane_slot_runs_one_write_at_a_time() {
        let mut slot = LaneSlot::default();
        assert!(slot.is_idle() && slot.next(LIMITS).is_none());
        for ticket in 0..4 {
            assert!(slot.has_room());
            slot.push(LaneBatch { op: RowOp::Put, rows: rows([1]), ticket: Some(ticket) });
        }
        assert!(!slot.has_room());
        let (lane, _, ticket) = slot.next(LIMITS).unwrap();
        assert_eq!(ticket, Some(0));
        assert!(slot.next(LIMITS).is_none(), "the lane is busy");
        slot.lane = Some(lane);
        assert_eq!(slot.next(LIMITS).unwrap().2, Some(1), "lane batches keep their order");
    }
}
