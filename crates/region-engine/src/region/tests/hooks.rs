//! Calls of hooks.

mod coverage;
mod isolation;
mod recorded_calls;
mod remote_compaction;
mod statistics;
