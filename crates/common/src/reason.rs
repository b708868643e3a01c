//! The meaning of each error reason: one row for each, read by every layer.
//!
//! A new reason needs its number in `proto/tidewater/v1/error.proto` and its row here. The match in
//! [`facts`] has no wildcard, so a reason without a row does not compile.

use tidewater_proto::v1::{Reason, Retry};
use tonic::Code;

/// Whether a call that ended with an error may have taken effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// The call has not taken effect and never will.
    None,
    /// The call may have taken effect, or may still do so.
    Unknown,
}

/// Reaction of a client to an attempt that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryAction {
    /// Wait, then repeat the call at the same node.
    Repeat,
    /// As [`RetryAction::Repeat`] when the answer has a retry time, else [`RetryAction::Stop`].
    RepeatIfAsked,
    /// As [`RetryAction::Repeat`], but a few times only: a fault is more likely than a passing
    /// state.
    RepeatFew,
    /// Wait, then repeat the call at the leader: another node leads, or this one cannot answer.
    FindLeader,
    /// Refresh the catalog: the routes or the schema that the call named are out of date.
    RefreshCatalog,
    /// Continue with a new producer: the region does not know this one.
    NewProducer,
    /// Return the error: a repetition does not help.
    Stop,
}

/// Meaning of a reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// Effect of a write that was answered with the reason.
    pub effect: Effect,
    /// Code of the gRPC status.
    pub code: Code,
    /// Reaction of a client.
    pub retry: RetryAction,
}

impl From<RetryAction> for Retry {
    fn from(action: RetryAction) -> Self {
        match action {
            RetryAction::Repeat => Self::Repeat,
            RetryAction::RepeatIfAsked => Self::RepeatIfAsked,
            RetryAction::RepeatFew => Self::RepeatFew,
            RetryAction::FindLeader => Self::FindLeader,
            RetryAction::RefreshCatalog => Self::RefreshCatalog,
            RetryAction::NewProducer => Self::NewProducer,
            RetryAction::Stop => Self::Stop,
        }
    }
}

