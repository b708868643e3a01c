//! Calls between the nodes of a cluster, and from clients to nodes.
//!
//! This crate decides how a call is made, connected and timed, and it does not know what a call does.
//!
//! # Layout
//!
//! - [`ConnectPolicy`] (`connect`): how connections are opened and kept alive; [`Channels`]
//!   (`channels`): the cache of connections.
//! - [`attempt`](fn@attempt), [`FailedAttempt`] (`attempt`): one attempt of a call, with a deadline;
//!   *failed* or *unknown*.
//! - [`AddressBook`] (`addresses`): addresses of nodes.
//! - [`MetaLink`] (`meta_link`): calls of data and compactor nodes to the meta group.

mod addresses;
mod attempt;
mod channels;
mod connect;
mod meta_link;

pub use addresses::AddressBook;
pub use attempt::{FailedAttempt, attempt, timed};
pub use channels::Channels;
pub use connect::{ConnectPolicy, KeepAlive, MESSAGE_BYTES, Windows};
pub use meta_link::{CursorList, MetaLink, RegisterError};
