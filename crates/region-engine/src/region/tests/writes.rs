//! Writes into the memtable.

mod memory;
mod rejected;
