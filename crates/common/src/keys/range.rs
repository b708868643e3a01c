//! Half-open ranges of row keys, and the global key space.

use std::cmp::Ordering;

use crate::ids::TableId;

/// A half-open range of row keys (or of global keys).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeyRange {
    /// Inclusive; empty: from the first key.
    pub start: Vec<u8>,
    /// Exclusive; `None`: unbounded.
    pub end: Option<Vec<u8>>,
}

impl KeyRange {
    /// Creates the range from `start` (inclusive) to `end` (exclusive).
    pub fn new(start: impl Into<Vec<u8>>, end: Option<Vec<u8>>) -> Self {
        Self { start: start.into(), end }
    }

    /// The range of all keys.
    pub fn whole() -> Self {
        Self { start: Vec::new(), end: None }
    }

    /// Returns whether the range contains this key.
    pub fn contains(&self, key: &[u8]) -> bool {
        key >= self.start.as_slice() && self.end.as_deref().is_none_or(|end| key < end)
    }

    /// Returns whether the range contains no key.
    pub fn is_empty(&self) -> bool {
        self.end.as_deref().is_some_and(|end| end <= self.start.as_slice())
    }

    /// The keys in both ranges; may be empty.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let end = match (&self.end, &other.end) {
            (Some(a), Some(b)) => Some(a.min(b).clone()),
            (end, None) | (None, end) => end.clone(),
        };
        Self { start: self.start.clone().max(other.start.clone()), end }
    }

    /// Returns whether some key is in both ranges.
    pub fn intersects(&self, other: &Self) -> bool {
        !self.intersection(other).is_empty()
    }

    /// Returns whether some key from `min` to `max`, both inclusive, is in the range. An empty range, also one
    /// between these keys, has none.
    pub fn intersects_inclusive(&self, min: &[u8], max: &[u8]) -> bool {
        let reaches = max >= self.start.as_slice();
        reaches && self.end.as_deref().is_none_or(|end| min < end) && !self.is_empty()
    }
}

/// The first key after all keys with this prefix; `None` when there is none.
pub fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut next = prefix[..=last].to_vec();
    next[last] += 1;
    Some(next)
}

/// Table id (4 bytes, big endian), then the row key.
pub fn global_key(table: TableId, row_key: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(4 + row_key.len());
    key.extend_from_slice(&table.get().to_be_bytes());
    key.extend_from_slice(row_key);
    key
}

/// The table and the row key of a global key; `None` when it is shorter than a table id.
pub fn split_global_key(key: &[u8]) -> Option<(TableId, &[u8])> {
    let (table, row_key) = key.split_first_chunk::<4>()?;
    Some((TableId(u32::from_be_bytes(*table)), row_key))
}

/// The table of a range of global keys, and its row keys. A range that ends in a later table is unbounded
/// within its own. `None` when a bound is shorter than a table id, or the range ends in an earlier table.
pub fn split_global_range(start: &[u8], end: Option<&[u8]>) -> Option<(TableId, KeyRange)> {
    let (table, start) = split_global_key(start)?;
    let end = match end {
        None => None,
        Some(end) => {
            let (end_table, end) = split_global_key(end)?;
            match end_table.cmp(&table) {
                Ordering::Less => return None,
                Ordering::Equal => Some(end.to_vec()),
                Ordering::Greater => None,
            }
        }
    };
    Some((table, KeyRange::new(start, end)))
}

/// All global keys of a table.
pub fn table_range(table: TableId) -> KeyRange {
    KeyRange {
        start: global_key(table, &[]),
        end: table.get().checked_add(1).map(|next| global_key(TableId(next), &[])),
    }
}
