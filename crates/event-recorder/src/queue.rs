//! Queue between the code that records events and the spool: bounded, never waits for room.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tidewater_events::{Priority, Receipt, RecordOutcome, RecordedEvent};
use tokio::sync::oneshot;

use crate::meters;

/// An event that waits for the spool.
#[derive(Debug)]
pub(crate) struct QueuedEvent {
    pub(crate) event: RecordedEvent,
    pub(crate) receipt: oneshot::Sender<RecordOutcome>,
    /// Number of the event in the order of the calls.
    number: u64,
}

/// Numbers of events by priority.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct PriorityCounts([u64; 3]);

impl PriorityCounts {
    pub(crate) fn new(low: u64, normal: u64, high: u64) -> Self {
        Self([low, normal, high])
    }

    pub(crate) fn add(&mut self, priority: Priority, number: u64) {
        let count = &mut self.0[usize::from(priority.to_wire())];
        *count = count.saturating_add(number);
    }

    pub(crate) fn add_all(&mut self, other: Self) {
        for priority in Priority::ALL {
            self.add(priority, other.of(priority));
        }
    }

    pub(crate) fn of(&self, priority: Priority) -> u64 {
        self.0[usize::from(priority.to_wire())]
    }

    pub(crate) fn total(&self) -> u64 {
        self.0.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }
}

/// The queue.
#[derive(Debug)]
pub(crate) struct Queue {
    limits: Limits,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    events: usize,
    bytes: usize,
}

#[derive(Debug, Default)]
struct State {
    /// By priority, each in order.
    events: [VecDeque<QueuedEvent>; 3],
    bytes: usize,
    /// Events that were added so far.
    added: u64,
    /// Events that were evicted or found no room, since the last [`Queue::take`].
    dropped: PriorityCounts,
    is_closed: bool,
}

/// Contents of the queue.
#[derive(Debug)]
pub(crate) struct Taken {
    /// In the order in which they were recorded.
    pub(crate) events: Vec<QueuedEvent>,
    /// Events that were evicted or found no room since the last call.
    pub(crate) dropped: PriorityCounts,
    /// Nothing follows.
    pub(crate) is_last: bool,
}

impl Queue {
    pub(crate) fn new(events: usize, bytes: usize) -> Self {
        Self { limits: Limits { events, bytes }, state: Mutex::default(), changed: Condvar::new() }
    }

    /// Adds an event. In a full queue, the oldest events of the lowest priority are evicted, if it is lower than that
    /// of the event; otherwise the event is dropped. Returns `None` if the queue is closed.
    pub(crate) fn push(&self, event: RecordedEvent) -> Option<Receipt> {
        let mut evicted = Vec::new();
        let (receipt, queued) = {
            let mut state = self.state.lock();
            if state.is_closed {
                return None;
            }
            let size = event.size();
            let priority = event.priority;
            while !state.has_room(size, self.limits) {
                match state.evict_below(priority) {
                    Some(oldest) => evicted.push(oldest),
                    None => {
                        state.dropped.add(priority, 1);
                        return Some(Receipt::known(RecordOutcome::Dropped));
                    }
                }
            }
            let (sender, receiver) = oneshot::channel();
            state.bytes += size;
            state.added += 1;
            let queued = QueuedEvent { event, receipt: sender, number: state.added };
            state.events[usize::from(priority.to_wire())].push_back(queued);
            (Receipt::pending(receiver), state.len())
        };
        self.changed.notify_one();
        meters::set_queued(queued);
        for oldest in evicted {
            let _ = oldest.receipt.send(RecordOutcome::Dropped);
        }
        Some(receipt)
    }

    /// Waits for events, at most for `timeout`, and takes all.
    pub(crate) fn take(&self, timeout: Duration) -> Taken {
        let mut state = self.state.lock();
        if state.len() == 0 && !state.is_closed {
            self.changed.wait_for(&mut state, timeout);
        }
        let mut events: Vec<_> = state.events.iter_mut().flat_map(std::mem::take).collect();
        events.sort_unstable_by_key(|queued| queued.number);
        state.bytes = 0;
        let dropped = std::mem::take(&mut state.dropped);
        meters::set_queued(0);
        Taken { events, dropped, is_last: state.is_closed }
    }

