//! Values written as text: cells of files, keys and conditions of the command line.
//!
//! # Layout
//!
//! - [`problem`]: why a text is not a value of its column.
//! - [`number`], [`decimal`], [`time`]: pure parsers.
//! - [`instants`]: timestamps under another zone.
//! - [`builder`]: one column of rows under construction.
//! - [`rows`]: all columns of a table, with bad rows taken out.

pub(crate) mod builder;
pub(crate) mod decimal;
pub(crate) mod instants;
pub(crate) mod number;
pub(crate) mod problem;
pub(crate) mod rows;
pub(crate) mod time;
