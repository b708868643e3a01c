//! Exit of the command: an error message for people, an exit status for scripts.

mod load;
mod query;

use std::fmt;
use std::io;
use std::process::ExitCode;

use tidewater_client::ClientError;
use tidewater_common::reason::{ErrorClass, facts};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::Reason;

use tidewater_readers::error::LoadError;

/// Exit statuses. Scripts rely on the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// The reader of the output closed the pipe, which is not an error.
    OutputClosed,
    Other,
    /// The command line, a settings file or the request is invalid.
    Usage,
    NotFound,
    Conflict,
    /// A retry may succeed. Also the status of a change with unknown outcome.
    Unavailable,
}

impl Exit {
    fn status(self) -> u8 {
        match self {
            Self::OutputClosed => 0,
            Self::Other => 1,
            Self::Usage => 2,
            Self::NotFound => 3,
            Self::Conflict => 4,
            Self::Unavailable => 5,
        }
    }
}

/// Error of a command: its exit status, and a message with the cause and the remedy.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) message: String,
    /// Reason of the RPC error that caused it.
    reason: Option<Reason>,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), reason: None }
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

    /// Returns the failure of a write to `what`, the output of the command. A closed pipe is not an
    /// error.
    pub(crate) fn writing(what: &str, error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::new(Exit::OutputClosed, "");
        }
        Self::other(format!("cannot write {what}: {error}"))
    }

    /// Returns the reason of the RPC error that caused it; `None`: it has another cause.
    pub(crate) fn reason(&self) -> Option<Reason> {
        self.reason
    }

    /// Adds a line to the message.
    pub(crate) fn with_note(mut self, note: &str) -> Self {
        self.message.push_str("\n  ");
        self.message.push_str(note);
        self
    }

    /// Prints the message on stderr and returns the exit status.
    pub(crate) fn report(&self) -> ExitCode {
        if self.exit != Exit::OutputClosed {
            crate::output::terminal::note(&format!("error: {}", self.message));
        }
        ExitCode::from(self.exit.status())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Returns the exit status for an RPC error.
pub(crate) fn exit_of(reason: Reason) -> Exit {
    match facts(reason).class {
        ErrorClass::Fault => Exit::Other,
        ErrorClass::BadRequest => Exit::Usage,
        ErrorClass::NotFound => Exit::NotFound,
        ErrorClass::Conflict => Exit::Conflict,
        ErrorClass::Unavailable => Exit::Unavailable,
    }
}

/// Returns the remedy of an RPC error, for reasons whose message may lack one.
fn remedy(reason: Reason) -> Option<&'static str> {
    match reason {
        Reason::TableNotFound => Some("`tidewater table list` shows the existing tables"),
        Reason::TableExists => {
            Some("choose another name, or drop it first: `tidewater table drop NAME`")
        }
        Reason::HookNotFound => Some("`tidewater hook list` shows the existing hooks"),
        Reason::HoldNotFound => Some("`tidewater hold list` shows the existing holds"),
        Reason::ExportNotFound => Some("`tidewater export list` shows the existing exports"),
        Reason::HookExists => {
            Some("choose another name, or remove it first: `tidewater hook remove NAME`")
        }
        Reason::VersionGone => Some("start with a snapshot instead: `--from start`"),
        Reason::TableBusy => Some("wait until it completes, then retry"),
        Reason::LoadEnded => Some("load again"),
        Reason::RegionNotFound => Some("`tidewater region list` shows the existing regions"),
        Reason::GroupNotFound | Reason::GroupNotHosted => {
            Some("`tidewater group list` shows the existing groups")
        }
        Reason::NodeNotFound => Some("`tidewater node list` shows the existing nodes"),
        Reason::MemberNotFound => Some("`tidewater meta-member list` shows the existing members"),
        Reason::NoDataNodes => Some("start one: `tidewater data ...`"),
        Reason::NoCompactors => {
            Some("start one: `tidewater compactor ...`, or compact on the data node: --local")
        }
        Reason::JobTooLarge => Some("start a compactor with a larger --memory-limit"),
        Reason::JobNotFound => Some("`tidewater compaction list` shows the existing jobs"),
        Reason::InputsGone | Reason::BelowFloor => Some(
            "the files were compacted, truncated or dropped during the job: retry if files remain",
        ),
        Reason::MembershipBusy | Reason::MembershipStale => {
            Some("check `tidewater meta-member list`, then retry")
        }
        Reason::NotLeader
        | Reason::LeadershipLost
        | Reason::Unavailable
        | Reason::DeadlineExceeded
        | Reason::ShuttingDown
        | Reason::RegionLoading
        | Reason::Overloaded => Some("`tidewater cluster status` shows the problem; then retry"),
        Reason::NotBootstrapped => {
            Some("start exactly one of the meta nodes with --bootstrap, once")
        }
        Reason::DiskFull => Some("free space on the disk of that node"),
        Reason::ObjectStoreUnavailable => Some("check that the object store is reachable"),
        Reason::FileDamaged => {
            Some("restore the object from a backup; `tidewater region files` lists the others")
        }
        Reason::MessageTooLarge => Some("send fewer rows per batch: lower --batch-rows"),
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
        let message = with_remedy(refusal.message, reason);
        Self { reason: Some(reason), ..Self::new(exit_of(reason), message) }
    }
}

/// Returns the exit status of a client error.
fn exit_of_client(error: &ClientError) -> Exit {
    match error {
        ClientError::NoMetaReachable { .. }
        | ClientError::NoRoute(_)
        | ClientError::RegionsUnreported { .. }
        | ClientError::TimedOut { .. } => Exit::Unavailable,
        // The last RPC error concerns one attempt. A script must not conclude from it that a change
        // with unknown outcome was not made.
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
        ClientError::BadInput(_)
        | ClientError::Epoch(_)
        | ClientError::Predicate(_)
        | ClientError::Key(_) => Exit::Usage,
        ClientError::OtherCluster { .. } => Exit::Conflict,
        ClientError::Damaged { .. } | ClientError::Catalog(_) | ClientError::Closed(_) => {
            Exit::Other
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let message = error.to_string();
        let message = match (&error, error.refusal()) {
            // The remedy for the last RPC error does not resolve the unknown outcome.
            (ClientError::OutcomeUnknown { .. } | ClientError::Unknown { .. }, _) => message,
            (_, Some(refusal)) => with_remedy(message, refusal.reason),
            (_, None) => message,
        };
        let reason = error.refusal().map(|refusal| refusal.reason);
        Self { reason, ..Self::new(exit_of_client(&error), message) }
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
            | LoadError::TooManyCells { .. }
            | LoadError::Key { .. }
            | LoadError::RecordTooLong { .. }
            | LoadError::UnclosedQuote { .. }
            | LoadError::Dialect { .. }
            | LoadError::BadZip { .. }
            | LoadError::EmptyZip { .. }
            | LoadError::UnsupportedMember { .. }
            | LoadError::BadCompression { .. }
            | LoadError::BadParquet { .. }
            | LoadError::PageTooLarge { .. }
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
