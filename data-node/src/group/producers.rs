//! Exactly-once writes: a region's record of each client's write stream.
//!
//! A *producer* sends one write at a time to a region. The *origin* is the region to which the
//! write was first addressed (it differs from the region after a split). Per (producer, origin) the
//! table keeps the last serial that took effect, its outcome, and the row keys it covered. Refusals
//! are not recorded: a refused write may be retried with the same serial.
//!
//! The table is bounded. A full one evicts a producer by position in the log and never by time, so
//! that every replica evicts the same one ([`Eviction`]). A write of an evicted (*forgotten*) producer
//! is refused instead of being applied a second time.
//!
//! - *Opened*: a producer whose only write was its opening. *Established*: one with a later write.
//!   Callers that open producers by the thousand evict opened producers, not established ones.
//!
//! A duplicate of an opening write may arrive after its producer was forgotten and opens it again.
//! To keep writes of the first opening from being taken for new ones under the second, each opening
//! is identified by its sequence, which its reply contains and every later write names: a write
//! that names another opening than the recorded one is treated as forgotten.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use tidewater_common::feature_level::FeatureLevel;
use tidewater_common::ids::{LogIndex, ProducerId, RegionId, Sequence, Serial};
use tidewater_common::keys::KeyRange;
use tidewater_proto::v1;

#[cfg(test)]
mod tests;

/// The serial of a producer's opening write.
pub const OPENING: Serial = Serial(1);

/// Identity of a write stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProducerKey {
    /// Id of the client's stream.
    pub producer: ProducerId,
    /// The region to which the write was first addressed.
    pub origin: RegionId,
}

/// Outcome of a write that took effect, returned to repeats as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FirstOutcome {
    /// Sequence of the write's rows, or of the opening write.
    pub sequence: Sequence,
    /// Rows applied.
    pub rows: u32,
}

/// Rule of a merge for the write streams that only some of the merged regions know, of those that began in an ancestor of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartlyKnown {
    /// They are known. A region that has taken a write and forgotten its stream takes the write again when it is repeated.
    Kept,
    /// They are forgotten. The rule from [`FeatureLevel::EVENT_TABLES`] on.
    Forgotten,
}

impl PartlyKnown {
    /// Returns the rule of a group at this level.
    pub fn at(level: FeatureLevel) -> Self {
        if level >= FeatureLevel::EVENT_TABLES { Self::Forgotten } else { Self::Kept }
    }
}

/// A position in the log: index, then ordinal of the write within its entry.
pub type LogPosition = (LogIndex, u32);

#[derive(Debug, Clone, PartialEq, Eq)]
struct ProducerEntry {
    opening: Sequence,
    serial: Serial,
    outcome: FirstOutcome,
    covered: Vec<KeyRange>,
    used: LogPosition,
}

impl ProducerEntry {
    /// Returns the entry of a region that replaces the regions of two entries with one key.
    fn merged(&self, other: &Self) -> Self {
        let (last, before) = if (self.opening, self.serial) >= (other.opening, other.serial) {
            (self, other)
        } else {
            (other, self)
        };
        let mut merged = Self { used: last.used.max(before.used), ..last.clone() };
        if (last.opening, last.serial) == (before.opening, before.serial) {
            // Each has taken the rows of its range.
            merged.outcome = FirstOutcome {
                sequence: last.outcome.sequence.max(before.outcome.sequence),
                rows: last.outcome.rows.max(before.outcome.rows),
            };
            merged.covered.extend(before.covered.iter().cloned());
            merged.covered.sort_by(|a, b| a.start.cmp(&b.start));
            merged.covered.dedup();
        }
        merged
    }
}

/// Decision about a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteDecision {
    /// The write is the producer's next: apply it, then call [`Producers::record`].
    Apply,
    /// The write took effect before, for rows with keys in `covered`.
    Repeat {
        /// The outcome of the first attempt.
        outcome: FirstOutcome,
        /// Key ranges that this region applied; rows outside all of them are new to it.
        covered: Vec<KeyRange>,
    },
    /// The producer is not in the table, or not with the opening that the write names.
    Forgotten,
    /// The serial is neither the last one nor the next.
    OutOfOrder {
        /// The last serial that took effect.
        last: Serial,
    },
}

/// Rule by which a full table evicts a producer, recorded in the log entry of the writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Eviction {
    /// The least recently used one: entries of earlier releases.
    LeastRecent,
    /// The least recently used opened one while these have more than a quarter of the table, else the
    /// least recently used established one.
    OpenedFirst,
}

impl Eviction {
    /// The rule that leaders of this release record.
    pub const CURRENT: Self = Self::OpenedFirst;

    /// Number of the rule in a log entry.
    pub fn to_wire(self) -> u32 {
        match self {
            Self::LeastRecent => 0,
            Self::OpenedFirst => 1,
        }
    }

