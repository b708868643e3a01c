//! The one Raft type configuration of all groups, and its conversions to and from the wire.
//!
//! Commands and replies are opaque bytes in this crate. Only a group's state machine knows what
//! they contain.

use std::fmt;

use bytes::Bytes;
use openraft::impls::OneshotResponder;
use openraft::vote::RaftLeaderId;
use openraft::{OptionalSend, RaftTypeConfig};

mod append_check;
pub mod wire;

pub use append_check::LogIdError;
pub(crate) use append_check::{check_append, check_log_id};

/// The asynchronous runtime of every group. This is its only mention, so that a simulated runtime
/// can replace it.
#[allow(deprecated, reason = "the re-export saves a direct dependency on openraft-rt-tokio")]
pub type Runtime = openraft::impls::TokioRuntime;

/// Greatest distance of a term in a message from the receiver's own. A term grows by one with each
/// election, so that a replica is never this far behind; a term near the end of the integers would
/// end all elections of the group.
pub(crate) const MAX_TERM_JUMP: u64 = 1 << 20;

/// The type configuration of all groups.
#[derive(Debug, Clone, Copy, Default, Eq, PartialEq, Ord, PartialOrd)]
pub struct TypeConfig {}

impl RaftTypeConfig for TypeConfig {
    type D = Command;
    type R = Reply;
    type NodeId = u64;
    type Node = Member;
    type Term = u64;
    // Standard Raft: at most one leader in a term, so that a term identifies one owner.
    type LeaderId = openraft::impls::leader_id_std::LeaderId<u64, u64>;
    type Vote = openraft::impls::Vote<LeaderId>;
    type Payload = openraft::EntryPayload<Command, u64, Member>;
    type Entry = openraft::Entry<CommittedLeaderId, Self::Payload>;
    type AsyncRuntime = Runtime;
    type Responder<T>
        = OneshotResponder<Self, T>
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

/// The leader of a term.
pub type LeaderId = openraft::impls::leader_id_std::LeaderId<u64, u64>;
/// The part of a leader id that an entry stores: the term.
pub type CommittedLeaderId = <LeaderId as RaftLeaderId>::Committed;
/// Position and term of an entry.
pub type LogId = openraft::LogId<CommittedLeaderId>;
/// A vote, granted by a quorum when committed.
pub type Vote = openraft::impls::Vote<LeaderId>;
/// A log entry.
pub type Entry = openraft::Entry<CommittedLeaderId, EntryPayload>;
/// Payload of a log entry.
pub type EntryPayload = openraft::EntryPayload<Command, u64, Member>;
/// Voters and learners of a group.
pub type Membership = openraft::Membership<u64, Member>;
/// A membership and its position in the log.
pub type StoredMembership = openraft::StoredMembership<CommittedLeaderId, u64, Member>;
/// Last log id and membership that a snapshot covers.
pub type SnapshotMeta = openraft::SnapshotMeta<CommittedLeaderId, u64, Member>;
/// A snapshot: its metadata and its file.
pub type Snapshot = openraft::Snapshot<CommittedLeaderId, u64, Member, crate::SnapshotFile>;
/// The handle to one group's replica on this node.
pub type Raft<SM> = openraft::Raft<TypeConfig, SM>;

/// Creates a log id from its parts.
pub fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(CommittedLeaderId::from(term), index)
}

/// An opaque command: the bytes that a group replicates.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Command(pub Bytes);

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

// Openraft prints commands in its own log lines: contents must never appear there.
impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "command of {} bytes", self.0.len())
    }
}

impl From<Bytes> for Command {
    fn from(bytes: Bytes) -> Self {
        Self(bytes)
    }
}

/// Reply of a state machine to a command. Empty for entries without a command.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Reply(pub Bytes);

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "reply of {} bytes", self.0.len())
    }
}

impl From<Bytes> for Reply {
    fn from(bytes: Bytes) -> Self {
        Self(bytes)
    }
}

/// A member of a group, with the address of its node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Member {
    /// Address as host:port. Host names are resolved again on reconnect.
    pub address: String,
}

impl Member {
    /// Creates a member at host:port.
    pub fn new(address: impl Into<String>) -> Self {
        Self { address: address.into() }
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)
    }
}
