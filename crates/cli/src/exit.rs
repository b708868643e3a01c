//! How the command ends: one message for people, one status for scripts.

use std::fmt;
use std::io;
use std::process::ExitCode;

use tidewater_client::ClientError;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::Reason;

use crate::load::error::LoadError;

/// Exit statuses. Scripts rely on the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Whoever read our output has read enough; that is no failure.
    Enough,
    Other,
    /// The command line or a settings file is wrong, or what was asked for cannot be.
    Usage,
    NotFound,
    Conflict,
    /// Try again later; also of a change that may have been made, or may still be.
    Unavailable,
}

impl Exit {
    fn status(self) -> u8 {
        match self {
            Self::Enough => 0,
            Self::Other => 1,
            Self::Usage => 2,
            Self::NotFound => 3,
            Self::Conflict => 4,
            Self::Unavailable => 5,
        }
    }
}

/// Why a command did not do what was asked, and what to do.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }

    pub(crate) fn other(message: impl Into<String>) -> Self {
        Self::new(Exit::Other, message)
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(Exit::NotFound, message)
    }

    /// Of an attempt to write the command's output.
    pub(crate) fn writing(what: &str, error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::new(Exit::Enough, "");
        }
        Self::other(format!("{what} cannot be written: {error}"))
    }

    /// Says so on stderr and gives the status.
    pub(crate) fn report(&self) -> ExitCode {
        if self.exit != Exit::Enough {
            eprintln!("error: {}", self.message);
        }
        ExitCode::from(self.exit.status())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// The status that a refusal ends with.
///
/// No wildcard: a new reason compiles only once somebody has decided.
pub(crate) fn exit_of(reason: Reason) -> Exit {
    match reason {
        Reason::InvalidArgument
        | Reason::SchemaMismatch
        | Reason::MessageTooLarge
        | Reason::KeyOutsideRegion
        | Reason::BadPlan
        | Reason::BadPlugin
        | Reason::Unsupported => Exit::Usage,
        Reason::TableNotFound
        | Reason::GroupNotHosted
        | Reason::RegionNotFound
        | Reason::NodeNotFound
        | Reason::MemberNotFound
        | Reason::GroupNotFound
        | Reason::VersionGone
        | Reason::HookNotFound
        | Reason::HandleNotFound
        | Reason::JobNotFound => Exit::NotFound,
        Reason::TableExists
        | Reason::MemberExists
        | Reason::HookExists
        | Reason::WrongCluster
        | Reason::WrongNode
        | Reason::NodeRemoved
        | Reason::RoleMismatch
        | Reason::ObjectStoreMismatch
        | Reason::PeersMismatch
        | Reason::AlreadyBootstrapped
        | Reason::RouteWriteFenced
        | Reason::RouteMoved
        | Reason::RegionFenced
        | Reason::ProducerForgotten
        | Reason::SerialOutOfOrder
        | Reason::MembershipBusy
        | Reason::MembershipStale
        | Reason::CatalogVersionMismatch
        | Reason::TableBusy
        | Reason::LoadEnded
        | Reason::JobExists
        | Reason::InputsGone
        | Reason::BelowFloor
        | Reason::JobCancelled
        | Reason::SchemaVersionBehind
        | Reason::SchemaVersionStale => Exit::Conflict,
        Reason::NotLeader
        | Reason::LeadershipLost
        | Reason::NotBootstrapped
        | Reason::RegionLoading
        | Reason::NoDataNodes
        | Reason::NoCompactors
        | Reason::JobTooLarge
        | Reason::Overloaded
        | Reason::DiskFull
        | Reason::ObjectStoreUnavailable
        | Reason::DeadlineExceeded
        | Reason::ShuttingDown
        | Reason::Unavailable => Exit::Unavailable,
        Reason::Unspecified | Reason::Corrupt | Reason::Internal => Exit::Other,
    }
}

/// What to do about a refusal, where its own message may not say.
fn remedy(reason: Reason) -> Option<&'static str> {
    match reason {
        Reason::TableNotFound => Some("`tidewater table list` shows the tables there are"),
        Reason::TableExists => {
            Some("choose another name, or drop it first: `tidewater table drop NAME`")
        }
        Reason::HookNotFound => Some("`tidewater hook list` shows the hooks there are"),
        Reason::HookExists => {
            Some("choose another name, or remove it first: `tidewater hook remove NAME`")
        }
        Reason::VersionGone => Some("begin with a snapshot instead: `--from start`"),
        Reason::TableBusy => Some("wait until it is done, then try again"),
        Reason::LoadEnded => Some("load again"),
        Reason::RegionNotFound => Some("`tidewater region list` shows the regions there are"),
        Reason::GroupNotFound | Reason::GroupNotHosted => {
            Some("`tidewater group list` shows the groups there are")
        }
        Reason::NodeNotFound => Some("`tidewater node list` shows the nodes there are"),
        Reason::MemberNotFound => Some("`tidewater meta-member list` shows the members there are"),
        Reason::NoDataNodes => Some("start one: `tidewater data ...`"),
        Reason::NoCompactors => {
            Some("start one: `tidewater compactor ...`, or let the data node do it: --local")
        }
        Reason::JobTooLarge => Some("give a compactor a larger --memory-limit"),
        Reason::JobNotFound => Some("`tidewater compaction list` shows the jobs there are"),
        Reason::InputsGone | Reason::BelowFloor => Some(
            "its files were merged, truncated or dropped meanwhile: try again if some are left",
        ),
        Reason::MembershipBusy | Reason::MembershipStale => {
            Some("look at `tidewater meta-member list`, then try again")
        }
        Reason::NotLeader
        | Reason::LeadershipLost
        | Reason::Unavailable
        | Reason::DeadlineExceeded
        | Reason::ShuttingDown
        | Reason::RegionLoading
        | Reason::Overloaded => Some("`tidewater cluster status` shows what is wrong; try again"),
        Reason::NotBootstrapped => {
            Some("start exactly one of the meta nodes with --bootstrap, once")
        }
        Reason::DiskFull => Some("make room on the disk of the node named"),
        Reason::ObjectStoreUnavailable => Some("check that the object store can be reached"),
        Reason::MessageTooLarge => Some("send fewer rows at once: lower --batch-rows"),
        _ => None,
    }
}

