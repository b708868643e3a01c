//! Event recorder: events that a program records are spooled on its disk and passed to a handler that persists them.
//!
//! - *Event* ([`Event`]): what happened, with a type, a time, a JSON payload and extra columns.
//! - *Queue* (`queue`): events in memory, until the intake thread has written them to the spool. Bounded; recording never
//!   waits for room.
//! - *Spool* (`spool`): events on disk, until the handler has persisted them. Bounded: the oldest of the lowest priority
//!   give way, and a summary event says how many.
//! - *Batch* ([`EventBatch`]): the first events of a table in the spool. It has the same events in each attempt, also
//!   after a restart, and keeps the handler's notes ([`handler::Notes`]).
//! - *Handler* ([`EventHandler`]): persists batches, each event once.
//! - *Set aside* ([`set_aside::SET_ASIDE_FILE`]): an event that can never be persisted, in a file with its reason.
//!
//! ```text
//! record -> queue -> intake thread -> spool -> shipper, a task for each table -> handler
//! ```

mod counters;
mod env;
mod event;
mod filter;
mod group;
pub mod handler;
pub mod intake;
pub mod json_lines;
mod name;
pub mod options;
mod problem_log;
mod queue;
mod receipt;
mod recorded;
mod recorder;
mod retry;
pub mod set_aside;
mod shipper;
mod spool;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod value;

pub use self::counters::EventCounts;
pub use self::env::RecorderEnv;
pub use self::event::{Event, EventError, Eventable, Priority};
pub use self::filter::{FilterError, TypeFilter};
pub use self::group::{
    EventGroupKey, MismatchedSchema, RowInsertsRequest, build_row_inserts_request,
    divide_by_schema, group_events_by_type,
};
pub use self::handler::{EventBatch, EventHandler, Handled, HandlerError};
pub use self::json_lines::JsonLinesHandler;
pub use self::name::{COMMON_COLUMNS, DEFAULT_TABLE, MAX_NAME};
pub use self::options::{EventHandlerOptions, EventRecorderOptions, OptionError};
pub use self::receipt::{Receipt, RecordOutcome};
pub use self::recorded::RecordedEvent;
pub use self::recorder::{
    EventRecorder, EventRecorderImpl, EventRecorderRef, NoRecorder, OpenError,
};
pub use self::spool::SpoolError;
pub use self::value::{ExtraColumn, MAX_EXTRA_COLUMNS, Value, ValueType};
