//! Writing rows so that each takes effect once (R5).
//!
//! A *batch* is what a caller hands in. Where the last row of a key wins and there are several lanes,
//! it is *dealt* into one *part* for each lane, by a hash of the key: lanes overtake each other, the
//! rows of a key must not. What a lane writes at once is sorted and cut at route boundaries into
//! *pieces*, one or more for each region, each encoded once. A *lane* works on one batch at a time;
//! it keeps for each region a *stream*: a producer id and the next serial. A lane has at most one
//! write in flight for each stream, so that the server can tell a repeat from a new write; several
//! lanes make up for that.
//!
//! A piece is sent until it is acknowledged or given up. A repeat carries the same rows, producer,
//! opening, serial and origin. When a route was split meanwhile, the piece is cut finer along the
//! new boundaries, and the parts keep all of these.

mod deal;
mod driver;
mod lane;
mod prepare;
mod report;
mod seats;
mod send;
mod writer;

pub(crate) use self::lane::off_the_runtime;
pub(crate) use self::prepare::{Piece, PieceLimits, check, prepare};
pub use self::report::WriteReport;
pub use self::writer::TableWriter;

#[cfg(test)]
mod tests;
