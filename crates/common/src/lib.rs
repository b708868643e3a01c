//! What every part of Tidewater shares, without any I/O.
//!
//! # Layout
//!
//! - [`ids`]: typed ids and positions: nothing in Tidewater is a bare `u64`.
//! - [`schema`]: tables: columns, types, keys, options.
//! - [`keys`]: order-preserving row keys, ranges of them, sorting.
//! - [`rows`]: record batches as they stand on the wire and in the log.
//! - [`clock`]: the wall clock, handed in.
//! - [`header`]: for whom a call between nodes is meant.
//! - [`refusal`]: the one error that crosses the wire, and its mapping to a gRPC status.

pub mod clock;
pub mod header;
pub mod ids;
pub mod keys;
pub mod refusal;
pub mod rows;
pub mod schema;