    /// Number of events that wait.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.state.lock().len()
    }

    /// Refuses all later events.
    pub(crate) fn close(&self) {
        self.state.lock().is_closed = true;
        self.changed.notify_all();
    }
}

impl State {
    fn len(&self) -> usize {
        self.events.iter().map(VecDeque::len).sum()
    }

    fn has_room(&self, size: usize, limits: Limits) -> bool {
        self.len() < limits.events && self.bytes + size <= limits.bytes
    }

    fn evict_below(&mut self, priority: Priority) -> Option<QueuedEvent> {
        let lower = Priority::ALL.into_iter().filter(|lower| *lower < priority);
        for lower in lower {
            if let Some(oldest) = self.events[usize::from(lower.to_wire())].pop_front() {
                self.bytes -= oldest.event.size();
                self.dropped.add(lower, 1);
                return Some(oldest);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use tidewater_events::testing::TestEvent;
    use uuid::Uuid;

    use super::*;

    fn event(number: usize, priority: Priority) -> RecordedEvent {
        let event = TestEvent { priority, ..TestEvent::numbered(number) };
        RecordedEvent::new(&event, Uuid::from_u128(1), 0, 1_000).unwrap()
    }

    fn push(queue: &Queue, event: RecordedEvent) -> Receipt {
        queue.push(event).unwrap()
    }

    fn numbers(taken: &Taken) -> Vec<&str> {
        taken.events.iter().map(|queued| queued.event.payload.as_str()).collect()
    }

    #[tokio::test]
    async fn full_queue_drops_events_of_lower_priority() {
        let queue = Queue::new(2, 1_000_000);
        let first = push(&queue, event(1, Priority::Low));
        let _second = push(&queue, event(2, Priority::Normal));
        assert_eq!(push(&queue, event(3, Priority::Low)).await, RecordOutcome::Dropped);
        let _fourth = push(&queue, event(4, Priority::High));
        assert_eq!(first.await, RecordOutcome::Dropped);
        let _fifth = push(&queue, event(5, Priority::High));
        assert_eq!(push(&queue, event(6, Priority::High)).await, RecordOutcome::Dropped);
        let taken = queue.take(Duration::ZERO);
        assert_eq!(numbers(&taken), ["4", "5"]);
        assert_eq!(taken.dropped, PriorityCounts::new(2, 1, 1));
        assert_eq!(queue.take(Duration::ZERO).dropped.total(), 0);
    }

    #[tokio::test]
    async fn bytes_of_the_queue_are_limited() {
        let size = event(1, Priority::Low).size();
        let queue = Queue::new(100, 2 * size);
        let receipts = [1, 2].map(|number| push(&queue, event(number, Priority::Low)));
        assert_eq!(push(&queue, event(3, Priority::Low)).await, RecordOutcome::Dropped);
        for queued in queue.take(Duration::ZERO).events {
            queued.receipt.send(RecordOutcome::Spooled).unwrap();
        }
        for receipt in receipts {
            assert_eq!(receipt.await, RecordOutcome::Spooled);
        }
        let _fourth = push(&queue, event(4, Priority::Low));
        assert_eq!(numbers(&queue.take(Duration::ZERO)), ["4"]);
    }

    #[tokio::test]
    async fn events_are_taken_in_the_order_of_their_calls() {
        let queue = Queue::new(10, 1_000_000);
        let priorities = [Priority::Low, Priority::High, Priority::Normal, Priority::Low];
        let _receipts: Vec<_> = priorities
            .into_iter()
            .enumerate()
            .map(|(number, priority)| push(&queue, event(number, priority)))
            .collect();
        assert_eq!(numbers(&queue.take(Duration::ZERO)), ["0", "1", "2", "3"]);
    }

    #[tokio::test]
    async fn closed_queue_refuses_events() {
        let queue = Queue::new(2, 1_000);
        let receipt = push(&queue, event(1, Priority::Low));
        queue.close();
        assert!(queue.push(event(2, Priority::Low)).is_none());
        let taken = queue.take(Duration::from_secs(60));
        assert_eq!((numbers(&taken), taken.is_last), (vec!["1"], true));
        drop(taken);
        assert_eq!(receipt.await, RecordOutcome::Closed);
    }
}
