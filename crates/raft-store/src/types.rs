//! The one Raft type configuration of all groups, and its conversions to and from the wire.
//!
//! Commands and replies are opaque bytes here: what a group replicates is known only to its state
//! machine.

use std::fmt;

use bytes::Bytes;
use openraft::impls::OneshotResponder;
use openraft::vote::RaftLeaderId;
use openraft::{OptionalSend, RaftTypeConfig};

pub mod wire;

/// The asynchronous runtime of every group. Named only here, so that a simulated one can take its
/// place.
#[allow(deprecated, reason = "the re-export saves a direct dependency on openraft-rt-tokio")]
pub type Runtime = openraft::impls::TokioRuntime;

/// The type configuration of all groups.
#[derive(Debug, Clone, Copy, Default, Eq, PartialEq, Ord, PartialOrd)]
pub struct TypeConfig {}

impl RaftTypeConfig for TypeConfig {
    type D = Command;
    type R = Reply;
    type NodeId = u64;
    type Node = Member;
    type Term = u64;
    // Standard Raft: at most one leader in a term, so that a term names one owner.
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
/// What an entry keeps of its leader: the term.
pub type CommittedLeaderId = <LeaderId as RaftLeaderId>::Committed;
/// Position and term of an entry.
pub type LogId = openraft::LogId<CommittedLeaderId>;
/// A vote, granted by a quorum when committed.
pub type Vote = openraft::impls::Vote<LeaderId>;
/// A log entry.
pub type Entry = openraft::Entry<CommittedLeaderId, EntryPayload>;
/// What a log entry carries.
pub type EntryPayload = openraft::EntryPayload<Command, u64, Member>;
/// Voters and learners of a group.
pub type Membership = openraft::Membership<u64, Member>;
/// A membership and where it stands in the log.
pub type StoredMembership = openraft::StoredMembership<CommittedLeaderId, u64, Member>;
/// What a snapshot covers.
pub type SnapshotMeta = openraft::SnapshotMeta<CommittedLeaderId, u64, Member>;
/// A snapshot: what it covers, and its file.
pub type Snapshot = openraft::Snapshot<CommittedLeaderId, u64, Member, crate::SnapshotFile>;
/// The handle to one group's replica on this node.
pub type Raft<SM> = openraft::Raft<TypeConfig, SM>;

/// A log id from its parts.
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

// Openraft prints commands in its own log lines: never their contents.
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

/// What a state machine answers to a command; empty for entries that carry none.
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

/// A member of a group: where its node is reached.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Member {
    /// host:port; host names are resolved again on reconnect.
    pub address: String,
}

impl Member {
    /// A member at host:port.
    pub fn new(address: impl Into<String>) -> Self {
        Self { address: address.into() }
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)
    }
}
