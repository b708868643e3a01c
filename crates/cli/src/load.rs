//! Steps of `load` before the rows are written. `tidewater-readers` reads the files.
//!
//! # Layout
//!
//! - [`stdin`]: rows from standard input.
//! - [`infer`]: infers the columns of a new table.
//! - [`verify`] (over [`keys`]): checks all rows and the uniqueness of their keys before the table is
//!   created.

pub(crate) mod infer;
pub(crate) mod keys;
pub(crate) mod stdin;
pub(crate) mod verify;
