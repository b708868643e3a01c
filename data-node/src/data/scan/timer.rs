//! Time that a scan takes on this node.

use std::sync::Arc;
use std::time::Duration;

use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::Reason;
use tidewater_region_engine::layout::RegionDir;

use crate::node_events::{NodeEvents, Operation, Room};

/// Timer of a scan, paused while the scan waits for its reader. When it is dropped, the scan is recorded if it was slow,
/// also after its reader has disconnected.
#[derive(Debug)]
pub(super) struct ScanTimer {
    events: Arc<NodeEvents>,
    region: RegionDir,
    /// Time until the last pause.
    worked: Duration,
    /// Start, or end of the last pause; `None`: the timer is paused.
    running_since: Option<Duration>,
}

impl ScanTimer {
    /// Starts the timer of a scan of a region.
    pub(super) fn start(events: Arc<NodeEvents>, region: RegionDir) -> Self {
        let running_since = Some(events.now());
        Self { events, region, worked: Duration::ZERO, running_since }
    }

    /// Continues after a pause.
    pub(super) fn resume(&mut self) {
        self.running_since = self.running_since.or_else(|| Some(self.events.now()));
    }

    /// Pauses the timer.
    pub(super) fn pause(&mut self) {
        if let Some(since) = self.running_since.take() {
            self.worked += self.events.now().saturating_sub(since);
        }
    }

    /// Counts a refusal of an admitted scan if it is for lack of memory, and returns it.
    pub(super) fn count_refusal(&self, refusal: Refusal) -> Refusal {
        // The number of open scans was checked before.
        if refusal.reason == Reason::Overloaded {
            self.events.count_refusal(Room::Memory, Some(self.region), &refusal.message);
        }
        refusal
    }
}

impl Drop for ScanTimer {
    fn drop(&mut self) {
        self.pause();
        self.events.record_duration(Operation::Scan, self.worked, || Some(self.region));
    }
}

#[cfg(test)]
mod tests {
    use tidewater_common::ids::{Incarnation, NodeId, RegionId, TableId};
    use tidewater_events::testing::CollectingRecorder;

    use super::*;
    use crate::node_events::testing::{ManualClock, events_with};

    const REGION: RegionDir =
        RegionDir { table_id: TableId(3), region_id: RegionId(7), incarnation: Incarnation(1) };

    impl ScanTimer {
        /// Starts the timer of a scan that is not recorded.
        pub(in crate::data::scan) fn unrecorded() -> Self {
            Self::start(NodeEvents::none(NodeId(1)), REGION)
        }
    }

    #[test]
    fn wait_for_the_reader_is_not_counted() {
        let clock = Arc::new(ManualClock::default());
        let recorder = Arc::new(CollectingRecorder::default());
        let events = events_with(recorder.clone(), clock.clone(), Duration::from_secs(1));
        for (worked, waited, recorded) in [(500, 9_000, 0), (501, 0, 1)] {
            let mut timer = ScanTimer::start(events.clone(), REGION);
            clock.advance(Duration::from_millis(worked));
            timer.pause();
            clock.advance(Duration::from_millis(waited));
            timer.resume();
            clock.advance(Duration::from_millis(400));
            timer.resume();
            clock.advance(Duration::from_millis(100));
            drop(timer);
            assert_eq!(recorder.types(), vec!["slow_operation"; recorded], "{worked} ms");
        }
    }
}
