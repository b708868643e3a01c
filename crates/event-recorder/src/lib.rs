//! Recorder of events with a spool on disk, from which a handler persists them (`tidewater-events` has their types).
//!
//! - *Queue* (`queue`): events in memory, until the intake thread has written them to the spool. Bounded; recording never
//!   waits for room.
//! - *Spool* (`spool`): events on disk, until the handler has persisted them. Bounded: the oldest of the lowest priority
//!   are evicted, each table keeps its share, and a summary event has the number of those that were dropped.
//! - *Set aside* ([`set_aside::SET_ASIDE_FILE`]): an event that can never be persisted, in a file with its reason.
//!
//! ```text
//! record -> queue -> intake thread -> spool -> shipper, a task for each table -> handler
//! ```

mod counters;
mod env;
mod failing;
pub mod intake;
#[cfg(test)]
mod manual_clock;
mod meters;
pub mod options;
mod problem_log;
mod queue;
mod recorder;
mod retry;
pub mod set_aside;
mod shipper;
mod spool;
mod spool_notes;
#[cfg(test)]
mod tests;

pub use self::counters::EventCounts;
pub use self::env::RecorderEnv;
pub use self::failing::FailingTable;
pub use self::meters::METRICS;
pub use self::options::{EventRecorderOptions, OptionError};
pub use self::recorder::{EventRecorderImpl, OpenError};
pub use self::spool::SpoolError;
pub use tidewater_events as events;
