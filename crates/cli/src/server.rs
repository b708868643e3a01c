//! What all roles have in common.
//!
//! A process serves one port. The port is taken first, so that an address in use is found before a
//! data directory is touched; the services of a role are put behind it when the role has started.
//! Until then they answer `UNAVAILABLE`. In `standalone`, the data node registers with the meta node
//! behind the same port, which is why services come one after the other.
//!
//! # Layout
//!
//! - [`listen`]: where to listen, what others connect to, and what is refused without TLS; [`join`]:
//!   options that several roles share.
//! - [`process`]: a server from its port to its end; [`node`]: a running node of any role.
//! - [`host`]: the listener, health, reflection, metrics, stopping.
//! - [`switchboard`]: services that are put behind the port while it is open.
//! - [`logs`]: what is logged, changed at run time by [`node_admin`].
//! - [`start_errors`]: why a node did not start, as a status and what to do.
//! - [`metrics`]: `/metrics` in Prometheus' text form.
//! - [`signals`]: when to stop.
//! - [`allocator`]: what the C library may spread memory over.

pub(crate) mod allocator;
pub(crate) mod compaction;
pub(crate) mod hook_limits;
pub(crate) mod host;
pub(crate) mod join;
pub(crate) mod listen;
pub(crate) mod logs;
pub(crate) mod metrics;
pub(crate) mod node;
pub(crate) mod node_admin;
pub(crate) mod process;
pub(crate) mod signals;
pub(crate) mod start_errors;
pub(crate) mod switchboard;

/// Largest message that is taken or sent, in bytes.
pub(crate) const MAX_MESSAGE_BYTES: usize = 64 << 20;
