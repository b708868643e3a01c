//! Errors of scenarios.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use tidewater_common::refusal::Refusal;

/// Error that ends a scenario.
#[derive(thiserror::Error)]
pub enum HarnessError {
    /// The binary under test does not exist.
    #[error(
        "no tidewater binary at {path}: build it (cargo build -p tidewater-cli) or set TIDEWATER_BIN"
    )]
    BinaryMissing {
        /// Expected path of the binary.
        path: PathBuf,
    },
    /// A helper of the tests is not installed.
    #[error("{what}")]
    Missing {
        /// The missing helper and the remedy.
        what: String,
    },
    /// An operation on a file, directory, socket or process failed.
    #[error("{what}: {source}")]
    Io {
        /// The operation and its object.
        what: String,
        /// Error of the system.
        source: std::io::Error,
    },
    /// A server process exited unexpectedly.
    #[error("{node} exited ({status}); its log {log} ends with:\n{tail}")]
    Exited {
        /// Name of the node.
        node: String,
        /// Exit status.
        status: String,
        /// Log file of the node.
        log: PathBuf,
        /// Last lines of the log.
        tail: String,
    },
    /// A server process did not print `ready` in time.
    #[error("{node} was not ready within {limit:?}; its log {log} ends with:\n{tail}")]
    NotReady {
        /// Name of the node.
        node: String,
        /// Time limit.
        limit: Duration,
        /// Log file of the node.
        log: PathBuf,
        /// Last lines of the log.
        tail: String,
    },
    /// A condition did not become true in time.
    #[error("not within {limit:?}: {what}; last seen: {last}")]
    Timeout {
        /// The condition.
        what: String,
        /// Time limit.
        limit: Duration,
        /// Reason why the condition was false in the last attempt.
        last: String,
    },
    /// A client command did not have the expected result.
    #[error(
        "tidewater {command}\nexited with {status}, expected {expected}\nstdout: {stdout}\nstderr: {stderr}"
    )]
    Command {
        /// Arguments of the command.
        command: String,
        /// Exit status.
        status: String,
        /// Expected result.
        expected: String,
        /// Standard output.
        stdout: String,
        /// Standard error.
        stderr: String,
    },
    /// A call returned an RPC error.
    #[error("{what}: {refusal:?}")]
    Refused {
        /// The call.
        what: String,
        /// The RPC error.
        refusal: Refusal,
    },
    /// An observation contradicts the expected behaviour.
    #[error("{0}")]
    Violated(String),
}

/// The same text as `Display`, because a failed test prints the debug form.
impl fmt::Debug for HarnessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl HarnessError {
    /// Adds the attempted operation to a system error.
    pub fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    /// Adds the call to an RPC error.
    pub fn refused(what: impl Into<String>) -> impl FnOnce(tonic::Status) -> Self {
        let what = what.into();
        move |status| Self::Refused { what, refusal: Refusal::from(status) }
    }

    /// Creates an error that describes a violated expectation.
    pub fn violated(what: impl Into<String>) -> Self {
        Self::Violated(what.into())
    }
}
