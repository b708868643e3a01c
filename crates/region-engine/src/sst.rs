//! SSTs: immutable Parquet files of rows sorted by row key, then by sequence, newest first.
//!
//! Any Parquet reader can read them as they are. What ours needs beside that stands in the footer's
//! key-value metadata: a checksum of every 64 KiB of data, for Parquet's own pages carry none, and
//! the first row key of every 8,192 rows, so that a point read finds its pages. The footer itself
//! is checked by a checksum in [`FileMeta`](crate::file_meta::FileMeta), before anything in it is
//! believed: so any flipped bit gives an error that names the object, never wrong rows.

pub(crate) mod blocks;
pub(crate) mod convert;
pub(crate) mod decode;
pub(crate) mod fetch;
pub(crate) mod few;
pub(crate) mod footer;
pub(crate) mod format;
pub(crate) mod plan;
pub(crate) mod sink;
pub(crate) mod source;
pub(crate) mod statistics;
pub(crate) mod writer;

pub use self::footer::FooterCache;
pub use self::format::{EPOCH_COLUMN, OP_COLUMN, SEQUENCE_COLUMN};