fn with_remedy(message: String, reason: Reason) -> String {
    match remedy(reason) {
        Some(remedy) => format!("{message}\n  {remedy}"),
        None => message,
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let reason = refusal.reason;
        Self::new(exit_of(reason), with_remedy(refusal.message, reason))
    }
}

/// The status that an error of the client ends with.
fn exit_of_client(error: &ClientError) -> Exit {
    match error {
        ClientError::NoMetaReachable { .. }
        | ClientError::NoRoute(_)
        | ClientError::TimedOut { .. } => Exit::Unavailable,
        // The last answer is about one attempt: a script must not read of a change that may have been
        // made that there was nothing to change.
        ClientError::OutcomeUnknown { .. } | ClientError::Unknown { .. } => Exit::Unavailable,
        ClientError::Refused { refusal, .. } => exit_of(refusal.reason),
        ClientError::RetriesExhausted { cause, .. }
        | ClientError::Failed { cause, .. }
        | ClientError::Partial { cause, .. }
        | ClientError::ScanInterrupted { cause, .. } => exit_of(cause.reason),
        ClientError::TableNotFound(_)
        | ClientError::RegionNotFound(_)
        | ClientError::NodeNotFound(_)
        | ClientError::ColumnNotFound { .. } => Exit::NotFound,
        ClientError::BadInput(_) | ClientError::Predicate(_) | ClientError::Key(_) => Exit::Usage,
        ClientError::ClusterChanged { .. } => Exit::Conflict,
        ClientError::Damaged { .. } | ClientError::Catalog(_) | ClientError::Closed(_) => {
            Exit::Other
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let message = error.to_string();
        let message = match (&error, error.refusal()) {
            // What helps against the last refusal does not end the doubt.
            (ClientError::OutcomeUnknown { .. } | ClientError::Unknown { .. }, _) => message,
            (_, Some(refusal)) => with_remedy(message, refusal.reason),
            (_, None) => message,
        };
        Self::new(exit_of_client(&error), message)
    }
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Self {
        let exit = match &error {
            LoadError::NotFound { .. } => Exit::NotFound,
            LoadError::Directory { .. }
            | LoadError::Empty { .. }
            | LoadError::NoHeader { .. }
            | LoadError::MissingColumns { .. }
            | LoadError::ExtraColumns { .. }
            | LoadError::DuplicateColumn { .. }
            | LoadError::HeaderNotUtf8 { .. }
            | LoadError::RecordTooLong { .. }
            | LoadError::BadZip { .. }
            | LoadError::EmptyZip { .. }
            | LoadError::UnsupportedMember { .. }
            | LoadError::BadCompression { .. }
            | LoadError::BadParquet { .. }
            | LoadError::ColumnType { .. }
            | LoadError::Row(_)
            | LoadError::TooManyBad { .. } => Exit::Other,
            LoadError::Read { .. } | LoadError::Batch { .. } | LoadError::ReaderStopped => {
                Exit::Other
            }
        };
        Self::new(exit, error.to_string())
    }
}

#[cfg(test)]
#[path = "exit_tests.rs"]
mod tests;
