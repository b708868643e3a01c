//! The newest events of a scan (pure).

use super::line::EventLine;
use super::query::check_bytes;
use crate::exit::Failure;

/// Collects the newest events.
#[derive(Debug)]
pub(super) struct NewestEvents {
    limit: usize,
    kept: Vec<EventLine>,
    /// Bytes of `kept`.
    bytes: usize,
    received: u64,
}

impl NewestEvents {
    /// `limit`: events to keep, at least 1.
    pub(super) fn new(limit: usize) -> Self {
        Self { limit: limit.max(1), kept: Vec::new(), bytes: 0, received: 0 }
    }

    /// Adds an event. Fails when the events that are kept exceed the memory for them.
    pub(super) fn push(&mut self, line: EventLine) -> Result<(), Failure> {
        self.received += 1;
        self.bytes += line.bytes;
        self.kept.push(line);
        // Sorted once for many events.
        if self.kept.len() >= 2 * self.limit || check_bytes(self.bytes).is_err() {
            self.truncate();
        }
        check_bytes(self.bytes)
    }

    /// Returns the newest events, the newest last, and the number of all.
    pub(super) fn finish(mut self) -> (Vec<EventLine>, u64) {
        self.truncate();
        (self.kept, self.received)
    }

    fn truncate(&mut self) {
        self.kept.sort_by_key(|line| (line.timestamp_ns, line.id));
        let surplus = self.kept.len().saturating_sub(self.limit);
        self.kept.drain(..surplus);
        self.bytes = self.kept.iter().map(|line| line.bytes).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::super::line::tests::plain;
    use super::*;

    fn newest(limit: usize, times: &[i64]) -> (Vec<i64>, u64) {
        let mut newest = NewestEvents::new(limit);
        for time in times {
            newest.push(plain(*time, 1)).unwrap();
        }
        let (lines, received) = newest.finish();
        (lines.iter().map(|line| line.timestamp_ns).collect(), received)
    }

    #[test]
    fn newest_events_are_kept_in_order() {
        assert_eq!(newest(3, &[5, 1, 9, 3, 7, 2, 8, 4]), (vec![7, 8, 9], 8));
        assert_eq!(newest(10, &[5, 1]), (vec![1, 5], 2));
        assert_eq!(newest(1, &[]), (vec![], 0));
        // Two rows with one id are a defect, which a list shows.
        assert_eq!(newest(5, &[4, 4]), (vec![4, 4], 2));
    }

    #[test]
    fn large_events_are_refused() {
        let mut newest = NewestEvents::new(2);
        let mut large = plain(1, 1);
        large.bytes = 100 << 20;
        newest.push(large.clone()).unwrap();
        newest.push(large).unwrap_err();
    }
}
