//! The lanes of a writer and what waits for each.

use std::collections::VecDeque;

use arrow::array::RecordBatch;
use tidewater_proto::v1::RowOp;

use super::lane::{Batch, Lane};
use super::prepare::PieceLimits;

/// Parts that may wait for one lane before a writer takes no more.
const AHEAD: usize = 4;

/// Rows for one lane.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) op: RowOp,
    pub(super) rows: RecordBatch,
    /// Whoever waits for just the batch that this is a part of.
    pub(super) ticket: Option<u64>,
}

/// A lane, and what waits for it in the order in which it came.
#[derive(Debug)]
pub(super) struct Seat {
    /// Away while it works.
    pub(super) lane: Option<Lane>,
    waiting: VecDeque<Part>,
}

impl Default for Seat {
    fn default() -> Self {
        Self { lane: Some(Lane::default()), waiting: VecDeque::new() }
    }
}

impl Seat {
    pub(super) fn is_idle(&self) -> bool {
        self.lane.is_some() && self.waiting.is_empty()
    }

    pub(super) fn has_room(&self) -> bool {
        self.waiting.len() < AHEAD
    }

    pub(super) fn push(&mut self, part: Part) {
        self.waiting.push_back(part);
    }

    /// The lane with what it is to write next, if it is here and there is something.
    pub(super) fn next(&mut self, limits: PieceLimits) -> Option<(Lane, Batch, Option<u64>)> {
        if self.waiting.is_empty() {
            return None;
        }
        let lane = self.lane.take()?;
        match next_batch(&mut self.waiting, limits) {
            Some((batch, ticket)) => Some((lane, batch, ticket)),
            None => {
                self.lane = Some(lane);
                None
            }
        }
    }
}

/// The first part, and with it those behind it that fit into one write: what waits for a busy lane
/// would else be sent in ever smaller writes. A part that somebody waits for goes alone, so that its
/// outcome is known apart.
fn next_batch(waiting: &mut VecDeque<Part>, limits: PieceLimits) -> Option<(Batch, Option<u64>)> {
    let first = waiting.pop_front()?;
    let (op, ticket) = (first.op, first.ticket);
    let mut size = (first.rows.num_rows(), first.rows.get_array_memory_size());
    let mut rows = vec![first.rows];
    while let Some(part) = waiting.front() {
        size.0 += part.rows.num_rows();
        size.1 += part.rows.get_array_memory_size();
        let alone = ticket.is_some() || part.ticket.is_some() || part.op != op;
        if alone || size.0 > limits.rows || size.1 > limits.bytes {
            break;
        }
        rows.extend(waiting.pop_front().map(|part| part.rows));
    }
    Some((Batch { op, rows }, ticket))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::rows;

    const LIMITS: PieceLimits = PieceLimits { rows: 10, bytes: usize::MAX };

    fn queue(parts: &[(i64, RowOp, Option<u64>)]) -> VecDeque<Part> {
        let part = |(count, op, ticket): &(i64, RowOp, Option<u64>)| Part {
            op: *op,
            rows: rows(0..*count),
            ticket: *ticket,
        };
        parts.iter().map(part).collect()
    }

    /// Rows of each write that a queue becomes.
    fn writes(mut waiting: VecDeque<Part>, limits: PieceLimits) -> Vec<Vec<usize>> {
        std::iter::from_fn(|| next_batch(&mut waiting, limits))
            .map(|(batch, _)| batch.rows.iter().map(RecordBatch::num_rows).collect())
            .collect()
    }

    #[test]
    fn what_waits_is_written_together_as_far_as_it_fits() {
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
    fn a_lane_works_on_one_thing_at_a_time() {
        let mut seat = Seat::default();
        assert!(seat.is_idle() && seat.next(LIMITS).is_none());
        for ticket in 0..4 {
            assert!(seat.has_room());
            seat.push(Part { op: RowOp::Put, rows: rows([1]), ticket: Some(ticket) });
        }
        assert!(!seat.has_room());
        let (lane, _, ticket) = seat.next(LIMITS).unwrap();
        assert_eq!(ticket, Some(0));
        assert!(seat.next(LIMITS).is_none(), "it is away");
        seat.lane = Some(lane);
        assert_eq!(seat.next(LIMITS).unwrap().2, Some(1), "in the order in which they came");
    }
}
