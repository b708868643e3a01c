//! Expected rows of a table whose regions are split and merged.

use std::collections::BTreeMap;

use tidewater_common::keys::KeyRange;
use tidewater_common::schema::WriteMode;

use crate::region::tests::fixture::*;

/// Order of rows with equal keys in an append-only table: newest write first, rows of a write in order.
type Version = (std::cmp::Reverse<u64>, usize);

/// Expected rows, by row key and version.
pub(super) struct Oracle {
    mode: WriteMode,
    rows: BTreeMap<(Vec<u8>, Version), Row>,
}

impl Oracle {
    pub(super) fn new(mode: WriteMode) -> Self {
        Self { mode, rows: BTreeMap::new() }
    }

    pub(super) fn put(&mut self, sequence: u64, rows: impl IntoIterator<Item = (Vec<u8>, Row)>) {
        for (position, (key, row)) in rows.into_iter().enumerate() {
            if self.mode == WriteMode::Upsert {
                self.delete(&key);
            }
            self.rows.insert((key, (std::cmp::Reverse(sequence), position)), row);
        }
    }

    pub(super) fn delete(&mut self, key: &[u8]) {
        self.rows.retain(|(of, _), _| of != key);
    }

    /// Returns the rows with keys in a range, in scan order.
    pub(super) fn within(&self, range: &KeyRange) -> Vec<Row> {
        let rows = self.rows.iter().filter(|((key, _), _)| range.contains(key));
        rows.map(|(_, row)| row.clone()).collect()
    }
}
