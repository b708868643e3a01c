//! Starts real Tidewater processes, breaks them, and checks what clients saw.
//!
//! # Layout
//!
//! - [`binary`]: finds the `tidewater` binary under test.
//! - [`node`]: one server process: started, killed, stopped, continued, restarted, wiped.
//! - [`cluster`]: the nodes of one cluster, their folders and addresses, and who leads what.
//! - [`command`]: runs a client command of the binary and keeps what it said.
//! - [`disk`]: a small disk for one node, to be filled.
//! - [`proxy`]: TCP between nodes, with a rule for each directed pair.
//! - [`s3`]: an S3 endpoint that can be made to misbehave.
//! - [`direct`]: calls to one node of the test's choice, past routing and retries.
//! - [`metrics`]: what a node counts.
//! - [`inbox`]: a connection of which is known what the node has not read yet.
//! - [`oracle`]: what writers were told, compared with what a scan shows.
//! - [`failover`]: what a series of kills has shown.
//! - [`workload`]: writers that run while something is broken.
//! - [`wait`]: conditions with limits.
//!
//! Nothing here needs root. Ports are chosen by the system, on a loopback address of each cluster's
//! own, so that no outgoing connection of another test can sit on a port between kill and restart.

pub mod binary;
pub mod cluster;
pub mod command;
pub mod direct;
pub mod disk;
mod error;
pub mod failover;
mod http;
pub mod inbox;
pub mod metrics;
pub mod node;
pub mod oracle;
pub mod proxy;
pub mod s3;
mod sockets;
pub mod wait;
pub mod workload;

pub use error::HarnessError;

/// What every step of a scenario gives.
pub type Result<T, E = HarnessError> = std::result::Result<T, E>;
