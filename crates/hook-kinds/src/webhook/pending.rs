//! Pending calls of a webhook: first in, first out, bounded in number and bytes (pure).

use std::collections::VecDeque;

use bytes::Bytes;

/// Calls that are not posted yet.
#[derive(Debug)]
pub(super) struct PendingCalls {
    bodies: VecDeque<Bytes>,
    bytes: usize,
    max_calls: usize,
    max_bytes: usize,
}

impl PendingCalls {
    pub(super) fn new(max_calls: usize, max_bytes: usize) -> Self {
        Self { bodies: VecDeque::new(), bytes: 0, max_calls, max_bytes }
    }

    /// Appends a call; returns false when there is no room. A call larger than the byte limit is
    /// accepted when no other call is pending, because it could never be posted otherwise.
    pub(super) fn push(&mut self, body: Bytes) -> bool {
        let bytes = self.bytes.saturating_add(body.len());
        let room = self.bodies.len() < self.max_calls && bytes <= self.max_bytes;
        if !room && !self.bodies.is_empty() {
            return false;
        }
        self.bytes = bytes;
        self.bodies.push_back(body);
        true
    }

    /// The first call; it stays until [removed](Self::remove_first).
    pub(super) fn first(&self) -> Option<Bytes> {
        self.bodies.front().cloned()
    }

    /// Removes the first call, which was posted or dropped.
    pub(super) fn remove_first(&mut self) {
        if let Some(body) = self.bodies.pop_front() {
            self.bytes -= body.len();
        }
    }

    pub(super) fn len(&self) -> usize {
        self.bodies.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pending_calls_are_bounded_in_number_and_bytes() {
        let body = |length| Bytes::from(vec![0; length]);
        let mut queue = PendingCalls::new(3, 100);
        assert!(queue.push(body(40)) && queue.push(body(60)));
        assert!(!queue.push(body(1)), "too many bytes");
        queue.remove_first();
        assert!(queue.push(body(1)) && queue.push(body(1)));
        assert!(!queue.push(body(1)), "too many");
        assert_eq!((queue.len(), queue.bytes), (3, 62));
        assert_eq!(queue.first().unwrap().len(), 60);
        for _ in 0..4 {
            queue.remove_first();
        }
        assert_eq!((queue.len(), queue.bytes), (0, 0));
        assert!(queue.push(body(1_000)), "the only one");
        assert!(!queue.push(body(1)));
    }
}
