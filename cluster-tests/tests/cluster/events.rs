//! Events of real nodes in the events table: each once, whatever is killed, and readable by commands.

mod calls;
mod clashes;
mod expiry;
mod faults;
mod follow;
mod full_spool;
mod hooks;
mod kills;
mod list;
mod numbers;
mod processes;
mod recorder;
pub(crate) mod restarts;
mod spool;
mod table;
mod tail;
