//! Events: values that a program records, and that a handler persists. Without a store of its own, so that crates which
//! only record do not link one: `tidewater-event-recorder` has the recorder with a spool on disk.
//!
//! - *Event* ([`Event`]): what happened, with a type, a time, a JSON payload and extra columns.
//! - *Recorder* ([`EventRecorder`]): takes events without waiting, and returns a receipt.
//! - *Recorded event* ([`RecordedEvent`]): plain value of an event, complete and checked.
//! - *Batch* ([`EventBatch`]): events of a table that a handler persists. It has the same events in each attempt, also after a
//!   restart, and keeps the handler's notes ([`Notes`]).
//! - *Handler* ([`EventHandler`]): persists batches, each event once.

mod event;
mod filter;
mod group;
pub mod handler;
mod handler_options;
pub mod json_lines;
mod name;
mod notes;
mod receipt;
mod recorded;
mod recorder;
#[doc(hidden)]
pub mod testing;
mod value;

pub use self::event::{Event, EventError, Eventable, Priority, is_shared};
pub use self::filter::{FilterError, TypeFilter};
pub use self::group::{
    EventGroupKey, MismatchedSchema, RowInsertsRequest, build_row_inserts_request,
    divide_by_schema, group_events_by_type,
};
pub use self::handler::{EventBatch, EventHandler, Handled, HandlerError};
pub use self::handler_options::{EventHandlerOptions, HandlerOptionError, hints};
pub use self::json_lines::JsonLinesHandler;
pub use self::name::{COMMON_COLUMNS, DEFAULT_TABLE, MAX_NAME};
pub use self::notes::{NoteMap, NoteStore, Notes};
pub use self::receipt::{Receipt, RecordOutcome};
pub use self::recorded::{DecodeError, RecordedEvent};
pub use self::recorder::{EventRecorder, EventRecorderRef, NoRecorder};
pub use self::value::{ExtraColumn, MAX_EXTRA_COLUMNS, Value, ValueType};
