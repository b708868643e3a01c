//! Types shared by every part of Tidewater, without any I/O except [`file`], [`granted_dirs`] and
//! [`granted_files`].
//!
//! # Layout
//!
//! - [`ids`]: typed ids and positions. No id in Tidewater is a bare `u64`.
//! - [`schema`]: tables: columns, types, keys, options.
//! - [`keys`]: order-preserving row keys, ranges of them, sorting.
//! - [`metric`]: descriptions of metrics.
//! - [`rows`]: record batches as encoded on the wire and in the log.
//! - [`address`]: addresses of nodes, host:port.
//! - [`address_kind`]: kinds of IP addresses: public, private, special.
//! - [`agreed_limits`]: limits that meta nodes and data nodes share.
//! - [`catalog_hint`]: hint of a refused call whose route or schema is out of date.
//! - [`backoff`]: waits between attempts.
//! - [`clock`]: the wall clock as a trait, passed in by the caller.
//! - [`feature_level`]: levels of stored and sent forms, for clusters of several releases.
//! - [`file`]: reads of whole files, with a limit.
//! - [`granted_dirs`]: directories that the operator of a node grants to callers; [`granted_files`]: files
//!   below them.
//! - [`problem`]: problems for operators; [`problem_kind`]: their kinds, with meaning and remedy;
//!   [`problems`]: those of a process.
//! - [`peer_network`]: the network of a caller, for limits of callers.
//! - [`log_rate`]: bounded rate of log lines about input of other processes.
//! - [`header`]: the intended receiver of a call between nodes.
//! - [`read_arguments`]: limits of the arguments of a read.
//! - [`refusal`]: the RPC error, the one error type on the wire, and its mapping to a gRPC status.

pub mod address;
pub mod address_kind;
pub mod agreed_limits;
pub mod backoff;
pub mod catalog_hint;
pub mod clock;
pub mod disk;
pub mod epoch;
pub mod feature_level;
pub mod file;
pub mod granted_dirs;
pub mod granted_files;
pub mod header;
pub mod ids;
pub mod keys;
pub mod log_rate;
pub mod metric;
pub mod peer_network;
pub mod problem;
pub mod problem_kind;
pub mod problems;
pub mod quote;
pub mod read_arguments;
pub mod reason;
pub mod refusal;
pub mod rows;
pub mod schema;
