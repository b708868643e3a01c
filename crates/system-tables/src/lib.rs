//! Tables that the cluster writes about itself.
//!
//! - *Differential table* ([`DifferentialTable`]): gets the contents that it should have, and writes what differs from its
//!   rows. The table has a history as any other one. Events tables are the append-only ones.
//! - *System table* ([`SystemTable`]): a differential table about the cluster; [`SystemTables`] writes them. *Statistics*: a
//!   row for each collection. *Progress*: a row for each export and for each refreshable table.
//!
//! # Layout
//!
//! - `differences`: rows to write and keys to delete (pure).
//! - `differential`: creation, check, reads and writes of a table.
//! - `statistics`, `progress`: definition of a system table, and its rows from the reports of a cluster (pure).
//! - `columns`: definitions and values of their columns (pure).
//! - `system_tables`: reads the reports of a cluster, and writes the tables.

mod columns;
mod differences;
mod differential;
mod progress;
mod statistics;
mod system_tables;
#[cfg(test)]
mod testing;

pub use self::differential::{DifferentialTable, SystemTableError, Written};
pub use self::system_tables::{SystemTable, SystemTables};
