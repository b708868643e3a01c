//! Connections of the port: how many there may be, and when they end.
//!
//! A connection costs a file descriptor and some memory before its peer has sent a byte. Without
//! limits, idle connections of one caller take all descriptors, and the node serves no other caller
//! and cannot open its own files.
//!
//! - *Connection*: an accepted socket, until it is closed.
//! - *Peer*: a [`PeerNetwork`](tidewater_common::peer_network::PeerNetwork), usually one machine.
//! - *Call*: a request in progress on a connection, until its response has been sent.
//!
//! # Layout
//!
//! - [`limits`]: decisions: admission of a connection, its end, errors of accepting (pure).
//! - [`table`]: open connections of the process, and its problems.
//! - [`accept`]: accepts sockets. [`stream`]: a socket that ends when it is idle.
//! - [`calls`]: counts calls in progress on each connection.
//! - [`descriptors`]: the limit of file descriptors.

pub(crate) mod accept;
pub(crate) mod calls;
pub(crate) mod descriptors;
pub(crate) mod limits;
pub(crate) mod stream;
pub(crate) mod table;
