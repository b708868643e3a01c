//! Events that the nodes of a cluster record: the types with their columns, which `tidewater event types` lists.
//!
//! - *Event type* ([`EventType`]): name, priority, meaning and extra columns of the events of a struct of [`types`].
//! - *Shared event* ([`SharedEvent`]): an event that several nodes record, e.g. since they derive it from the same log
//!   entry. All of them give it the same id and time, so that the table has it once.
//! - *Recorded call* ([`RecordedCall`]): an administrative call in progress, whose end is an event.

mod admin_calls;
mod column;
mod define;
mod event_type;
mod shared;
pub mod types;

pub use self::admin_calls::{RecordedCall, RecordedCalls, RecordedRequest};
pub use self::column::ColumnValue;
pub use self::event_type::{ColumnInfo, EVENTS_DROPPED, EventType, event_types};
pub use self::shared::{MAX_SHARED, SharedEvent, SharedPosition, timestamp_ns};
