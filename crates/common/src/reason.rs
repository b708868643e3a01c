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

/// Class of an error for scripts: the exit status of the command follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorClass {
    /// A fault of the cluster, or an error that has no other class.
    Fault,
    /// The request is invalid: the caller must change it.
    BadRequest,
    /// A thing that the request names does not exist.
    NotFound,
    /// The state of the cluster does not permit the request.
    Conflict,
    /// The cluster cannot serve the request now. A later attempt may succeed.
    Unavailable,
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
    /// Class of the error for scripts. Independent of the code: several codes have reasons of two
    /// classes.
    pub class: ErrorClass,
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
    use ErrorClass::{BadRequest, Conflict, Fault, NotFound, Unavailable};
    use RetryAction::{
        FindLeader, NewProducer, RefreshCatalog, Repeat, RepeatFew, RepeatIfAsked, Stop,
    };
    const fn facts(effect: Effect, code: Code, retry: RetryAction, class: ErrorClass) -> Facts {
        Facts { effect, code, retry, class }
    }
    match reason {
        Reason::Unspecified => facts(Unknown, Code::Internal, RepeatFew, Fault),
        // Input.
        Reason::InvalidArgument => facts(NoEffect, Code::InvalidArgument, Stop, BadRequest),
        Reason::SchemaMismatch => facts(NoEffect, Code::InvalidArgument, Stop, BadRequest),
        Reason::SchemaVersionBehind => facts(NoEffect, Code::Aborted, Repeat, Conflict),
        Reason::SchemaVersionStale => facts(NoEffect, Code::Aborted, RefreshCatalog, Conflict),
        Reason::MessageTooLarge => facts(NoEffect, Code::InvalidArgument, Stop, BadRequest),
        Reason::KeyOutsideRegion => {
            facts(NoEffect, Code::InvalidArgument, RefreshCatalog, BadRequest)
        }
        Reason::KeyOnBoundary => facts(NoEffect, Code::InvalidArgument, Stop, BadRequest),
        // Existence.
        Reason::TableNotFound => facts(NoEffect, Code::NotFound, Stop, NotFound),
        Reason::TableExists => facts(NoEffect, Code::AlreadyExists, Stop, Conflict),
        Reason::GroupNotHosted => facts(NoEffect, Code::NotFound, FindLeader, NotFound),
        Reason::RegionNotFound => facts(NoEffect, Code::NotFound, RefreshCatalog, NotFound),
        Reason::NodeNotFound => facts(NoEffect, Code::NotFound, Stop, NotFound),
        Reason::MemberNotFound => facts(NoEffect, Code::NotFound, Stop, NotFound),
        Reason::MemberExists => facts(NoEffect, Code::AlreadyExists, Stop, Conflict),
        Reason::GroupNotFound => facts(NoEffect, Code::NotFound, RefreshCatalog, NotFound),
        Reason::HookNotFound => facts(NoEffect, Code::NotFound, Stop, NotFound),
        Reason::HookExists => facts(NoEffect, Code::AlreadyExists, Stop, Conflict),
        // Which node answers.
        Reason::NotLeader => facts(NoEffect, Code::Unavailable, FindLeader, Unavailable),
        Reason::LeadershipLost => facts(Unknown, Code::Aborted, FindLeader, Unavailable),
        Reason::WrongCluster => facts(NoEffect, Code::FailedPrecondition, Stop, Conflict),
        Reason::WrongNode => facts(NoEffect, Code::FailedPrecondition, FindLeader, Conflict),
        Reason::NodeRemoved => facts(NoEffect, Code::FailedPrecondition, FindLeader, Conflict),
        Reason::NodeAlreadyRemoved => facts(NoEffect, Code::FailedPrecondition, Stop, Conflict),
        Reason::RoleMismatch => facts(NoEffect, Code::FailedPrecondition, Stop, Conflict),
        Reason::ObjectStoreMismatch => facts(NoEffect, Code::FailedPrecondition, Stop, Conflict),
        Reason::PeersMismatch => facts(NoEffect, Code::FailedPrecondition, Stop, Conflict),
        Reason::AlreadyBootstrapped => facts(NoEffect, Code::AlreadyExists, Stop, Conflict),
        Reason::NotBootstrapped => {
            facts(NoEffect, Code::FailedPrecondition, FindLeader, Unavailable)
        }
        // State.
        Reason::RouteWriteFenced => facts(NoEffect, Code::Aborted, Repeat, Conflict),
        Reason::RouteMoved => facts(NoEffect, Code::Aborted, RefreshCatalog, Conflict),
        Reason::RouteBusy => facts(NoEffect, Code::Aborted, RepeatIfAsked, Conflict),
        Reason::RouteLive => facts(NoEffect, Code::FailedPrecondition, Stop, Conflict),
        Reason::RegionLoading => facts(NoEffect, Code::Unavailable, Repeat, Unavailable),
        Reason::RegionFenced => facts(NoEffect, Code::Aborted, RefreshCatalog, Conflict),
        Reason::ProducerForgotten => {
            facts(NoEffect, Code::FailedPrecondition, NewProducer, Conflict)
        }
        Reason::SerialOutOfOrder => {
            facts(NoEffect, Code::FailedPrecondition, NewProducer, Conflict)
        }
        Reason::NoDataNodes => facts(NoEffect, Code::Unavailable, RepeatIfAsked, Unavailable),
        Reason::MembershipBusy => facts(NoEffect, Code::Aborted, RepeatIfAsked, Conflict),
        Reason::MembershipStale => facts(NoEffect, Code::Aborted, Stop, Conflict),
        Reason::CatalogVersionMismatch => facts(NoEffect, Code::Aborted, Stop, Conflict),
        Reason::TableBusy => facts(NoEffect, Code::Aborted, Stop, Conflict),
        Reason::VersionGone => facts(NoEffect, Code::NotFound, Stop, NotFound),
        Reason::LoadEnded => facts(NoEffect, Code::Aborted, Stop, Conflict),
        Reason::DirectoryCopied => facts(NoEffect, Code::FailedPrecondition, Stop, Conflict),
        Reason::EpochBelowSince | Reason::EpochIncomplete => {
            facts(NoEffect, Code::OutOfRange, Stop, Conflict)
        }
        Reason::ProcedureSuperseded => facts(NoEffect, Code::Aborted, Stop, Conflict),
        Reason::ProcedureCancelled => facts(NoEffect, Code::Aborted, Stop, Conflict),
        Reason::ProcedureNotFound => facts(NoEffect, Code::NotFound, Stop, NotFound),
        Reason::ProcedureNotAbandonable => facts(NoEffect, Code::Aborted, Stop, Conflict),
        // Releases that do not know the reason stop on the code, when they register.
        Reason::ReleaseUnsupported => facts(NoEffect, Code::InvalidArgument, Stop, Conflict),
        Reason::ClockDiffers => facts(NoEffect, Code::Unavailable, FindLeader, Unavailable),
        Reason::CatalogBehind => facts(NoEffect, Code::Unavailable, Repeat, Unavailable),
        // Capacity.
        Reason::Overloaded => facts(NoEffect, Code::ResourceExhausted, Repeat, Unavailable),
        Reason::DiskFull => facts(NoEffect, Code::ResourceExhausted, Repeat, Unavailable),
        Reason::ObjectStoreUnavailable => {
            facts(NoEffect, Code::Unavailable, RepeatIfAsked, Unavailable)
        }
        Reason::DeadlineExceeded => facts(Unknown, Code::DeadlineExceeded, FindLeader, Unavailable),
        Reason::ShuttingDown => facts(NoEffect, Code::Unavailable, FindLeader, Unavailable),
        Reason::Unavailable => facts(Unknown, Code::Unavailable, FindLeader, Unavailable),
        // Remote compaction.
        Reason::HandleNotFound => facts(NoEffect, Code::NotFound, Stop, NotFound),
        Reason::JobNotFound => facts(NoEffect, Code::NotFound, Stop, NotFound),
        Reason::JobExists => facts(NoEffect, Code::AlreadyExists, Stop, Conflict),
        Reason::BadPlan => facts(NoEffect, Code::InvalidArgument, Stop, BadRequest),
        Reason::BadPlugin => facts(NoEffect, Code::InvalidArgument, Stop, BadRequest),
        Reason::InputsGone => facts(NoEffect, Code::Aborted, Stop, Conflict),
        Reason::BelowFloor => facts(NoEffect, Code::Aborted, Stop, Conflict),
        Reason::JobCancelled => facts(NoEffect, Code::Aborted, Stop, Conflict),
        Reason::NoCompactors => facts(NoEffect, Code::Unavailable, Stop, Unavailable),
        Reason::JobTooLarge => facts(NoEffect, Code::ResourceExhausted, Stop, Unavailable),
        // Refreshable tables.
        Reason::TableRefreshable => facts(NoEffect, Code::FailedPrecondition, Stop, BadRequest),
        Reason::EpochRequired => {
            facts(NoEffect, Code::FailedPrecondition, RefreshCatalog, Conflict)
        }
        Reason::NotRefreshable => facts(NoEffect, Code::FailedPrecondition, Stop, BadRequest),
        Reason::AlreadyRefreshing => facts(NoEffect, Code::Aborted, Stop, Conflict),
        Reason::SourceMismatch => facts(NoEffect, Code::FailedPrecondition, Stop, BadRequest),
        Reason::SourceUnreadable => facts(NoEffect, Code::Unavailable, Stop, Unavailable),
        Reason::SourceChanged => facts(NoEffect, Code::Aborted, Stop, Conflict),
        Reason::SourceShrunk => facts(NoEffect, Code::FailedPrecondition, Stop, Conflict),
        Reason::SourceNotFound => facts(NoEffect, Code::NotFound, Stop, NotFound),
        // Collections.
        Reason::Held => facts(NoEffect, Code::FailedPrecondition, Stop, Conflict),
        Reason::HoldNotFound => facts(NoEffect, Code::NotFound, Stop, NotFound),
        Reason::HoldExists => facts(NoEffect, Code::AlreadyExists, Stop, Conflict),
        Reason::InvalidCapabilities => facts(NoEffect, Code::InvalidArgument, Stop, BadRequest),
        Reason::ExportNotFound => facts(NoEffect, Code::NotFound, Stop, NotFound),
        Reason::ExportExists => facts(NoEffect, Code::AlreadyExists, Stop, Conflict),
        Reason::ExportTokenExpired => facts(NoEffect, Code::FailedPrecondition, Stop, Conflict),
        Reason::ExportPrefixInUse => facts(NoEffect, Code::AlreadyExists, Stop, Conflict),
        Reason::ExportTargetUnavailable => facts(NoEffect, Code::Unavailable, Stop, Unavailable),
        Reason::IdentifierMissing => facts(NoEffect, Code::NotFound, Stop, NotFound),
        Reason::IdentifierInvalid => facts(NoEffect, Code::FailedPrecondition, Stop, Conflict),
        Reason::IdentifierReused => facts(NoEffect, Code::AlreadyExists, Stop, Conflict),
        // Faults.
        Reason::Corrupt => facts(Unknown, Code::DataLoss, RepeatFew, Fault),
        Reason::Internal => facts(Unknown, Code::Internal, RepeatFew, Fault),
        Reason::Unsupported => facts(NoEffect, Code::Unimplemented, Stop, BadRequest),
        Reason::FileDamaged => facts(NoEffect, Code::DataLoss, RepeatFew, Fault),
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
mod tests;
