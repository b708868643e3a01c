use std::time::Duration;

use openraft::RPCTypes;
use openraft::errors::{NetworkError, RPCError, Timeout, Unreachable};
use tidewater_common::ids::NodeId;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::Reason;

use crate::types::TypeConfig;

/// A call as errors name it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    pub(super) kind: RPCTypes,
    pub(super) source: NodeId,
    pub(super) target: NodeId,
}

impl Call {
    /// No answer within the deadline.
    pub(super) fn timeout(self, timeout: Duration) -> RPCError<TypeConfig> {
        RPCError::Timeout(Timeout {
            action: self.kind,
            id: self.source.get(),
            target: self.target.get(),
            timeout,
        })
    }

    /// The node cannot be reached at all.
    pub(super) fn unreachable(self, why: impl std::fmt::Display) -> RPCError<TypeConfig> {
        RPCError::Unreachable(Unreachable::from_string(format!("node {}: {why}", self.target)))
    }

    /// The answer makes no sense, or ended early.
    pub(super) fn broken(self, why: impl std::fmt::Display) -> RPCError<TypeConfig> {
        RPCError::Network(NetworkError::from_string(format!("node {}: {why}", self.target)))
    }

    /// What openraft does about a refusal: back off when trying again at once cannot help.
    pub(super) fn refused(self, refusal: Refusal) -> RPCError<TypeConfig> {
        match refusal.reason {
            Reason::DeadlineExceeded | Reason::Internal | Reason::Corrupt => self.broken(refusal),
            _ => self.unreachable(refusal),
        }
    }
}
