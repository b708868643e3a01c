//! Values in text form: cells of files, keys and conditions on the command line.
//!
//! # Layout
//!
//! - [`cell_error`]: reasons why a text is not a value of its column.
//! - [`number`], `decimal`, [`time`]: pure parsers.
//! - [`instants`]: timestamps in another zone.
//! - `builder`: builder of one column.
//! - [`rows`]: builder of all columns of a table, which removes bad rows.

pub(crate) mod builder;
pub mod cell_error;
mod decimal;
pub mod instants;
pub mod number;
pub mod rows;
pub mod time;