    /// The rule with this number; `None` for rules of a later release.
    pub fn from_wire(number: u32) -> Option<Self> {
        match number {
            0 => Some(Self::LeastRecent),
            1 => Some(Self::OpenedFirst),
            _ => None,
        }
    }
}

/// Producers of one region.
#[derive(Debug, Clone)]
pub struct Producers {
    capacity: usize,
    entries: HashMap<ProducerKey, ProducerEntry>,
    opened: BTreeMap<LogPosition, ProducerKey>,
    established: BTreeMap<LogPosition, ProducerKey>,
}

impl PartialEq for Producers {
    fn eq(&self, other: &Self) -> bool {
        self.entries == other.entries
    }
}

impl Producers {
    /// Capacity of a region's table.
    pub const CAPACITY: usize = 4_096;

    /// Creates an empty table of at most `capacity` producers (at least one).
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity: capacity.max(1),
            entries: HashMap::new(),
            opened: BTreeMap::new(),
            established: BTreeMap::new(),
        }
    }

    /// Number of producers remembered.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns whether no producer is remembered.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Decides about a write; changes nothing. `opening` is the one that the write names: `None`
    /// for an opening write and for a write of a release without openings.
    pub fn judge(
        &self,
        key: &ProducerKey,
        opening: Option<Sequence>,
        serial: Serial,
    ) -> WriteDecision {
        match self.entries.get(key) {
            None if serial == OPENING => WriteDecision::Apply,
            None => WriteDecision::Forgotten,
            Some(entry) if opening.is_some_and(|named| named != entry.opening) => {
                WriteDecision::Forgotten
            }
            Some(entry) if serial == entry.serial => {
                WriteDecision::Repeat { outcome: entry.outcome, covered: entry.covered.clone() }
            }
            Some(entry) if Some(serial.0) == entry.serial.0.checked_add(1) => WriteDecision::Apply,
            Some(entry) => WriteDecision::OutOfOrder { last: entry.serial },
        }
    }

    /// Records that `serial` took effect at `at`, and evicts a producer by `eviction` if necessary. The
    /// sequence of an opening write identifies the opening.
    pub fn record(
        &mut self,
        key: ProducerKey,
        serial: Serial,
        outcome: FirstOutcome,
        covered: Vec<KeyRange>,
        at: LogPosition,
        eviction: Eviction,
    ) {
        let opening = match self.entries.get(&key) {
            Some(known) if serial != OPENING => known.opening,
            _ => outcome.sequence,
        };
        self.insert(key, ProducerEntry { opening, serial, outcome, covered, used: at });
        self.evict(eviction);
    }

    /// Evicts producers by `eviction` while there are too many.
    fn evict(&mut self, eviction: Eviction) {
        while self.entries.len() > self.capacity {
            let Some(evicted) = self.pop_evicted(eviction) else { break };
            self.entries.remove(&evicted);
        }
    }

    fn insert(&mut self, key: ProducerKey, entry: ProducerEntry) {
        let (serial, at) = (entry.serial, entry.used);
        if let Some(old) = self.entries.insert(key, entry) {
            self.by_use(old.serial).remove(&old.used);
        }
        self.by_use(serial).insert(at, key);
    }

    /// Producers with this last serial by their last use: the opened ones, or the established ones.
    fn by_use(&mut self, serial: Serial) -> &mut BTreeMap<LogPosition, ProducerKey> {
        if serial == OPENING { &mut self.opened } else { &mut self.established }
    }

    /// Removes the producer to evict from the order of use.
    fn pop_evicted(&mut self, eviction: Eviction) -> Option<ProducerKey> {
        let oldest = |by_use: &BTreeMap<LogPosition, ProducerKey>| {
            by_use.first_key_value().map(|(position, _)| *position)
        };
        let from_opened = match (eviction, oldest(&self.opened), oldest(&self.established)) {
            (_, None, _) => false,
            (_, _, None) => true,
            (Eviction::LeastRecent, Some(opened), Some(established)) => opened < established,
            (Eviction::OpenedFirst, ..) => self.opened.len() > self.capacity / 4,
        };
        let by_use = if from_opened { &mut self.opened } else { &mut self.established };
        by_use.pop_first().map(|(_, key)| key)
    }

    /// Returns the table of a child, which covers the keys of its range only.
    #[must_use]
    pub fn within(&self, range: &KeyRange) -> Self {
        let mut table = self.clone();
        for entry in table.entries.values_mut() {
            let covered = entry.covered.iter().map(|covered| covered.intersection(range));
            entry.covered = covered.filter(|covered| !covered.is_empty()).collect();
        }
        table
    }

    /// Returns the table of a region that replaces others: their producers, at most as many as the largest of them has
    /// room for.
    ///
    /// Of a write stream that several of them know, since they are children of one region, the last write counts. It
    /// is repeated for the rows of those that have not taken it.
    #[must_use]
    pub fn merged(tables: &[(RegionId, &Self)], eviction: Eviction, rule: PartlyKnown) -> Self {
        let mut merged = Self::new(0);
        for (_, table) in tables {
            merged.capacity = merged.capacity.max(table.capacity);
            for (key, entry) in &table.entries {
                let entry = match merged.entries.get(key) {
                    Some(known) => known.merged(entry),
                    None => entry.clone(),
                };
                merged.insert(*key, entry);
            }
        }
        if rule == PartlyKnown::Forgotten {
            merged.forget_partly_known(tables);
        }
        merged.evict(eviction);
        merged
    }

    /// Removes the streams that one of the tables may have forgotten. Those that began in one of the regions were never
    /// known to the others.
    fn forget_partly_known(&mut self, tables: &[(RegionId, &Self)]) {
        let is_known = |key: &ProducerKey, opening: Sequence| {
            let began = tables.iter().any(|(region, _)| *region == key.origin);
            began || tables.iter().all(|(_, table)| table.opening(key) == Some(opening))
        };
        let forgotten: Vec<(ProducerKey, Serial, LogPosition)> = self
            .entries
            .iter()
            .filter(|(key, entry)| !is_known(key, entry.opening))
            .map(|(key, entry)| (*key, entry.serial, entry.used))
            .collect();
        for (key, serial, used) in forgotten {
            self.entries.remove(&key);
            self.by_use(serial).remove(&used);
        }
    }

    fn opening(&self, key: &ProducerKey) -> Option<Sequence> {
        self.entries.get(key).map(|entry| entry.opening)
    }

    /// Gives all producers positions at `index`, in their order. Those of another group's log have no order with those of
    /// this one: producers with greater positions would never be forgotten.
    pub fn rebase(&mut self, index: LogIndex) {
        let mut by_use: Vec<_> = self.opened.iter().chain(&self.established).collect();
        by_use.sort_unstable_by_key(|(position, _)| **position);
        let keys: Vec<ProducerKey> = by_use.into_iter().map(|(_, key)| *key).collect();
        self.opened.clear();
        self.established.clear();
        for (ordinal, key) in (0u32..).zip(keys) {
            let Some(entry) = self.entries.get_mut(&key) else { continue };
            entry.used = (index, ordinal);
            let serial = entry.serial;
            self.by_use(serial).insert((index, ordinal), key);
        }
    }

    /// Forgets all producers.
    pub fn clear(&mut self) {
        *self = Self::new(self.capacity);
    }

    /// Marks a producer as used at `at`: retries keep a producer from being forgotten.
    pub fn touch(&mut self, key: &ProducerKey, at: LogPosition) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        let (serial, before) = (entry.serial, std::mem::replace(&mut entry.used, at));
        let by_use = self.by_use(serial);
        by_use.remove(&before);
        by_use.insert(at, *key);
    }

    /// Converts the table to its stored form, least recently used first.
    pub fn to_records(&self) -> Vec<v1::ProducerRecord> {
        let mut by_use: Vec<_> = self.opened.iter().chain(&self.established).collect();
        by_use.sort_unstable_by_key(|(position, _)| **position);
        by_use
            .into_iter()
            .filter_map(|(_, key)| self.entries.get(key).map(|entry| to_record(key, entry)))
            .collect()
    }

    /// Converts the table from its stored form; `None` if a record is damaged.
    pub fn from_records(capacity: usize, records: Vec<v1::ProducerRecord>) -> Option<Self> {
        let mut table = Self::new(capacity);
        for record in records {
            let key = ProducerKey {
                producer: ProducerId::from_slice(&record.producer_id)?,
                origin: RegionId(record.origin_region_id),
            };
            let outcome =
                FirstOutcome { sequence: Sequence(record.sequence), rows: record.rows_applied };
            let covered = record
                .covered
                .into_iter()
                .map(|span| KeyRange {
                    start: span.start.to_vec(),
                    end: span.end.map(|end| end.to_vec()),
                })
                .collect();
            let entry = ProducerEntry {
                opening: Sequence(record.opening),
                serial: Serial(record.serial),
                outcome,
                covered,
                used: (LogIndex(record.used_index), record.used_ordinal),
            };
            table.insert(key, entry);
        }
        Some(table)
    }
}

fn to_record(key: &ProducerKey, entry: &ProducerEntry) -> v1::ProducerRecord {
    v1::ProducerRecord {
        producer_id: Bytes::copy_from_slice(key.producer.as_bytes()),
        origin_region_id: key.origin.get(),
        serial: entry.serial.get(),
        sequence: entry.outcome.sequence.get(),
        rows_applied: entry.outcome.rows,
        covered: entry
            .covered
            .iter()
            .map(|range| v1::KeySpan {
                start: Bytes::from(range.start.clone()),
                end: range.end.clone().map(Bytes::from),
            })
            .collect(),
        used_index: entry.used.0.get(),
        used_ordinal: entry.used.1,
        opening: entry.opening.get(),
    }
}
