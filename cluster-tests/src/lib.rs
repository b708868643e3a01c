//! Test harness that starts real Tidewater processes, injects faults, and verifies the results of
//! clients.
//!
//! # Layout
//!
//! - [`batches`]: a table that is loaded, truncated, altered and cloned, with a check of its rows.
//! - [`binary`]: finds the `tidewater` binary under test.
//! - [`node`]: one server process: start, kill, freeze, restart, wipe.
//! - [`cluster`]: the nodes of one cluster, their directories and addresses, and its leaders.
//! - [`command`]: runs a client command of the binary and captures its output.
//! - [`clock`]: a wall clock that a scenario sets.
//! - [`disk`]: a small disk that a scenario can fill.
//! - [`proxy`]: TCP proxies between nodes, with a rule for each directed pair.
//! - [`s3`]: an S3 endpoint with fault injection.
//! - [`direct`]: calls to one given node, without routing and retries.
//! - [`metrics`]: metrics of a node.
//! - [`inbox`]: a connection that reports the bytes its node has not read.
//! - [`oracle`]: compares the outcomes of writes with a scan.
//! - [`failures`]: errors that calls may end with during faults.
//! - [`failover`]: results of a series of kills.
//! - [`stub`]: data nodes, clients and watchers without storage, in this process.
//! - [`workload`]: writers that run during faults.
//! - [`wait`]: conditions with timeouts.
//!
//! The harness does not need root. The system chooses ports on a loopback address of each cluster, so
//! that no outgoing connection of another test can take a port between kill and restart.

pub mod batches;
pub mod binary;
pub mod clock;
pub mod cluster;
pub mod command;
pub mod direct;
pub mod disk;
mod error;
pub mod failover;
pub mod failures;
mod http;
pub mod inbox;
pub mod metrics;
pub mod node;
pub mod oracle;
pub mod postgres;
pub mod proxy;
pub mod registers;
pub mod s3;
mod sockets;
pub mod stub;
pub mod wait;
pub mod workload;

pub use error::HarnessError;

/// Result of a step of a scenario.
pub type Result<T, E = HarnessError> = std::result::Result<T, E>;
