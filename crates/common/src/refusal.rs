//! The RPC error: the one error type on the wire, and its only mapping to and from a gRPC status.
//!
//! A [`Refusal`] explains why a node did not do what was requested, in a form that a program can
//! act on: a [`Reason`], a message for people and, where they apply, the time to wait and the
//! current leader.

use std::fmt;
use std::time::Duration;

use prost::Message;
use tidewater_proto::google_rpc;
use tidewater_proto::v1::{self, Reason};
use tonic::{Code, Status};

use crate::ids::NodeId;

const DETAIL_TYPE_URL: &str = "type.googleapis.com/tidewater.v1.ErrorDetail";

/// The leader of a group, as far as the answering node knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leader {
    /// The leader's node id.
    pub node_id: NodeId,
    /// host:port to connect to; empty when the node does not know it.
    pub address: String,
}

/// Possible effect of a call that ended with an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// The call has definitely not taken effect and never will.
    None,
    /// The call may have taken effect, or may still do so.
    Unknown,
}

/// The RPC error: why a call failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Error code for programs.
    pub reason: Reason,
    /// Message for people: the operation, its target and the remedy.
    pub message: String,
    /// Time to wait before a retry; `None` when a retry does not help.
    pub retry_after: Option<Duration>,
    /// The node to call instead, if known.
    pub leader: Option<Leader>,
}

impl Refusal {
    /// Creates an error without retry or leader hint.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), retry_after: None, leader: None }
    }

    /// Adds the time to wait before a retry.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// Adds the current leader.
    #[must_use]
    pub fn leader(mut self, leader: Option<Leader>) -> Self {
        self.leader = leader;
        self
    }

    /// Returns whether a write that failed with this error may have taken effect.
    pub fn effect(&self) -> Effect {
        effect_of(self.reason)
    }

    /// Reads the error from a status. A status without our detail (made by a proxy, by the
    /// transport, or by a newer release) keeps the meaning of its code.
    pub fn from_status(status: &Status) -> Self {
        decode_detail(status).unwrap_or_else(|| Self {
            reason: reason_of_code(status.code()),
            message: status.message().to_owned(),
            retry_after: None,
            leader: None,
        })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Refusal {}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let code = code_of(refusal.reason);
        let detail = v1::ErrorDetail {
            reason: refusal.reason.into(),
            retry_after_ms: refusal
                .retry_after
                .map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)),
            leader_hint: refusal.leader.map(|leader| v1::LeaderHint {
                node_id: leader.node_id.get(),
                address: leader.address,
            }),
        };
        let rpc_status = google_rpc::Status {
            code: code as i32,
            message: refusal.message.clone(),
            details: vec![prost_types::Any {
                type_url: DETAIL_TYPE_URL.to_owned(),
                value: detail.encode_to_vec(),
            }],
        };
        Status::with_details(code, refusal.message, rpc_status.encode_to_vec().into())
    }
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        Self::from_status(&status)
    }
}

fn decode_detail(status: &Status) -> Option<Refusal> {
    let rpc_status = google_rpc::Status::decode(status.details()).ok()?;
    let any = rpc_status.details.iter().find(|any| any.type_url == DETAIL_TYPE_URL)?;
    let detail = v1::ErrorDetail::decode(any.value.as_slice()).ok()?;
    // A reason of a newer release: fall back to the code.
    let reason = Reason::try_from(detail.reason)
        .ok()
        .filter(|reason| *reason != Reason::Unspecified)
        .unwrap_or_else(|| reason_of_code(status.code()));
    Some(Refusal {
        reason,
        message: status.message().to_owned(),
        retry_after: detail.retry_after_ms.map(Duration::from_millis),
        leader: detail
            .leader_hint
            .map(|hint| Leader { node_id: NodeId(hint.node_id), address: hint.address }),
    })
}

// No wildcard: a new reason must not compile before its effect on a write is decided.
fn effect_of(reason: Reason) -> Effect {
    match reason {
        Reason::Unspecified
        | Reason::LeadershipLost
        | Reason::DeadlineExceeded
        | Reason::Unavailable
        | Reason::Internal
        | Reason::Corrupt => Effect::Unknown,
        Reason::InvalidArgument
        | Reason::SchemaMismatch
        | Reason::SchemaVersionBehind
        | Reason::SchemaVersionStale
        | Reason::MessageTooLarge
        | Reason::KeyOutsideRegion
        | Reason::TableNotFound
        | Reason::TableExists
        | Reason::GroupNotHosted
        | Reason::RegionNotFound
        | Reason::NodeNotFound
        | Reason::MemberNotFound
        | Reason::MemberExists
        | Reason::GroupNotFound
        | Reason::HookNotFound
        | Reason::HookExists
        | Reason::NotLeader
        | Reason::WrongCluster
        | Reason::WrongNode
        | Reason::NodeRemoved
        | Reason::RoleMismatch
        | Reason::ObjectStoreMismatch
        | Reason::PeersMismatch
        | Reason::AlreadyBootstrapped
        | Reason::NotBootstrapped
        | Reason::RouteWriteFenced
        | Reason::RouteMoved
        | Reason::RegionLoading
        | Reason::RegionFenced
        | Reason::ProducerForgotten
        | Reason::SerialOutOfOrder
        | Reason::NoDataNodes
        | Reason::MembershipBusy
        | Reason::MembershipStale
        | Reason::CatalogVersionMismatch
        | Reason::TableBusy
        | Reason::VersionGone
        | Reason::LoadEnded
        | Reason::Overloaded
        | Reason::DiskFull
        | Reason::ObjectStoreUnavailable
        | Reason::ShuttingDown
        | Reason::HandleNotFound
        | Reason::JobNotFound
        | Reason::JobExists
        | Reason::BadPlan
        | Reason::BadPlugin
        | Reason::InputsGone
        | Reason::BelowFloor
        | Reason::JobCancelled
        | Reason::NoCompactors
        | Reason::JobTooLarge
        | Reason::Unsupported => Effect::None,
    }
}

