//! Administrative calls that change the cluster, as events.
//!
//! Not recorded are calls that read, calls that nodes make by themselves, loads, which procedures record, and calls that this
//! node has redirected to the leader, which records them.

mod requests;

use std::fmt;
use std::sync::Arc;

use tidewater_cluster_events::types::AdminCall;
use tidewater_common::quote::cut_at;
use tidewater_common::reason::Effect;
use tidewater_common::refusal::Refusal;
use tidewater_events::{EventRecorderRef, NoRecorder};
use tidewater_proto::v1::Reason;
use tokio::time::Instant;
use tonic::Request;

/// Maximum length of a subject and of a cause, in characters.
const MAX_TEXT: usize = 500;

/// Request of an administrative call that changes the cluster.
pub(super) trait RecordedRequest {
    /// Name of the call.
    const CALL: &'static str;

    /// Subject of the call, e.g. the name of a table.
    fn subject(&self) -> Option<String>;

    /// Returns whether a node makes the call by itself, to write its events. Such a call is not recorded: while it fails, it
    /// would make an event for each attempt.
    fn is_of_node(&self) -> bool {
        false
    }
}

/// Recorder of administrative calls.
#[derive(Debug, Clone)]
pub(crate) struct RecordedCalls {
    recorder: EventRecorderRef,
}

impl RecordedCalls {
    pub(crate) fn new(recorder: &EventRecorderRef) -> Self {
        Self { recorder: Arc::clone(recorder) }
    }

    /// Recorder of this node.
    pub(super) fn recorder(&self) -> &EventRecorderRef {
        &self.recorder
    }

    /// Begins to record a call.
    pub(super) fn begin<T: RecordedRequest>(&self, request: &Request<T>) -> RecordedCall {
        let caller = request.remote_addr();
        let subject = request.get_ref().subject();
        let recorder: EventRecorderRef = if request.get_ref().is_of_node() {
            Arc::new(NoRecorder)
        } else {
            Arc::clone(&self.recorder)
        };
        RecordedCall {
            recorder,
            call: T::CALL,
            caller: caller.map_or_else(|| "unknown".to_owned(), |caller| caller.to_string()),
            subject: subject.map(|subject| cut_at(&subject, MAX_TEXT).into_owned()),
            begun: Instant::now(),
            is_open: true,
        }
    }
}

/// A call in progress. Without an end, its outcome is unknown: the caller has disconnected, or its time is over.
#[must_use]
pub(super) struct RecordedCall {
    recorder: EventRecorderRef,
    call: &'static str,
    caller: String,
    subject: Option<String>,
    begun: Instant,
    is_open: bool,
}

impl RecordedCall {
    /// Records the end of the call, and returns its result.
    ///
    /// # Errors
    /// The error of the call.
    pub(super) fn end<T>(mut self, result: Result<T, Refusal>) -> Result<T, Refusal> {
        match outcome(result.as_ref().err()) {
            Some(outcome) => {
                self.record(outcome, result.as_ref().err().map(|error| error.message.as_str()));
            }
            None => self.forget(),
        }
        result
    }

    /// Records nothing about the call: it changes nothing.
    pub(super) fn forget(&mut self) {
        self.is_open = false;
    }

    fn record(&mut self, outcome: &str, cause: Option<&str>) {
        if !std::mem::replace(&mut self.is_open, false) {
            return;
        }
        let event = AdminCall {
            call: self.call.to_owned(),
            caller: std::mem::take(&mut self.caller),
            subject: self.subject.take(),
            outcome: outcome.to_owned(),
            cause: cause.map(|cause| cut_at(cause, MAX_TEXT).into_owned()),
            duration_ms: u64::try_from(self.begun.elapsed().as_millis()).ok(),
        };
        drop(self.recorder.record(&event));
    }
}

impl Drop for RecordedCall {
    fn drop(&mut self) {
        self.record("unknown", Some("the call was ended before its answer"));
    }
}

impl fmt::Debug for RecordedCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordedCall").field("call", &self.call).finish_non_exhaustive()
    }
}

/// Returns the outcome of a call; `None`: this node has not carried it out.
fn outcome(error: Option<&Refusal>) -> Option<&'static str> {
    let Some(error) = error else { return Some("completed") };
    match (error.reason, error.effect()) {
        (Reason::NotLeader | Reason::NotBootstrapped, _) => None,
        (_, Effect::Unknown) => Some("unknown"),
        (_, Effect::None) => Some("failed"),
    }
}

#[cfg(test)]
mod tests;
