use std::time::Duration;

use openraft::RPCTypes;
use openraft::errors::{NetworkError, RPCError, Timeout, Unreachable};
use tidewater_common::ids::NodeId;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::Reason;

use crate::types::TypeConfig;

/// Kind, source and target of a call, for its errors.
#[derive(Debug, Clone, Copy)]
pub(super) struct CallContext {
    pub(super) kind: RPCTypes,
    pub(super) source: NodeId,
    pub(super) target: NodeId,
}

impl CallContext {
    /// Error of a call without a response within the deadline.
    pub(super) fn timeout_error(self, timeout: Duration) -> RPCError<TypeConfig> {
        RPCError::Timeout(Timeout {
            action: self.kind,
            id: self.source.get(),
            target: self.target.get(),
            timeout,
        })
    }

    /// Error of a node that cannot be reached. Openraft backs off.
    pub(super) fn unreachable_error(self, cause: impl std::fmt::Display) -> RPCError<TypeConfig> {
        RPCError::Unreachable(Unreachable::from_string(format!("node {}: {cause}", self.target)))
    }

    /// Error of an invalid or incomplete response. Openraft retries immediately.
    pub(super) fn network_error(self, cause: impl std::fmt::Display) -> RPCError<TypeConfig> {
        RPCError::Network(NetworkError::from_string(format!("node {}: {cause}", self.target)))
    }

    /// Converts an RPC error. Openraft backs off when an immediate retry cannot help.
    pub(super) fn rpc_error(self, refusal: Refusal) -> RPCError<TypeConfig> {
        match refusal.reason {
            Reason::DeadlineExceeded | Reason::Internal | Reason::Corrupt => {
                self.network_error(refusal)
            }
            _ => self.unreachable_error(refusal),
        }
    }
}
