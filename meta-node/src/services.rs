//! The RPC services of a meta node. A method checks, makes one call, and maps the answer.
//!
//! # Layout
//!
//! - `slot`: the node's group, once it has one; `meta`: registration, heartbeats, the catalog;
//!   `watch`: the stream of changes; `admin`: tables, members, leaders; `members`: group 0's own;
//!   `hooks`: hooks by configuration; `cursors`: how far durable ones are; `status`: what is wrong (pure).

mod admin;
mod cursors;
mod hooks;
mod members;
mod meta;
mod slot;
mod status;
mod watch;

pub(crate) use self::admin::AdminService;
pub(crate) use self::cursors::CursorService;
pub(crate) use self::hooks::HookService;
pub(crate) use self::meta::MetaService;
pub(crate) use self::slot::{Running, Slot};

/// Largest request to the meta services, in bytes: a table of 1,024 columns with the longest names
/// stays far below.
pub(crate) const REQUEST_BYTES: usize = 4 * 1024 * 1024;
/// Largest answer, in bytes: a snapshot of the catalog with a hundred thousand routes.
pub(crate) const ANSWER_BYTES: usize = 64 * 1024 * 1024;
