//! Tables that take no events.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidewater_common::clock::MonotonicClock;

/// Table of which no batch has been completed since an attempt failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailingTable {
    /// Name of the table.
    pub table: String,
    /// Time since the first failed attempt.
    pub lasting: Duration,
    /// Error of the last one.
    pub error: String,
}

/// Begin and last error of the tables that fail: those of the spool, at most.
#[derive(Debug)]
pub(crate) struct FailingTables {
    clock: Arc<dyn MonotonicClock>,
    tables: Mutex<BTreeMap<String, (Duration, String)>>,
}

impl FailingTables {
    pub(crate) fn new(clock: Arc<dyn MonotonicClock>) -> Self {
        Self { clock, tables: Mutex::default() }
    }

    /// Records a failed attempt.
    pub(crate) fn record(&self, table: &str, error: &str) {
        let now = self.clock.elapsed();
        let mut tables = self.tables.lock();
        let known = tables.entry(table.to_owned()).or_insert_with(|| (now, String::new()));
        error.clone_into(&mut known.1);
    }

    /// Records that a batch is complete.
    pub(crate) fn clear(&self, table: &str) {
        self.tables.lock().remove(table);
    }

    /// Returns the table that has failed for the longest time.
    pub(crate) fn longest(&self) -> Option<FailingTable> {
        let now = self.clock.elapsed();
        let tables = self.tables.lock();
        let (table, (begun, error)) = tables.iter().min_by_key(|(_, (begun, _))| *begun)?;
        let lasting = now.saturating_sub(*begun);
        Some(FailingTable { table: table.clone(), lasting, error: error.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manual_clock::ManualClock;

    #[test]
    fn table_fails_until_a_batch_is_complete() {
        let clock = Arc::new(ManualClock::default());
        let tables = FailingTables::new(clock.clone());
        let longest = |at: u64| {
            clock.set(at);
            tables.longest().map(|found| (found.table, found.lasting.as_secs(), found.error))
        };
        let expected =
            |table: &str, seconds, error: &str| Some((table.to_owned(), seconds, error.to_owned()));
        assert_eq!(longest(10), None);
        tables.record("events", "no leader");
        assert_eq!(longest(20), expected("events", 10, "no leader"));
        tables.record("events", "another key");
        tables.record("doors", "no leader");
        assert_eq!(longest(30), expected("events", 20, "another key"));
        tables.clear("events");
        assert_eq!(longest(30), expected("doors", 10, "no leader"));
        tables.clear("doors");
        assert_eq!(longest(40), None);
    }
}
