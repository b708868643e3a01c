//! Shares of the tables in a full spool, by which events are evicted for a new one (pure).
//!
//! Each table with events, and the table of the new event, has an even share of the spool. A table uses more while there is
//! room. In a full spool:
//!
//! 1. An event may evict those of lower priority of its own table.
//! 2. An event that keeps its table within its share may also evict events of tables above their shares, if their priority
//!    is not higher.
//! 3. The lowest priority goes first, of one priority the largest table, of one table the oldest event. If they make too
//!    little room, none is evicted, and the new event is dropped.
//!
//! A table that cannot be written therefore takes no share of the others. Events of higher priority are evicted for none of
//! lower priority, so that a flood of another table removes no event that explains an outage.

use std::cmp::Reverse;

use tidewater_events::Priority;

use super::error::SpoolError;
use super::keys::{EventSequence, TableNumber};
use super::read::record_bytes;

/// Event that may be evicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) priority: Priority,
    pub(super) number: TableNumber,
    pub(super) sequence: EventSequence,
    /// Length of its record.
    pub(super) length: u32,
}

impl Candidate {
    /// Bytes that the event takes in the spool.
    pub(super) fn bytes(&self) -> u64 {
        record_bytes(self.length as usize)
    }
}

/// A new event that needs room.
#[derive(Debug, Clone, Copy)]
pub(super) struct NewEvent {
    pub(super) number: TableNumber,
    pub(super) priority: Priority,
    /// Bytes that the event takes in the spool.
    pub(super) bytes: u64,
}

/// Bytes of the events of a table in the spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TableBytes {
    pub(super) number: TableNumber,
    pub(super) bytes: u64,
}

/// Outcome of the choice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Choice {
    /// These events are evicted.
    Evict(Vec<Candidate>),
    /// None is evicted: these were considered, and do not make enough room.
    Drop(Vec<Candidate>),
}

/// Rule of one new event.
#[derive(Debug, Clone, Copy)]
struct Rule {
    event: NewEvent,
    /// Bytes of an even share.
    share: u64,
    /// The table of the event stays within its share.
    is_within_share: bool,
}

impl Rule {
    fn may_evict(&self, table: TableBytes, priority: Priority) -> bool {
        if table.number == self.event.number {
            return priority < self.event.priority;
        }
        self.is_within_share && table.bytes > self.share && priority <= self.event.priority
    }
}

