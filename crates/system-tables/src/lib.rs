//! Tables that the cluster writes about itself.
//!
//! - *Differential table* ([`DifferentialTable`]): gets the contents that it should have, and writes what differs from its
//!   rows. The table has a history as any other one. Events tables are the append-only ones.
//! - *Statistics* ([`StatisticsTable`]): a row for each collection, in the table [`STATISTICS`].
//!
//! # Layout
//!
//! - `differences`: rows to write and keys to delete (pure).
//! - `differential`: creation, check, reads and writes of a table.
//! - `statistics`: definition of the statistics, and their rows from what the cluster reports (pure); `observed`: reads the reports of a cluster.

mod differences;
mod differential;
mod observed;
mod statistics;

pub use self::differential::{DifferentialTable, SystemTableError, Written};
pub use self::observed::StatisticsTable;
pub use self::statistics::STATISTICS;
