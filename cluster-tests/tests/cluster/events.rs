//! Events of real nodes in the events table: each once, whatever is killed, and readable by commands.

mod clashes;
mod expiry;
mod faults;
mod hooks;
mod kills;
mod numbers;
mod recorder;
mod spool;
mod table;
mod tail;
