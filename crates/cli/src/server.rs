//! Server process: the shared parts of all roles.
//!
//! A process serves one port. It binds the port first, so that an address in use is detected before a
//! data directory is changed. The services of a role are installed when the role has started. Until
//! then calls fail with `UNAVAILABLE`. In `standalone`, the data node registers with the meta node on
//! the same port, so services are installed one role at a time.
//!
//! # Layout
//!
//! - [`listen`]: listen and advertised address, and the check for missing TLS; [`join`]: options that
//!   several roles share.
//! - [`process`]: life of a server process; [`node`]: a running node of any role.
//! - [`host`]: listener, health, reflection, metrics, shutdown.
//! - [`connections`]: limits of connections, and their end.
//! - [`meters`]: metrics of the process.
//! - [`switchboard`]: services that are installed while the port is open.
//! - [`events`]: options of the event recorder, and the recorder that the nodes share.
//! - [`system_tables`]: tables about the cluster, which the process of the meta leader writes.
//! - [`logs`]: log filter, changed at run time by [`node_admin`].
//! - [`start_errors`]: start errors of nodes with exit status and remedy.
//! - [`metrics`]: `/metrics` in the Prometheus text format.
//! - [`signals`]: stop signals.
//! - [`allocator`]: settings of the C library's allocator.

pub(crate) mod allocator;
pub(crate) mod compaction;
pub(crate) mod connections;
pub(crate) mod events;
pub(crate) mod hook_limits;
pub(crate) mod host;
pub(crate) mod join;
pub(crate) mod listen;
pub(crate) mod logs;
pub(crate) mod meters;
pub(crate) mod metrics;
pub(crate) mod node;
pub(crate) mod node_admin;
pub(crate) mod process;
pub(crate) mod signals;
pub(crate) mod source_args;
pub(crate) mod start_errors;
pub(crate) mod switchboard;
pub(crate) mod system_tables;

/// Largest message that is received or sent, in bytes.
pub(crate) const MAX_MESSAGE_BYTES: usize = 64 << 20;
