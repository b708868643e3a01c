//! Tables that hold events.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::RwLock;
use tidewater_common::ids::TableId;

/// Tables that hold events: their own flushes and compactions must not become events, each of which would lead to the
/// next. A node adds a table before it serves the first region of it. Clones are handles to the same set.
#[derive(Debug, Clone, Default)]
pub struct EventTables {
    tables: Arc<RwLock<BTreeSet<TableId>>>,
}

impl EventTables {
    /// Adds a table. Its id is never that of another table.
    pub fn add(&self, table: TableId) {
        if !self.contains(table) {
            self.tables.write().insert(table);
        }
    }

    /// Returns whether a table holds events.
    pub fn contains(&self, table: TableId) -> bool {
        self.tables.read().contains(&table)
    }
}
