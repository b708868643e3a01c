//! Division of memtables: regions that are split and merged with rows in memory.

mod family;
mod history;
mod memory;
mod oracle;
mod refusals;
mod rows;
