//! Shared events of the catalog: each meta node derives the same events from the entries of the log.
//!
//! - *Shared event*: an event whose id, time and values follow from the log alone, so that the table of events has it
//!   once, whichever nodes record it, and how often.
//! - *Recent events* ([`RecentEvents`]): the last shared events that this replica has derived, in memory. The leader
//!   records them; a follower keeps them for the case that it becomes the leader.
//! - *Due event* ([`is_due`](due::is_due)): one that a new leader records again, because the leader before it may have stopped before
//!   its spool had the event.
//!
//! Times are replicated. In a term in which the clocks have not agreed yet, events wait for the agreement (`log_events`): after
//! an outage of the cluster, replicated time is that of before it.
//!
//! A replica that installs a snapshot has no events of the entries that it skips: recording them was the duty of the former
//! leader. It keeps the events of earlier entries, except those that wait for the agreement. The same holds for entries that a replica had applied before its restart: only those that it applies
//! again are derived again. An event is missing in the table only if no meta node that still has it becomes the leader
//! within [`DUE_MS`](due::DUE_MS) of replicated time: for example if a cluster with one meta node is killed between the application of
//! an entry and the sync of its spool.
//!
//! # Layout
//!
//! - `derive`: the events of one change (pure); `refresh_phase`: the phases of a refresh (pure).
//! - `log_events`: follows the entries of the log; `recent`: the recent events; `due`: the rule of a new leader (pure).

mod derive;
mod due;
mod log_events;
mod recent;
mod refresh_phase;
#[cfg(test)]
pub(crate) mod testing;

pub(crate) use self::due::DUE_MS;
pub(crate) use self::log_events::LogEvents;
pub(crate) use self::recent::RecentEvents;
pub(crate) use self::refresh_phase::refresh_phase;
