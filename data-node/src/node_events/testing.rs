//! Events of the tests of this crate.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidewater_common::clock::MonotonicClock;
use tidewater_common::ids::NodeId;
use tidewater_events::EventRecorderRef;
use tidewater_hook_kinds::EventTables;

use super::NodeEvents;

/// Clock that is advanced by tests.
#[derive(Debug, Default)]
pub(crate) struct ManualClock(Mutex<Duration>);

impl ManualClock {
    pub(crate) fn advance(&self, by: Duration) {
        *self.0.lock() += by;
    }
}

impl MonotonicClock for ManualClock {
    fn elapsed(&self) -> Duration {
        *self.0.lock()
    }
}

/// Creates the events of node 101 with this limit of slow operations.
pub(crate) fn events_with(
    recorder: EventRecorderRef,
    clock: Arc<ManualClock>,
    slow_operation: Duration,
) -> Arc<NodeEvents> {
    NodeEvents::new(NodeId(101), recorder, EventTables::default(), slow_operation, clock)
}
