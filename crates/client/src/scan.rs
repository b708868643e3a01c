//! Scans over all regions of a table in key order, counts, and reads by key.
//!
//! - [`ScanSpec`]: the parameters of a scan, given by the caller.
//! - `ScanPlan`: the same, resolved against a table's schema. It is valid for one schema version.
//! - `RegionRange`: the part of the scanned range in one region, by the routes of one catalog version.
//! - `RegionRows`: one open stream of a region's rows. The region's owner pins a version of the region for
//!   its lifetime.
//! - `RegionReader`: a task that reads one `RegionRange` ahead of its consumer, and reopens the stream until
//!   the first message arrives.
//! - [`ScanStream`]: the batches of all regions. It ends with the last row or with an error.
//!
//! A stream that ends without its end marker was cut off. If the scan has not yet yielded a row of that
//! region, it reads the region again from its start. Otherwise it ends with an error, because a stream
//! resumed after the last key would mix two versions of one region (C4).

mod count;
mod driver;
mod errors;
mod get;
mod reader;
mod region;
mod spec;
mod stream;

pub use self::spec::ScanSpec;
pub use self::stream::ScanStream;

#[cfg(test)]
mod tests;
