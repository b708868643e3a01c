//! Reads: scans over all regions of a table in key order, counts, and reads by key.
//!
//! The rows of a region arrive as one stream from the region's owner, which pins a version of the
//! region. A stream without an end marker was interrupted. If it has not yielded rows yet, the
//! region is read again from its start. Otherwise the scan ends with an error, because continuing
//! after the last key would mix two versions of one region (C4).

mod count;
mod driver;
mod get;
mod reader;
mod region;
mod spec;
mod stream;

pub use self::spec::ScanSpec;
pub use self::stream::ScanStream;

#[cfg(test)]
mod tests;
