//! The last shared events of this replica, in memory.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tidewater_cluster_events::SharedEvent;
use tokio::sync::watch;

use super::due::is_due;

/// Maximum number of recent events. The oldest make room for new ones.
pub(super) const MAX_RECENT: usize = 4_096;

/// The last shared events of this replica. Each has a number, which counts the events since the start of the process.
#[derive(Debug)]
pub(crate) struct RecentEvents {
    ring: Mutex<Ring>,
    /// Number of the next event.
    next: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Ring {
    events: VecDeque<Arc<SharedEvent>>,
    /// Number of the first event.
    first: u64,
    /// Number of the first event that this node's spool may lack.
    unrecorded: u64,
}

/// Consecutive events.
#[derive(Debug)]
pub(crate) struct EventRun {
    /// Number of the first one.
    pub(crate) first: u64,
    /// The events, oldest first.
    pub(crate) events: Vec<Arc<SharedEvent>>,
}

impl EventRun {
    /// Number of the event after the last one.
    pub(crate) fn end(&self) -> u64 {
        self.first + self.events.len() as u64
    }
}

impl Default for RecentEvents {
    fn default() -> Self {
        Self { ring: Mutex::default(), next: watch::channel(0).0 }
    }
}

impl RecentEvents {
    /// Adds events, in the order of the log.
    pub(crate) fn add(&self, events: Vec<Arc<SharedEvent>>) {
        let next = {
            let mut ring = self.ring.lock();
            ring.events.extend(events);
            ring.forget_oldest();
            ring.end()
        };
        self.next.send_replace(next);
    }

    /// Returns a channel that notifies of new events.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.next.subscribe()
    }

    /// Returns the number of the first event that a leader records whose term begins at this replicated time: the first one
    /// that is due, and that this node has not recorded in an earlier term.
    pub(crate) fn first_due(&self, now_ms: u64) -> u64 {
        let ring = self.ring.lock();
        let is_old = |event: &Arc<SharedEvent>| !is_due(time_ms(event), now_ms);
        // Replicated time never decreases.
        let old = ring.events.partition_point(is_old);
        (ring.first + old as u64).max(ring.unrecorded)
    }

    /// Returns the events from a number on, at most `limit`. The first one has a greater number if earlier ones have made
    /// room.
    pub(crate) fn events_from(&self, number: u64, limit: usize) -> EventRun {
        let ring = self.ring.lock();
        let first = number.clamp(ring.first, ring.end());
        let skipped = usize::try_from(first - ring.first).unwrap_or(usize::MAX);
        let events = ring.events.iter().skip(skipped).take(limit).map(Arc::clone);
        EventRun { first, events: events.collect() }
    }

    /// Records that this node's recorder has the events before a number.
    pub(crate) fn mark_recorded(&self, before: u64) {
        let mut ring = self.ring.lock();
        ring.unrecorded = ring.unrecorded.max(before);
    }
}

/// Replicated time of the entry of an event, milliseconds since the Unix epoch.
fn time_ms(event: &SharedEvent) -> u64 {
    u64::try_from(event.timestamp_ns() / 1_000_000).unwrap_or(0)
}

impl Ring {
    fn end(&self) -> u64 {
        self.first + self.events.len() as u64
    }

    fn forget_oldest(&mut self) {
        let excess = self.events.len().saturating_sub(MAX_RECENT);
        self.events.drain(..excess);
        self.first += excess as u64;
    }
}

#[cfg(test)]
mod tests {
    use tidewater_cluster_events::types::NodeUp;
    use tidewater_events::Event;

    use super::super::due::DUE_MS;
    use super::super::testing::event_at;
    use super::*;

    /// Log indexes of events of [`event_at`].
    fn numbers(run: &EventRun) -> Vec<u64> {
        let nodes = run.events.iter().map(|event| event.as_any().downcast_ref::<NodeUp>());
        nodes.map(|node| node.unwrap().node_id).collect()
    }

    #[test]
    fn oldest_events_make_room_for_new_ones() {
        let recent = RecentEvents::default();
        let seen = recent.subscribe();
        let all = MAX_RECENT as u64 + 10;
        for index in 0..all {
            recent.add(vec![event_at(5, index)]);
        }
        assert_eq!(*seen.borrow(), all);
        let run = recent.events_from(0, 3);
        assert_eq!((run.first, run.end(), numbers(&run)), (10, 13, vec![10, 11, 12]));
        assert_eq!(recent.events_from(0, usize::MAX).events.len(), MAX_RECENT);
        let last = recent.events_from(all - 1, 3);
        assert_eq!((last.first, last.end(), numbers(&last)), (all - 1, all, vec![all - 1]));
        let none = recent.events_from(all, 3);
        assert_eq!((none.first, none.end()), (all, all));
    }

    #[test]
    fn term_begins_with_the_first_event_that_is_due() {
        let recent = RecentEvents::default();
        assert_eq!(recent.first_due(DUE_MS), 0);
        recent.add([1, 2, 2, 3].map(|time_ms| event_at(time_ms, time_ms)).to_vec());
        for (now_ms, expected) in [(0, 0), (DUE_MS + 1, 0), (DUE_MS + 2, 1), (DUE_MS + 4, 4)] {
            assert_eq!(recent.first_due(now_ms), expected, "{now_ms}");
        }
        recent.mark_recorded(2);
        recent.mark_recorded(1);
        assert_eq!(recent.first_due(0), 2);
        assert_eq!(recent.first_due(DUE_MS + 3), 3);
    }
}
