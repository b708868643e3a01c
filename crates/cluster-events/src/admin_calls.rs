//! Administrative calls that change the cluster or a node, as events ([`AdminCall`]).
//!
//! - *Recorded request* ([`RecordedRequest`]): a request with the name and the subject that its event has.
//! - *Recorded call* ([`RecordedCall`]): a call in progress. Its end records the event, from any node that serves it.
//!
//! Not recorded are calls that read, calls that nodes make by themselves, loads, which procedures record, and calls that
//! another node carries out: that node records them.

mod requests;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tidewater_common::clock::MonotonicClock;
use tidewater_common::quote::cut_at;
use tidewater_common::reason::Effect;
use tidewater_common::refusal::Refusal;
use tidewater_events::EventRecorderRef;
use tidewater_proto::v1::Reason;
use tonic::Request;

use crate::types::AdminCall;

/// Maximum length of a subject and of a cause, in characters.
const MAX_TEXT: usize = 500;

/// Maximum length of a request id, in characters: that of a UUID, and room for an invalid one.
const MAX_REQUEST_ID: usize = 50;

/// Request of an administrative call that changes something.
pub trait RecordedRequest {
    /// Name of the call.
    const CALL: &'static str;

    /// Subject of the call, e.g. the name of a table.
    fn subject(&self) -> Option<String>;

    /// Id that the client gives to all attempts of the call; `None` or empty: the request has none.
    fn request_id(&self) -> Option<&str> {
        None
    }
}

/// Recorder of administrative calls.
#[derive(Debug, Clone)]
pub struct RecordedCalls {
    recorder: EventRecorderRef,
    clock: Arc<dyn MonotonicClock>,
}

impl RecordedCalls {
    /// Creates the recorder of a node. `clock`: measures the calls.
    pub fn new(recorder: EventRecorderRef, clock: Arc<dyn MonotonicClock>) -> Self {
        Self { recorder, clock }
    }

    /// Recorder of this node.
    pub fn recorder(&self) -> &EventRecorderRef {
        &self.recorder
    }

    /// Begins to record a call.
    pub fn begin<T: RecordedRequest>(&self, request: &Request<T>) -> RecordedCall {
        let caller = request.remote_addr();
        let request = request.get_ref();
        let request_id = request.request_id().filter(|id| !id.is_empty());
        RecordedCall {
            recorder: Arc::clone(&self.recorder),
            clock: Arc::clone(&self.clock),
            call: T::CALL,
            caller: caller.map_or_else(|| "unknown".to_owned(), |caller| caller.to_string()),
            subject: request.subject(),
            request_id: request_id.map(|id| cut_at(id, MAX_REQUEST_ID).into_owned()),
            begun: self.clock.elapsed(),
            is_open: true,
        }
    }
}

/// A call in progress. Without an end, its outcome is unknown: the caller has disconnected, or its time is over.
#[must_use]
pub struct RecordedCall {
    recorder: EventRecorderRef,
    clock: Arc<dyn MonotonicClock>,
    call: &'static str,
    caller: String,
    subject: Option<String>,
    request_id: Option<String>,
    begun: Duration,
    is_open: bool,
}

impl RecordedCall {
    /// Adds the address of the node to the subject, for a request that does not identify it.
    pub fn at_node(mut self, address: &str) -> Self {
        self.subject = Some(match self.subject.take() {
            Some(subject) => format!("{subject} at {address}"),
            None => address.to_owned(),
        });
        self
    }

    /// Records the end of the call, and returns its result.
    ///
    /// # Errors
    /// The error of the call.
    pub fn end<T>(mut self, result: Result<T, Refusal>) -> Result<T, Refusal> {
        match outcome(result.as_ref().err()) {
            Some(outcome) => {
                self.record(outcome, result.as_ref().err().map(|error| error.message.as_str()));
            }
            None => self.forget(),
        }
        result
    }

    /// Records nothing about the call: it changes nothing, or a node makes it by itself.
    pub fn forget(&mut self) {
        self.is_open = false;
    }

    fn record(&mut self, outcome: &str, cause: Option<&str>) {
        if !std::mem::replace(&mut self.is_open, false) {
            return;
        }
        let took = self.clock.elapsed().saturating_sub(self.begun);
        let event = AdminCall {
            call: self.call.to_owned(),
            caller: std::mem::take(&mut self.caller),
            subject: self.subject.take().map(|subject| cut_at(&subject, MAX_TEXT).into_owned()),
            outcome: outcome.to_owned(),
            cause: cause.map(|cause| cut_at(cause, MAX_TEXT).into_owned()),
            duration_ms: u64::try_from(took.as_millis()).ok(),
            request_id: self.request_id.take(),
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

/// Returns the outcome of a call; `None`: this node has not carried it out, and another one may do so.
fn outcome(error: Option<&Refusal>) -> Option<&'static str> {
    let Some(error) = error else { return Some("completed") };
    match (error.reason, error.effect()) {
        (Reason::NotLeader | Reason::NotBootstrapped, _) => None,
        // Clients follow the route of the region.
        (Reason::GroupNotHosted | Reason::RouteMoved, _) => None,
        // Clients cancel the job at one node after the other.
        (Reason::JobNotFound, _) => None,
        (_, Effect::Unknown) => Some("unknown"),
        (_, Effect::None) => Some("failed"),
    }
}
