//! The RPC error: the one error type on the wire, and its only mapping to and from a gRPC status.
//!
//! A [`Refusal`] explains why a node did not do what was requested, in a form that a program can
//! act on: a [`Reason`], a message for people and, where they apply, the time to wait and the
//! current leader.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use prost::Message;
use tidewater_proto::google_rpc;
use tidewater_proto::v1::{self, Reason};
use tonic::Status;

use crate::catalog_hint::CatalogHint;
use crate::ids::NodeId;
use crate::quote::cut_at;
pub use crate::reason::Effect;
use crate::reason::{Facts, RetryAction, facts, reason_of_code};

const DETAIL_TYPE_URL: &str = "type.googleapis.com/tidewater.v1.ErrorDetail";

/// The leader of a group, as far as the answering node knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leader {
    /// The leader's node id.
    pub node_id: NodeId,
    /// host:port to connect to; empty when the node does not know it.
    pub address: String,
}

/// Characters of a message that is sent.
const MAX_MESSAGE_CHARS: usize = 800;

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
    /// State with which the node compared a route or schema that is out of date.
    pub catalog_hint: Option<Box<CatalogHint>>,
}

impl Refusal {
    /// Creates an error without retry and hints.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { reason, message, retry_after: None, leader: None, catalog_hint: None }
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

    /// Adds the state with which the node compared the call.
    #[must_use]
    pub fn catalog_hint(mut self, hint: CatalogHint) -> Self {
        self.catalog_hint = Some(Box::new(hint));
        self
    }

    /// Returns whether a write that failed with this error may have taken effect.
    pub fn effect(&self) -> Effect {
        facts(self.reason).effect
    }

    /// Returns the reaction of a caller. [`RetryAction::RepeatIfAsked`] is resolved to
    /// [`RetryAction::Repeat`] or [`RetryAction::Stop`] and is never returned.
    #[must_use]
    pub fn retry_action(&self) -> RetryAction {
        match facts(self.reason).retry {
            RetryAction::RepeatIfAsked if self.retry_after.is_some() => RetryAction::Repeat,
            RetryAction::RepeatIfAsked => RetryAction::Stop,
            action => action,
        }
    }

    /// Reads the error from a status. A status without our detail (made by a proxy, by the
    /// transport, or by a newer release) keeps the meaning of its code.
    pub fn from_status(status: &Status) -> Self {
        decode_detail(status).unwrap_or_else(|| Self {
            reason: reason_of_code(status.code()),
            message: text_of(status),
            retry_after: None,
            leader: None,
            catalog_hint: None,
        })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Refusal {}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let Facts { code, effect, retry, .. } = facts(refusal.reason);
        let detail = v1::ErrorDetail {
            reason: refusal.reason.into(),
            retry_after_ms: refusal
                .retry_after
                .map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)),
            leader_hint: refusal.leader.map(|leader| v1::LeaderHint {
                node_id: leader.node_id.get(),
                address: leader.address,
            }),
            retry: v1::Retry::from(retry).into(),
            maybe_applied: effect == Effect::Unknown,
            catalog_hint: refusal.catalog_hint.map(|hint| (*hint).into()),
        };
        // The message is in the trailers twice, and a byte takes up to three there. Clients refuse
        // trailers above 16 KiB, and such an answer counts as lost.
        let message = cut_at(&refusal.message, MAX_MESSAGE_CHARS).into_owned();
        let rpc_status = google_rpc::Status {
            code: code as i32,
            message: message.clone(),
            details: vec![prost_types::Any {
                type_url: DETAIL_TYPE_URL.to_owned(),
                value: detail.encode_to_vec(),
            }],
        };
        Status::with_details(code, message, rpc_status.encode_to_vec().into())
    }
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        Self::from_status(&status)
    }
}

/// Returns the text of a status that the transport made, which may have none of its own.
fn text_of(status: &Status) -> String {
    if !status.message().is_empty() {
        return status.message().to_owned();
    }
    let mut cause = status.source();
    while let Some(next) = cause.and_then(Error::source) {
        cause = Some(next);
    }
    cause.map_or_else(|| status.code().description().to_owned(), ToString::to_string)
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
        catalog_hint: detail
            .catalog_hint
            .and_then(|hint| CatalogHint::from_wire(&hint))
            .map(Box::new),
    })
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use tonic::Code;

    use super::*;
    use crate::catalog_hint::{RegionPresence, ServedRegion};
    use crate::ids::{CatalogVersion, GroupId, RegionId, Revision, SchemaVersion, TableId};
    use crate::keys::KeyRange;

    #[test]
    fn status_without_text_gets_its_code_as_message() {
        let refusal = Refusal::from_status(&Status::unavailable(""));
        assert_eq!(refusal.message, "The service is currently unavailable");
    }

    #[derive(Debug)]
    struct TransportError(io::Error);

    impl fmt::Display for TransportError {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("transport error")
        }
    }

    impl Error for TransportError {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn status_without_text_gets_its_innermost_cause() {
        // tonic nests the cause of a failed connection in errors with general texts.
        let cause = io::Error::new(io::ErrorKind::ConnectionRefused, "connection refused");
        let nested = TransportError(io::Error::other(TransportError(cause)));
        let mut status = Status::unavailable("");
        status.set_source(Arc::new(nested));
        assert_eq!(Refusal::from_status(&status).message, "connection refused");
        let mut status = Status::unavailable("no route");
        status.set_source(Arc::new(io::Error::other("cause")));
        assert_eq!(Refusal::from_status(&status).message, "no route");
    }

    #[test]
    fn refusal_round_trips_over_the_wire() {
        let refusal = Refusal::new(Reason::NotLeader, "group 3 is led by node 7")
            .retry_after(Duration::from_millis(250))
            .leader(Some(Leader { node_id: NodeId(7), address: "127.0.0.1:7411".into() }))
            .catalog_hint(CatalogHint::Catalog {
                revision: Revision(9),
                version: CatalogVersion(4),
            });
        let status = Status::from(refusal.clone());
        assert_eq!(status.code(), Code::Unavailable);
        assert_eq!(Refusal::from_status(&status), refusal);
    }

    #[test]
    fn long_messages_fit_into_trailers() {
        let served = ServedRegion {
            table: TableId(7),
            schema_version: SchemaVersion(2),
            group: GroupId(5),
            range: Some(KeyRange::new(vec![1; 250], Some(vec![2; 250]))),
        };
        let hint =
            CatalogHint::Region { region: RegionId(7), presence: RegionPresence::Served(served) };
        for text in ["x", "é", "\u{10000}"] {
            let refusal = Refusal::new(Reason::InvalidArgument, text.repeat(10_000));
            let status = Status::from(refusal.catalog_hint(hint.clone()));
            let encoded = 3 * status.message().len() + status.details().len().div_ceil(3) * 4;
            assert!(encoded < 15 << 10, "{text}: {encoded}");
            let refusal = Refusal::from_status(&status);
            assert!(refusal.message.starts_with(text) && refusal.message.ends_with("..."));
        }
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
