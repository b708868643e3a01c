//! SSTs: immutable Parquet files of rows sorted by row key, then by sequence, newest first.
//!
//! Any Parquet reader can read them. The additional data for our reader is in the footer's
//! key-value metadata: a checksum of every 64 KiB of data, because Parquet's own pages have none,
//! and the first row key of every 8,192 rows, which locates the pages of a point read. The footer
//! itself is verified by a checksum in [`FileMeta`](crate::file_meta::FileMeta) before any of it is
//! used. Any flipped bit therefore gives an error that names the object, never wrong rows.

pub(crate) mod blocks;
pub(crate) mod column_pages;
pub(crate) mod convert;
pub(crate) mod decode;
pub(crate) mod fetch;
pub(crate) mod few;
pub(crate) mod footer;
pub(crate) mod format;
pub(crate) mod pace;
pub(crate) mod plan;
pub(crate) mod row_parts;
pub(crate) mod sink;
pub(crate) mod source;
pub(crate) mod statistics;
pub(crate) mod units;
pub(crate) mod writer;

pub use self::footer::FooterCache;
pub use self::format::{EPOCH_COLUMN, OP_COLUMN, SEQUENCE_COLUMN, with_column_encodings};
