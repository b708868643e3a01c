//! Derivation of the events of all entries, along the log.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use tidewater_cluster_events::{MAX_SHARED, SharedEvent, SharedPosition};
use tidewater_common::ids::LogIndex;
use tidewater_events::Event;

use super::derive::derive;
use super::recent::{MAX_RECENT, RecentEvents};
use crate::catalog::{MetaState, ReplacedRecords};
use crate::leader::clocks::announced_ms;

/// Derives the events of applied entries, and adds them to the recent ones after each batch.
#[derive(Debug, Default)]
pub(crate) struct LogEvents {
    recent: Arc<RecentEvents>,
    /// Events of the batch.
    derived: Vec<Arc<SharedEvent>>,
    /// Events from before the first agreement of the clocks, oldest first.
    early: VecDeque<EarlyEvent>,
}

/// An event that waits for the first time on which the clocks agree: replicated time counts from 0 before it, and an
/// event of 1970 would expire at once.
#[derive(Debug)]
struct EarlyEvent {
    index: LogIndex,
    number: u16,
    event: Box<dyn Event>,
}

impl EarlyEvent {
    fn at(self, time_ms: u64) -> Arc<SharedEvent> {
        let position = SharedPosition { time_ms, index: self.index, number: self.number };
        Arc::new(SharedEvent::new(self.event, position))
    }
}

impl LogEvents {
    /// The recent events of this replica.
    pub(crate) fn recent(&self) -> Arc<RecentEvents> {
        Arc::clone(&self.recent)
    }

    /// Derives the events of an entry. `state`: after it. Call it for each entry that has changed the state, so that the
    /// first time of the clocks is that of the same entry on every replica.
    pub(crate) fn follow(
        &mut self,
        index: LogIndex,
        replaced: &ReplacedRecords,
        state: &MetaState,
    ) {
        let time_ms = announced_ms(state.header().time_ms);
        if time_ms != 0 {
            self.derived.extend(self.early.drain(..).map(|early| early.at(time_ms)));
        }
        if replaced.is_empty() {
            return;
        }
        let mut numbers = BTreeMap::<String, u16>::new();
        for event in derive(replaced, state) {
            let next = numbers.entry(event.event_type().to_owned()).or_default();
            let number = *next;
            if number >= MAX_SHARED {
                continue;
            }
            *next = number + 1;
            let event = EarlyEvent { index, number, event };
            if time_ms == 0 {
                self.early.push_back(event);
            } else {
                self.derived.push(event.at(time_ms));
            }
        }
        let excess = self.early.len().saturating_sub(MAX_RECENT);
        self.early.drain(..excess);
        if self.derived.len() >= MAX_RECENT {
            self.publish();
        }
    }

    /// Adds the events of the batch to the recent ones.
    pub(crate) fn publish(&mut self) {
        if !self.derived.is_empty() {
            self.recent.add(std::mem::take(&mut self.derived));
        }
    }

    /// Forgets all events: the state is replaced by a snapshot.
    pub(crate) fn clear(&mut self) {
        self.derived.clear();
        self.early.clear();
        self.recent.clear();
    }
}

#[cfg(test)]
mod tests {
    use tidewater_proto::v1::{self, NodeState, meta_command::Kind};

    use super::super::testing::{EventLog, NOW_MS};
    use super::*;
    use crate::commands::testing::{registration, with_nodes};

    fn down() -> Kind {
        Kind::SetNodeState(v1::SetNodeState { node_id: 101, state: NodeState::Down.into() })
    }

    fn tick(now_ms: u64) -> Kind {
        Kind::AdvanceTime(v1::AdvanceTime { now_ms, agreed_ms: now_ms })
    }

    /// Time, index and number of the recent events.
    fn positions(log: &EventLog) -> Vec<(u64, u64, u16)> {
        let events = log.events.recent().events_from(0, usize::MAX).events;
        let positions = events.iter().map(|event| event.position());
        positions.map(|at| (at.time_ms, at.index.get(), at.number)).collect()
    }

    #[test]
    fn early_events_get_the_first_agreed_time() {
        let mut log = EventLog::new(with_nodes(1));
        log.apply(Kind::RegisterNode(registration(2)));
        log.apply(Kind::RegisterNode(registration(3)));
        assert_eq!(positions(&log), []);
        log.apply(tick(NOW_MS));
        log.apply(tick(NOW_MS + 1_000));
        log.apply(down());
        let expected = [(NOW_MS, 1, 0), (NOW_MS, 2, 0), (NOW_MS + 1_000, 5, 0)];
        assert_eq!(positions(&log), expected);
    }

    #[test]
    fn early_events_are_limited() {
        let mut log = EventLog::new(with_nodes(1));
        for _ in 0..MAX_RECENT {
            log.apply(down());
            let up = v1::SetNodeState { node_id: 101, state: NodeState::Up.into() };
            log.apply(Kind::SetNodeState(up));
        }
        assert_eq!(log.events.early.len(), MAX_RECENT);
        log.apply(tick(NOW_MS));
        let first = positions(&log)[0];
        assert_eq!((positions(&log).len(), first.1), (MAX_RECENT, MAX_RECENT as u64 + 1));
        assert!(log.events.early.is_empty());
    }

    #[test]
    fn cleared_log_has_no_events() {
        let mut log = EventLog::new(with_nodes(1));
        log.apply(down());
        log.events.clear();
        log.apply(tick(NOW_MS));
        assert_eq!(positions(&log), []);
    }
}