/// Returns the meaning of a reason.
#[must_use]
pub const fn facts(reason: Reason) -> Facts {
    use Effect::{None as NoEffect, Unknown};
    use RetryAction::{
        FindLeader, NewProducer, RefreshCatalog, Repeat, RepeatFew, RepeatIfAsked, Stop,
    };
    const fn facts(effect: Effect, code: Code, retry: RetryAction) -> Facts {
        Facts { effect, code, retry }
    }
    match reason {
        Reason::Unspecified => facts(Unknown, Code::Internal, RepeatFew),
        // Input.
        Reason::InvalidArgument => facts(NoEffect, Code::InvalidArgument, Stop),
        Reason::SchemaMismatch => facts(NoEffect, Code::InvalidArgument, Stop),
        Reason::SchemaVersionBehind => facts(NoEffect, Code::Aborted, Repeat),
        Reason::SchemaVersionStale => facts(NoEffect, Code::Aborted, RefreshCatalog),
        Reason::MessageTooLarge => facts(NoEffect, Code::InvalidArgument, Stop),
        Reason::KeyOutsideRegion => facts(NoEffect, Code::InvalidArgument, RefreshCatalog),
        // Existence.
        Reason::TableNotFound => facts(NoEffect, Code::NotFound, Stop),
        Reason::TableExists => facts(NoEffect, Code::AlreadyExists, Stop),
        Reason::GroupNotHosted => facts(NoEffect, Code::NotFound, FindLeader),
        Reason::RegionNotFound => facts(NoEffect, Code::NotFound, RefreshCatalog),
        Reason::NodeNotFound => facts(NoEffect, Code::NotFound, Stop),
        Reason::MemberNotFound => facts(NoEffect, Code::NotFound, Stop),
        Reason::MemberExists => facts(NoEffect, Code::AlreadyExists, Stop),
        Reason::GroupNotFound => facts(NoEffect, Code::NotFound, RefreshCatalog),
        Reason::HookNotFound => facts(NoEffect, Code::NotFound, Stop),
        Reason::HookExists => facts(NoEffect, Code::AlreadyExists, Stop),
        // Which node answers.
        Reason::NotLeader => facts(NoEffect, Code::Unavailable, FindLeader),
        Reason::LeadershipLost => facts(Unknown, Code::Aborted, FindLeader),
        Reason::WrongCluster => facts(NoEffect, Code::FailedPrecondition, Stop),
        Reason::WrongNode => facts(NoEffect, Code::FailedPrecondition, FindLeader),
        Reason::NodeRemoved => facts(NoEffect, Code::FailedPrecondition, FindLeader),
        Reason::RoleMismatch => facts(NoEffect, Code::FailedPrecondition, Stop),
        Reason::ObjectStoreMismatch => facts(NoEffect, Code::FailedPrecondition, Stop),
        Reason::PeersMismatch => facts(NoEffect, Code::FailedPrecondition, Stop),
        Reason::AlreadyBootstrapped => facts(NoEffect, Code::AlreadyExists, Stop),
        Reason::NotBootstrapped => facts(NoEffect, Code::FailedPrecondition, FindLeader),
        // State.
        Reason::RouteWriteFenced => facts(NoEffect, Code::Aborted, Repeat),
        Reason::RouteMoved => facts(NoEffect, Code::Aborted, RefreshCatalog),
        Reason::RegionLoading => facts(NoEffect, Code::Unavailable, Repeat),
        Reason::RegionFenced => facts(NoEffect, Code::Aborted, RefreshCatalog),
        Reason::ProducerForgotten => facts(NoEffect, Code::FailedPrecondition, NewProducer),
        Reason::SerialOutOfOrder => facts(NoEffect, Code::FailedPrecondition, NewProducer),
        Reason::NoDataNodes => facts(NoEffect, Code::Unavailable, RepeatIfAsked),
        Reason::MembershipBusy => facts(NoEffect, Code::Aborted, RepeatIfAsked),
        Reason::MembershipStale => facts(NoEffect, Code::Aborted, Stop),
        Reason::CatalogVersionMismatch => facts(NoEffect, Code::Aborted, Stop),
        Reason::TableBusy => facts(NoEffect, Code::Aborted, Stop),
        Reason::VersionGone => facts(NoEffect, Code::NotFound, Stop),
        Reason::LoadEnded => facts(NoEffect, Code::Aborted, Stop),
        Reason::CatalogBehind => facts(NoEffect, Code::Unavailable, Repeat),
        Reason::ClockDiffers => facts(NoEffect, Code::Unavailable, FindLeader),
        // Capacity.
        Reason::Overloaded => facts(NoEffect, Code::ResourceExhausted, Repeat),
        Reason::DiskFull => facts(NoEffect, Code::ResourceExhausted, Repeat),
        Reason::ObjectStoreUnavailable => facts(NoEffect, Code::Unavailable, RepeatIfAsked),
        Reason::DeadlineExceeded => facts(Unknown, Code::DeadlineExceeded, FindLeader),
        Reason::ShuttingDown => facts(NoEffect, Code::Unavailable, FindLeader),
        Reason::Unavailable => facts(Unknown, Code::Unavailable, FindLeader),
        // Remote compaction.
        Reason::HandleNotFound => facts(NoEffect, Code::NotFound, Stop),
        Reason::JobNotFound => facts(NoEffect, Code::NotFound, Stop),
        Reason::JobExists => facts(NoEffect, Code::AlreadyExists, Stop),
        Reason::BadPlan => facts(NoEffect, Code::InvalidArgument, Stop),
        Reason::BadPlugin => facts(NoEffect, Code::InvalidArgument, Stop),
        Reason::InputsGone => facts(NoEffect, Code::Aborted, Stop),
        Reason::BelowFloor => facts(NoEffect, Code::Aborted, Stop),
        Reason::JobCancelled => facts(NoEffect, Code::Aborted, Stop),
        Reason::NoCompactors => facts(NoEffect, Code::Unavailable, Stop),
        Reason::JobTooLarge => facts(NoEffect, Code::ResourceExhausted, Stop),
        // Faults.
        Reason::Corrupt => facts(Unknown, Code::DataLoss, RepeatFew),
        Reason::Internal => facts(Unknown, Code::Internal, RepeatFew),
        Reason::Unsupported => facts(NoEffect, Code::Unimplemented, Stop),
        Reason::FileDamaged => facts(NoEffect, Code::DataLoss, RepeatFew),
    }
}

/// Returns the reason that fits a status without a Tidewater error detail.
#[must_use]
pub fn reason_of_code(code: Code) -> Reason {
    match code {
        Code::InvalidArgument => Reason::InvalidArgument,
        // The transport reports a message above its limit with this code, before the call starts.
        Code::OutOfRange => Reason::MessageTooLarge,
        Code::Unimplemented => Reason::Unsupported,
        Code::DeadlineExceeded | Code::Cancelled => Reason::DeadlineExceeded,
        Code::Unavailable => Reason::Unavailable,
        Code::DataLoss => Reason::Corrupt,
        _ => Reason::Internal,
    }
}

/// Returns the label of a reason in metrics and logs, e.g. `not_leader`.
#[must_use]
pub fn label(reason: Reason) -> String {
    reason.as_str_name().trim_start_matches("REASON_").to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_effects_are_never_left_unsettled() {
        for number in 0..200 {
            let Ok(reason) = Reason::try_from(number) else { continue };
            let facts = facts(reason);
            if facts.effect == Effect::Unknown {
                // Only a repetition that succeeds settles the outcome.
                assert_ne!(facts.retry, RetryAction::Stop, "{reason:?}");
            }
        }
    }

    #[test]
    fn labels_are_lower_case_without_prefix() {
        assert_eq!(label(Reason::NotLeader), "not_leader");
        assert_eq!(label(Reason::ObjectStoreUnavailable), "object_store_unavailable");
    }
}
