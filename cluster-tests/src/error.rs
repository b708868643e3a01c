//! Why a scenario could not go on.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use tidewater_common::refusal::Refusal;

/// Why a scenario could not go on.
#[derive(thiserror::Error)]
pub enum HarnessError {
    /// There is nothing to test.
    #[error(
        "no tidewater binary at {path}: build it (cargo build -p tidewater-cli) or set TIDEWATER_BIN"
    )]
    BinaryMissing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// A helper of the tests is not installed.
    #[error("{what}")]
    Missing {
        /// What is missing and what to do.
        what: String,
    },
    /// A file, folder, socket or process could not be used.
    #[error("{what}: {source}")]
    Io {
        /// What was attempted on what.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A server process ended though it should run.
    #[error("{node} exited ({status}); its log {log} ends with:\n{tail}")]
    Exited {
        /// The node's name.
        node: String,
        /// How it ended.
        status: String,
        /// The node's log file.
        log: PathBuf,
        /// The last lines of the log.
        tail: String,
    },
    /// A server process did not say `ready` in time.
    #[error("{node} was not ready within {limit:?}; its log {log} ends with:\n{tail}")]
    NotReady {
        /// The node's name.
        node: String,
        /// How long it was waited for.
        limit: Duration,
        /// The node's log file.
        log: PathBuf,
        /// The last lines of the log.
        tail: String,
    },
    /// A condition did not become true in time.
    #[error("not within {limit:?}: {what}; last seen: {last}")]
    Timeout {
        /// The condition.
        what: String,
        /// How long it was waited for.
        limit: Duration,
        /// Why it was not true when last tried.
        last: String,
    },
    /// A client command ended otherwise than it should.
    #[error(
        "tidewater {command}\nended with {status}, expected {expected}\nstdout: {stdout}\nstderr: {stderr}"
    )]
    Command {
        /// The arguments.
        command: String,
        /// Its exit status.
        status: String,
        /// What the scenario expected.
        expected: String,
        /// What it wrote to stdout.
        stdout: String,
        /// What it wrote to stderr.
        stderr: String,
    },
    /// A call was refused.
    #[error("{what}: {refusal:?}")]
    Refused {
        /// The call.
        what: String,
        /// Why.
        refusal: Refusal,
    },
    /// What was seen contradicts what must hold.
    #[error("{0}")]
    Violated(String),
}

/// As for people: this is what a failed test prints.
impl fmt::Debug for HarnessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl HarnessError {
    /// Names the attempt that a system error belongs to.
    pub fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    /// Names the call that was refused.
    pub fn refused(what: impl Into<String>) -> impl FnOnce(tonic::Status) -> Self {
        let what = what.into();
        move |status| Self::Refused { what, refusal: Refusal::from(status) }
    }

    /// A contradiction, in a sentence.
    pub fn violated(what: impl Into<String>) -> Self {
        Self::Violated(what.into())
    }
}