fn code_of(reason: Reason) -> Code {
    match reason {
        Reason::Unspecified | Reason::Internal => Code::Internal,
        Reason::InvalidArgument
        | Reason::SchemaMismatch
        | Reason::KeyOutsideRegion
        | Reason::MessageTooLarge
        | Reason::BadPlan
        | Reason::BadPlugin => Code::InvalidArgument,
        Reason::TableNotFound
        | Reason::GroupNotHosted
        | Reason::RegionNotFound
        | Reason::NodeNotFound
        | Reason::MemberNotFound
        | Reason::GroupNotFound
        | Reason::VersionGone
        | Reason::HookNotFound
        | Reason::HandleNotFound
        | Reason::JobNotFound => Code::NotFound,
        Reason::TableExists
        | Reason::MemberExists
        | Reason::HookExists
        | Reason::AlreadyBootstrapped
        | Reason::JobExists => Code::AlreadyExists,
        Reason::SchemaVersionBehind
        | Reason::SchemaVersionStale
        | Reason::MembershipBusy
        | Reason::MembershipStale
        | Reason::CatalogVersionMismatch
        | Reason::TableBusy
        | Reason::LoadEnded
        | Reason::RouteWriteFenced
        | Reason::RouteMoved
        | Reason::RegionFenced
        | Reason::InputsGone
        | Reason::BelowFloor
        | Reason::JobCancelled
        | Reason::LeadershipLost => Code::Aborted,
        Reason::WrongCluster
        | Reason::WrongNode
        | Reason::NodeRemoved
        | Reason::RoleMismatch
        | Reason::ObjectStoreMismatch
        | Reason::PeersMismatch
        | Reason::NotBootstrapped
        | Reason::ProducerForgotten
        | Reason::SerialOutOfOrder => Code::FailedPrecondition,
        Reason::Overloaded | Reason::DiskFull | Reason::JobTooLarge => Code::ResourceExhausted,
        Reason::NotLeader
        | Reason::RegionLoading
        | Reason::NoDataNodes
        | Reason::NoCompactors
        | Reason::ObjectStoreUnavailable
        | Reason::ShuttingDown
        | Reason::Unavailable => Code::Unavailable,
        Reason::DeadlineExceeded => Code::DeadlineExceeded,
        Reason::Corrupt => Code::DataLoss,
        Reason::Unsupported => Code::Unimplemented,
    }
}

fn reason_of_code(code: Code) -> Reason {
    match code {
        Code::InvalidArgument => Reason::InvalidArgument,
        // The transport returns this for a message above its limit, before processing any of it.
        Code::OutOfRange => Reason::MessageTooLarge,
        Code::Unimplemented => Reason::Unsupported,
        Code::DeadlineExceeded | Code::Cancelled => Reason::DeadlineExceeded,
        Code::Unavailable => Reason::Unavailable,
        Code::DataLoss => Reason::Corrupt,
        _ => Reason::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusal_round_trips_over_the_wire() {
        let refusal = Refusal::new(Reason::NotLeader, "group 3 is led by node 7")
            .retry_after(Duration::from_millis(250))
            .leader(Some(Leader { node_id: NodeId(7), address: "127.0.0.1:7411".into() }));
        let status = Status::from(refusal.clone());
        assert_eq!(status.code(), Code::Unavailable);
        assert_eq!(Refusal::from_status(&status), refusal);
    }

    #[test]
    fn every_reason_round_trips_over_the_wire() {
        let mut seen = 0;
        for number in 1..200 {
            let Ok(reason) = Reason::try_from(number) else { continue };
            let status = Status::from(Refusal::new(reason, "text"));
            assert_eq!(Refusal::from_status(&status).reason, reason);
            seen += 1;
        }
        assert!(seen > 40, "{seen}");
    }

    #[test]
    fn unknown_reason_means_unknown_effect() {
        let rpc_status = google_rpc::Status {
            code: Code::Internal as i32,
            message: "new".into(),
            details: vec![prost_types::Any {
                type_url: DETAIL_TYPE_URL.to_owned(),
                value: v1::ErrorDetail { reason: 9_999, ..Default::default() }.encode_to_vec(),
            }],
        };
        let status = Status::with_details(Code::Internal, "new", rpc_status.encode_to_vec().into());
        assert_eq!(Refusal::from_status(&status).effect(), Effect::Unknown);
    }

    #[test]
    fn bare_transport_error_means_unknown_effect() {
        let refusal = Refusal::from_status(&Status::unavailable("connection reset"));
        assert_eq!(refusal.effect(), Effect::Unknown);
    }

    #[test]
    fn damaged_error_details_do_not_panic() {
        let whole = Status::from(Refusal::new(Reason::Overloaded, "x"));
        for cut in 0..whole.details().len() {
            let status =
                Status::with_details(whole.code(), "x", whole.details()[..cut].to_vec().into());
            let _ = Refusal::from_status(&status);
        }
    }
}
