//! Writes of rows, each of which takes effect exactly once (R5).
//!
//! Terms:
//!
//! - *batch*: rows that a caller passes in one call.
//! - *lane* (`Lane`): the unit of parallelism of a writer. It lives as long as the writer and runs
//!   one lane write at a time; lanes do not keep any order between each other. `LaneSlot` holds a
//!   lane and its queue.
//! - *lane batch* (`LaneBatch`): the rows of a batch for one lane, queued until the lane is idle. If
//!   the table is an upsert table and there are several lanes, the batch is partitioned by a hash of
//!   the key, so that the rows of a key keep their order. Otherwise the whole batch goes to an idle
//!   lane.
//! - *lane write* (`LaneWrite`): the queued lane batches that a lane writes together. They are
//!   sorted and split at route boundaries into pieces.
//! - *piece* (`Piece`): encoded rows of one region, sent as one write request. It is retried until
//!   it is acknowledged or the writer stops retrying.
//! - *producer stream* (`ProducerStream`): a lane's producer id and next serial for one region. It
//!   has at most one write in flight, so that the server can distinguish a retry from a new write.
//!   Several lanes make up for this limit.
//!
//! A retry carries the same rows, producer, opening, serial and origin. If a route was split since,
//! the piece is split along the new boundaries, and its parts keep all of these.

mod driver;
mod lane;
mod lane_slot;
mod partition;
mod prepare;
mod report;
mod send;
mod writer;

pub(crate) use self::lane::run_blocking_if_large;
pub(crate) use self::prepare::{Piece, PieceLimits, check_batch, prepare_pieces};
pub use self::report::WriteReport;
pub use self::writer::TableWriter;

#[cfg(test)]
mod tests;
