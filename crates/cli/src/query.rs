//! Computations of `scan` over the rows that the cluster returns: sorted rows and aggregates.
//!
//! # Layout
//!
//! - [`sort_key`]: columns and directions of `--order-by`.
//! - [`sorter`]: rows in the order of sort keys, within a memory limit.
//! - [`aggregate`]: counts, sums, extremes and averages of columns.
//! - [`total_order`]: order of floats, for both.

pub(crate) mod aggregate;
pub(crate) mod sort_key;
pub(crate) mod sorter;
pub(crate) mod total_order;
