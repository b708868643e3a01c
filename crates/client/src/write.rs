//! Writes rows so that each row takes effect once (R5).
//!
//! - *Batch*: rows that the caller passes to a [`TableWriter`] in one call.
//! - *Lane* (`lane`): unit of parallelism of a writer, for the writer's lifetime. A lane has at most
//!   one lane write in progress.
//! - *Lane batch* (`lane_slots`): the rows of one batch that one lane writes. In an upsert table with
//!   several lanes, `partition` makes one for each lane, by a hash of the key: the last row of a key
//!   wins, and only rows of the same lane keep their order. Otherwise, the whole batch goes to an idle
//!   lane.
//! - *Lane slot* (`lane_slots`): a lane and the queue of its lane batches.
//! - *Lane write* (`lane`): one or more lane batches that a lane writes together.
//! - *Piece* (`prepare`): rows of a lane write that belong to one region, sorted by key and encoded
//!   once; one write request.
//! - *Producer stream* (`send`): producer id and next serial of a lane in one region. A stream has at
//!   most one write in flight, so that the data node can distinguish a retry from a new write. Several
//!   lanes compensate for that.
//! - *Settled*: the outcome of a row is final: acknowledged, failed or unknown.
//!
//! A piece is sent until it is acknowledged, fails, or reaches the limits of the operation. A retry
//! carries the same rows, producer, opening, serial and origin. When its route was split since, the
//! piece is cut along the new boundaries, and the new pieces keep all of these. When the table was altered
//! since, a piece without an effect is converted (`current_schema`) and sent as a new write.
//!
//! Writes whose identities are noted before they are sent (`once`) keep theirs in any case, also over restarts of the
//! process.

mod current_schema;
mod driver;
mod lane;
mod lane_slots;
mod once;
mod partition;
mod prepare;
mod report;
mod send;
mod writer;

pub(crate) use self::current_schema::{altered, convert};
pub(crate) use self::lane::run_blocking;
pub use self::once::{
    ForgottenRows, NotedWrite, OnceOutcome, OnceWrite, OnceWriter, PutAs, ResumeError,
};
pub(crate) use self::prepare::{Piece, PieceLimits, check, prepare, recut};
pub use self::report::WriteReport;
pub use self::writer::TableWriter;

#[cfg(test)]
mod tests;
