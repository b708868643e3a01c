//! Recorders of events.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use crate::event::Event;
use crate::receipt::{Receipt, RecordOutcome};

/// Records events.
#[async_trait]
pub trait EventRecorder: fmt::Debug + Send + Sync + 'static {
    /// Records an event. Returns without waiting; the receipt may be ignored.
    fn record(&self, event: &dyn Event) -> Receipt;

    /// Returns whether the process records events. If it does not, all of them are filtered.
    fn is_recording(&self) -> bool {
        true
    }

    /// Refuses later events and waits, for a limited time, until the earlier ones are persisted. Those that are left are
    /// persisted after the next start.
    async fn close(&self);
}

/// A shared recorder.
pub type EventRecorderRef = Arc<dyn EventRecorder>;

/// Recorder that filters all events.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoRecorder;

#[async_trait]
impl EventRecorder for NoRecorder {
    fn record(&self, _event: &dyn Event) -> Receipt {
        Receipt::known(RecordOutcome::Filtered)
    }

    fn is_recording(&self) -> bool {
        false
    }

    async fn close(&self) {}
}
