//! Reading: scans over all regions of a table in key order, counts, and reads by key.
//!
//! A region's rows come as one stream from the region's owner, which pins a version of the region.
//! A stream that ends without saying so was cut off. If nothing of that region was yielded yet, the
//! region is read again from its start; otherwise the scan ends with an error, because going on
//! behind the last key would mix two versions of one region (C4).

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
