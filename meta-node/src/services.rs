//! RPC services of a meta node. A method validates its request, makes one call, and maps the result.
//!
//! # Layout
//!
//! - `slot`: the node's replica, once it has one; `meta`: registration, heartbeats, the catalog;
//!   `catalog_server`: the same service on the wire; `catalog_changes`: changes since a revision;
//!   `heartbeat_facts`: the cluster in answers to heartbeats; `registration`, `registration_rate`: limits of
//!   registrations; `refused_calls`: calls that contradict the catalog; `watch`: the stream of catalog changes;
//!   `admin`: tables, members, leaders; `members`: members of group 0; `member_info`: the description of this
//!   node for the leader; `node_calls`: calls that nodes make by themselves; `hooks`: configured hooks; `cursors`: positions of durable hooks;
//!   `storage`: read holds, policies and frontiers.

mod admin;
mod catalog_changes;
mod catalog_server;
mod cursors;
mod heartbeat_facts;
mod hooks;
mod member_info;
mod members;
mod meta;
mod node_calls;
mod procedures;
mod refreshes;
mod refused_calls;
mod registration;
mod registration_rate;
mod slot;
mod storage;
mod timestamps;
mod watch;

pub(crate) use self::admin::AdminService;
pub(crate) use self::cursors::CursorService;
pub(crate) use self::hooks::HookService;
pub(crate) use self::member_info::MemberService;
pub(crate) use self::meta::MetaService;
pub(crate) use self::procedures::ProcedureService;
pub(crate) use self::refreshes::RefreshService;
pub(crate) use self::slot::{ReplicaSlot, RunningReplica};
pub(crate) use self::storage::StorageService;

/// Maximum size of a request to the meta services, in bytes. A table of 1,024 columns with names of
/// maximum length is far smaller.
pub(crate) const MAX_REQUEST_BYTES: usize = 4 * 1024 * 1024;
/// Maximum size of a response, in bytes: a catalog snapshot with 100,000 routes.
pub(crate) const MAX_RESPONSE_BYTES: usize = 64 * 1024 * 1024;
