//! Derivation of the events of all entries, along the log.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use tidewater_cluster_events::{MAX_SHARED, SharedEvent, SharedPosition};
use tidewater_common::feature_level::FeatureLevel;
use tidewater_common::ids::{LogIndex, Term};
use tidewater_events::Event;

use super::derive::derive;
use super::recent::{MAX_RECENT, RecentEvents};
use crate::catalog::{Header, MetaState, ReplacedRecords};
use crate::leader::clocks::announced_ms;

/// Replicated time for which an event waits for the clocks, in milliseconds. Clocks agree within seconds once a data node is
/// up. Below [`DUE_MS`](super::DUE_MS), so that the next leader records the event, too.
const MAX_WAIT_MS: u64 = 2 * 60 * 1_000;

/// Derives the events of applied entries, and adds them to the recent ones after each batch.
#[derive(Debug, Default)]
pub(crate) struct LogEvents {
    recent: Arc<RecentEvents>,
    /// Events of the batch.
    derived: Vec<Arc<SharedEvent>>,
    /// Events from before the clocks have agreed in their term, oldest first.
    early: VecDeque<EarlyEvent>,
    /// Replicated time after the last entry, milliseconds.
    time_ms: u64,
}

/// An event that waits for the clocks. Before the first agreement, replicated time counts from 0, and an event of 1970 would
/// expire at once. In a new term, the cluster may have been off: replicated time is that of before the outage until the clocks
/// agree again.
///
/// It is in memory only. A replica that restarts before the agreement, or gets a snapshot, lacks the event; it is lost if no
/// replica that has it leads after the agreement. The same holds for every event that the leader has not spooled yet.
#[derive(Debug)]
struct EarlyEvent {
    index: LogIndex,
    number: u16,
    /// Replicated time of the entry, milliseconds.
    time_ms: u64,
    event: Box<dyn Event>,
}

impl EarlyEvent {
    fn at(self, time_ms: u64) -> Arc<SharedEvent> {
        let position = SharedPosition { time_ms, index: self.index, number: self.number };
        Arc::new(SharedEvent::at(self.event, position))
    }
}

/// Returns whether replicated time is that of the clocks in this term, by the header after an entry.
fn is_agreed(header: &Header, term: Term) -> bool {
    let has_terms = header.feature_level >= FeatureLevel::EXACT_EVENTS;
    announced_ms(header.time_ms) != 0 && (!has_terms || header.agreed_term == term)
}

/// Returns the time of an event that has waited until an entry on which the clocks agree: as long before the agreed time as
/// replicated time has counted since the event. `before_ms`: replicated time before the entry. It is not before the times of
/// earlier events, since the entry does not decrease replicated time.
fn corrected_ms(event_ms: u64, before_ms: u64, header: &Header) -> u64 {
    if header.feature_level < FeatureLevel::EXACT_EVENTS {
        return header.time_ms;
    }
    header.time_ms.saturating_sub(before_ms.saturating_sub(event_ms))
}

/// Returns whether an event that happened at `event_ms` waits no longer: without data nodes, the clocks do not agree.
fn has_waited(event_ms: u64, now_ms: u64) -> bool {
    announced_ms(event_ms) != 0 && now_ms.saturating_sub(event_ms) >= MAX_WAIT_MS
}

impl LogEvents {
    /// The recent events of this replica.
    pub(crate) fn recent(&self) -> Arc<RecentEvents> {
        Arc::clone(&self.recent)
    }

    /// Derives the events of an entry with this term and index. `state`: after it. Call it for each entry that has changed the
    /// state, so that an agreement of the clocks is that of the same entry on every replica.
    pub(crate) fn follow(
        &mut self,
        (term, index): (Term, LogIndex),
        replaced: &ReplacedRecords,
        state: &MetaState,
    ) {
        let header = state.header();
        let before_ms = std::mem::replace(&mut self.time_ms, header.time_ms);
        let is_agreed = is_agreed(header, term);
        self.end_waiting(is_agreed, before_ms, header);
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
            let time_ms = header.time_ms;
            let event = EarlyEvent { index, number, time_ms, event };
            if is_agreed {
                self.derived.push(event.at(time_ms));
            } else {
                self.early.push_back(event);
            }
        }
        let excess = self.early.len().saturating_sub(MAX_RECENT);
        self.early.drain(..excess);
        if self.derived.len() >= MAX_RECENT {
            self.publish();
        }
    }

    /// Gives a time to the early events that wait no longer: all of them once the clocks agree.
    fn end_waiting(&mut self, is_agreed: bool, before_ms: u64, header: &Header) {
        if is_agreed {
            let timed = |early: EarlyEvent| {
                let time_ms = corrected_ms(early.time_ms, before_ms, header);
                early.at(time_ms)
            };
            self.derived.extend(self.early.drain(..).map(timed));
        } else {
            // Replicated time never decreases.
            let ended = self.early.partition_point(|of| has_waited(of.time_ms, header.time_ms));
            let timed = |early: EarlyEvent| {
                let time_ms = early.time_ms;
                early.at(time_ms)
            };
            self.derived.extend(self.early.drain(..ended).map(timed));
        }
    }

    /// Adds the events of the batch to the recent ones.
    pub(crate) fn publish(&mut self) {
        if !self.derived.is_empty() {
            self.recent.add(std::mem::take(&mut self.derived));
        }
    }

    /// Skips entries: the state is replaced by a snapshot. The recent events stay, since the leader may have stopped before
    /// its spool had them. Early events are forgotten: an entry that is skipped may have given them their time.
    pub(crate) fn skip_to_snapshot(&mut self) {
        self.publish();
        self.early.clear();
    }
}

#[cfg(test)]
mod tests;
