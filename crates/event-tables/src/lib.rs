//! Handler of events that writes them to tables of a cluster, each event once.
//!
//! - *Events table* (`table`): a table with the key (type, timestamp, id). The handler creates it when it is missing, with the
//!   options of its hints (`hints`).
//! - *Own event*: an event of one recorder. Those of a batch are one write (`write`). Its identity is in the notes of the
//!   batch (`note`) before its rows are sent, so that a retry, also after a restart, repeats it and adds nothing.
//! - *Forgotten write*: a write that its region does not know any more. The handler looks up which events the table has
//!   (`lookup`), and writes the others anew.
//! - *Fenced write*: a write that cannot be repeated, since the batch does not have its rows any more, e.g. after the return
//!   to a release that cannot read all events. The handler ends it in the regions that its note names, and then looks up
//!   the events as those of a forgotten write. A note that cannot be read holds up its table.
//! - *Shared event*: an event that several nodes record. Each is a write of its own, which all nodes make under its id.
//! - *Misfit* (`fit`): an event that its table can never take. It is set aside with the reason.
//!
//! # Layout
//!
//! - [`TableEventHandler`] (`handler`); `event_table`: events of one table as rows, and the table for them; `table_calls`:
//!   calls of the client for it.
//! - `write`: order of the calls of one batch; `rows`, `lookup`, `fit`, `hints`, `table`, `note`: pure.

mod event_table;
mod fit;
mod handler;
mod hints;
mod lookup;
mod note;
mod rows;
mod table;
mod table_calls;
#[cfg(test)]
mod testing;
mod write;

pub use self::handler::TableEventHandler;
pub use self::hints::{HintError, TableHints};
pub use self::table::{EVENT_KEY, ID, PAYLOAD, TIMESTAMP, TYPE};
