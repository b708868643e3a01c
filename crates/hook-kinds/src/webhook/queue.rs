//! What waits to be posted: bounded in number and in bytes, first in, first out.

use std::collections::VecDeque;

use bytes::Bytes;

/// See the module's head.
#[derive(Debug)]
pub(super) struct Queue {
    waiting: VecDeque<Bytes>,
    bytes: usize,
    most: usize,
    most_bytes: usize,
}

impl Queue {
    pub(super) fn new(most: usize, most_bytes: usize) -> Self {
        Self { waiting: VecDeque::new(), bytes: 0, most, most_bytes }
    }

    /// Whether there was room. One that is too large for any queue is taken when nothing else
    /// waits: it could never be posted otherwise.
    pub(super) fn push(&mut self, body: Bytes) -> bool {
        let bytes = self.bytes.saturating_add(body.len());
        let room = self.waiting.len() < self.most && bytes <= self.most_bytes;
        if !room && !self.waiting.is_empty() {
            return false;
        }
        self.bytes = bytes;
        self.waiting.push_back(body);
        true
    }

    /// The first; it stays until it is [done](Self::done).
    pub(super) fn first(&self) -> Option<Bytes> {
        self.waiting.front().cloned()
    }

    /// The first was posted, or given up.
    pub(super) fn done(&mut self) {
        if let Some(body) = self.waiting.pop_front() {
            self.bytes -= body.len();
        }
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_and_bytes_are_bounded() {
        let body = |length| Bytes::from(vec![0; length]);
        let mut queue = Queue::new(3, 100);
        assert!(queue.push(body(40)) && queue.push(body(60)));
        assert!(!queue.push(body(1)), "too many bytes");
        queue.done();
        assert!(queue.push(body(1)) && queue.push(body(1)));
        assert!(!queue.push(body(1)), "too many");
        assert_eq!((queue.len(), queue.bytes), (3, 62));
        assert_eq!(queue.first().unwrap().len(), 60);
        for _ in 0..4 {
            queue.done();
        }
        assert_eq!((queue.len(), queue.bytes), (0, 0));
        assert!(queue.push(body(1_000)), "the only one");
        assert!(!queue.push(body(1)));
    }
}