/// Chooses the events to evict for a new one, of which `excess` bytes have no room. `limit`: bytes of the spool.
/// `take_oldest` takes the oldest event of a priority and a table from those that may be evicted.
pub(super) fn choose(
    limit: u64,
    mut tables: Vec<TableBytes>,
    event: NewEvent,
    excess: u64,
    mut take_oldest: impl FnMut(Priority, TableNumber) -> Result<Option<Candidate>, SpoolError>,
) -> Result<Choice, SpoolError> {
    tables.retain(|table| table.bytes > 0 || table.number == event.number);
    tables.sort_by_key(|table| (Reverse(table.bytes), table.number));
    let share = limit / (tables.len() as u64).max(1);
    let own = tables.iter().find(|table| table.number == event.number);
    let own_bytes = own.map_or(0, |table| table.bytes);
    let is_within_share = own_bytes.saturating_add(event.bytes) <= share;
    let rule = Rule { event, share, is_within_share };

    let mut chosen = Vec::new();
    let mut freed = 0u64;
    for priority in Priority::ALL {
        for table in &mut tables {
            while freed < excess && rule.may_evict(*table, priority) {
                let Some(candidate) = take_oldest(priority, table.number)? else { break };
                let bytes = candidate.bytes();
                freed = freed.saturating_add(bytes);
                table.bytes = table.bytes.saturating_sub(bytes);
                chosen.push(candidate);
            }
        }
    }
    Ok(if freed >= excess { Choice::Evict(chosen) } else { Choice::Drop(chosen) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of each event of the tests.
    const BYTES: u64 = 100;

    /// A table in a spool of 12 events: its number, events in a batch, and the priorities of the others.
    type Queue = (u32, u64, &'static str);

    /// A new event: table, priority and size in events of the others.
    type Added = (u32, char, u64);

    /// Place of an event: table, and position in its queue.
    type Place = (u32, u64);

    /// Name, spool, new event, and the events that are evicted; `None`: the new one is dropped.
    type Case = (&'static str, &'static [Queue], Added, Option<&'static [Place]>);

    fn priority(letter: char) -> Priority {
        match letter {
            'l' => Priority::Low,
            'n' => Priority::Normal,
            _ => Priority::High,
        }
    }

    fn evicted(queues: &[Queue], added: Added) -> Option<Vec<Place>> {
        let event = NewEvent {
            number: TableNumber(added.0),
            priority: priority(added.1),
            bytes: added.2 * BYTES,
        };
        let mut tables = Vec::new();
        let mut waiting = Vec::new();
        for (number, in_batch, letters) in queues {
            let number = TableNumber(*number);
            tables.push(TableBytes { number, bytes: BYTES * (in_batch + letters.len() as u64) });
            for (at, letter) in letters.chars().enumerate() {
                let length = u32::try_from(BYTES - record_bytes(0)).unwrap();
                let sequence = EventSequence(at as u64);
                waiting.push(Candidate { priority: priority(letter), number, sequence, length });
            }
        }
        if tables.iter().all(|table| table.number != event.number) {
            tables.push(TableBytes { number: event.number, bytes: 0 });
        }
        let limit = 12 * BYTES;
        let used: u64 = tables.iter().map(|table| table.bytes).sum();
        let excess = (used + event.bytes).saturating_sub(limit);
        let take = |priority: Priority, number: TableNumber| {
            let found = waiting.iter().position(|c| c.priority == priority && c.number == number);
            Ok(found.map(|at| waiting.remove(at)))
        };
        match choose(limit, tables, event, excess, take).unwrap() {
            Choice::Evict(chosen) => {
                Some(chosen.iter().map(|event| (event.number.0, event.sequence.0)).collect())
            }
            Choice::Drop(_) => None,
        }
    }

    #[test]
    fn evicted_events_follow_priorities_and_shares() {
        const CASES: &[Case] = &[
            ("there is room", &[(1, 0, "nnn")], (1, 'l', 1), Some(&[])),
            ("one table: lower", &[(1, 0, "hnlnlnnnnnnn")], (1, 'n', 1), Some(&[(1, 2)])),
            ("one table: lowest first", &[(1, 0, "nlhhhhhhhhhh")], (1, 'h', 1), Some(&[(1, 1)])),
            ("one table: equal", &[(1, 0, "nnnnnnnnnnnn")], (1, 'n', 1), None),
            ("one table: too little", &[(1, 0, "lnnnnnnnnnnn")], (1, 'n', 2), None),
            ("new table: equal", &[(1, 0, "nnnnnnnnnnnn")], (2, 'n', 1), Some(&[(1, 0)])),
            ("new table: lowest first", &[(1, 0, "nnnnnlnnnnnn")], (2, 'n', 1), Some(&[(1, 5)])),
            ("new table: higher stay", &[(1, 0, "hhhhhhhhhhhh")], (2, 'n', 1), None),
            ("new table: batches stay", &[(1, 12, "")], (2, 'h', 1), None),
            (
                "above its share: its own",
                &[(1, 0, "nnnnnnnn"), (2, 0, "llll")],
                (1, 'h', 1),
                Some(&[(1, 0)]),
            ),
            ("above its share: no other", &[(1, 0, "nnnnnnnn"), (2, 0, "llll")], (1, 'n', 1), None),
            ("both at their shares", &[(1, 0, "nnnnnn"), (2, 0, "nnnnnn")], (1, 'n', 1), None),
            (
                "down to the share",
                &[(1, 0, "nnnnnnnn"), (2, 0, "nnnn")],
                (2, 'n', 2),
                Some(&[(1, 0), (1, 1)]),
            ),
            (
                "largest table first",
                &[(1, 0, "nnnnn"), (2, 0, "nnnnnn"), (3, 0, "n")],
                (3, 'n', 3),
                Some(&[(2, 0), (2, 1), (1, 0)]),
            ),
            (
                "lower priority before larger table",
                &[(1, 0, "nnnnnnnnnn"), (2, 0, "nl")],
                (2, 'n', 2),
                Some(&[(2, 1), (1, 0)]),
            ),
        ];
        for (case, queues, added, expected) in CASES {
            assert_eq!(evicted(queues, *added).as_deref(), *expected, "{case}");
        }
    }

    #[test]
    fn tables_without_events_have_no_share() {
        let mut queues: Vec<Queue> = (3..60).map(|number| (number, 0, "")).collect();
        queues.extend([(1, 0, "nnnnnnnn"), (2, 0, "nnnn")]);
        assert_eq!(evicted(&queues, (2, 'n', 1)), Some(vec![(1, 0)]));
    }
}
