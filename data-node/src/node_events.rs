//! Events that a data node records: new leaders, quarantined compactions, hooks that are suspended or lag, slow operations
//! (also those of its jobs on compactors that record no events), and refusals for lack of room.
//!
//! Nothing is recorded about a table that holds events, since each event would lead to the next. Leader changes are
//! recorded for all groups.
//!
//! - `rate`: limit of the rate of events (pure). `room`:
//!   refusals for lack of room, summed (pure). `operation`: names of operations.

mod operation;
mod rate;
mod room;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidewater_cluster_events::RecordedCalls;
use tidewater_cluster_events::types::{
    CompactionQuarantined, HookLagging, HookSuspended, LeaderChanged, RoomRefused, SlowOperation,
};
use tidewater_common::clock::{MonotonicClock, SystemClock};
use tidewater_common::ids::{GroupId, JobId, NodeId, TableId};
use tidewater_common::quote::cut_at;
use tidewater_events::{EventRecorderRef, NoRecorder};
use tidewater_hook_kinds::{EventTables, HookVersion};
use tidewater_proto::v1::{self, watch_event};
use tidewater_raft_store::LeaderChange;
use tidewater_region_engine::hooks::SuspensionCallback;
use tidewater_region_engine::layout::RegionDir;

pub(crate) use self::operation::Operation;
use self::rate::EventRate;
pub(crate) use self::room::Room;
use self::room::{RefusalSum, RoomRefusals};
use crate::meters;

/// Most events of slow operations in a second.
const SLOW_PER_SECOND: u32 = 10;
/// Longest text of a reason, in characters.
const MAX_CAUSE: usize = 400;

/// Records the events of a node.
#[derive(Debug)]
pub struct NodeEvents {
    node: NodeId,
    recorder: EventRecorderRef,
    event_tables: EventTables,
    /// Duration above which an operation is slow; zero: none is.
    slow_operation: Duration,
    clock: Arc<dyn MonotonicClock>,
    slow_rate: Mutex<EventRate>,
    refusals: Mutex<RoomRefusals>,
}

impl NodeEvents {
    /// Creates the events of a node. Operations that take longer than `slow_operation` are recorded; zero: none.
    pub fn new(
        node: NodeId,
        recorder: EventRecorderRef,
        event_tables: EventTables,
        slow_operation: Duration,
        clock: Arc<dyn MonotonicClock>,
    ) -> Arc<Self> {
        Arc::new(Self {
            node,
            recorder,
            event_tables,
            slow_operation,
            clock,
            slow_rate: Mutex::new(EventRate::per_second(SLOW_PER_SECOND)),
            refusals: Mutex::default(),
        })
    }

    /// Creates the events of a node that records none.
    pub fn none(node: NodeId) -> Arc<Self> {
        let clock = Arc::new(SystemClock);
        Self::new(node, Arc::new(NoRecorder), EventTables::default(), Duration::ZERO, clock)
    }

    /// Returns the tables that hold events: those of the catalog, and of the regions that the node has.
    pub fn event_tables(&self) -> &EventTables {
        &self.event_tables
    }

    /// Applies an event of the catalog watch: tables that hold events are known before their hooks are called.
    pub fn follow(&self, event: &watch_event::Event) {
        let tables = match event {
            watch_event::Event::Snapshot(snapshot) => &snapshot.tables,
            watch_event::Event::Delta(delta) => &delta.table_upserts,
            watch_event::Event::CurrentRevision(_) => return,
        };
        let holds_events =
            |table: &&v1::Table| table.options.as_ref().is_some_and(|options| options.holds_events);
        for table in tables.iter().filter(holds_events) {
            self.event_tables.add(TableId(table.table_id));
        }
    }

    /// Returns the recorder of administrative calls that this node answers.
    pub(crate) fn admin_calls(&self) -> RecordedCalls {
        RecordedCalls::new(Arc::clone(&self.recorder), Arc::clone(&self.clock))
    }

    /// Returns the time by which durations are measured.
    pub(crate) fn now(&self) -> Duration {
        self.clock.elapsed()
    }

    /// Records that this node leads a group.
    pub(crate) fn record_leader_change(&self, group: GroupId, change: LeaderChange) {
        self.recorder.record(&LeaderChanged {
            group_id: group.get(),
            node_id: self.node.get(),
            former_node_id: change.former.map(NodeId::get),
            term: change.term.get(),
            cause: Some(change.cause.as_str().to_owned()),
        });
    }

    /// Records that a compaction is quarantined after a number of failed attempts.
    pub(crate) fn record_quarantine(
        &self,
        region: RegionDir,
        job: JobId,
        attempts: u32,
        cause: &str,
    ) {
        if self.holds_events(region) {
            return;
        }
        self.recorder.record(&CompactionQuarantined {
            node_id: self.node.get(),
            table_id: u64::from(region.table_id.get()),
            region_id: region.region_id.get(),
            job_id: Some(job.to_string()),
            attempts: u64::from(attempts),
            cause: cut_at(cause, MAX_CAUSE).into_owned(),
        });
    }

    /// Records that a durable hook lags. `pending`: undelivered versions of the region's manifest; `cause`: the error of
    /// the last delivery; `begin`: the version with which the lag began, if it is known: the table has the event of the
    /// lag once then, with the cause of the first leader that records it.
    pub(crate) fn record_lagging_hook(
        &self,
        region: RegionDir,
        hook: &str,
        pending: u64,
        cause: Option<&str>,
        begin: Option<HookVersion<'_>>,
    ) {
        if self.holds_events(region) {
            return;
        }
        let lagging = HookLagging {
            node_id: begin.is_none().then_some(self.node.get()),
            table_id: u64::from(region.table_id.get()),
            region_id: region.region_id.get(),
            hook: hook.to_owned(),
            pending,
            cause: cause.map(|cause| cut_at(cause, MAX_CAUSE).into_owned()),
        };
        match begin {
            Some(begin) => self.recorder.record(&begin.shared(Box::new(lagging))),
            None => self.recorder.record(&lagging),
        };
    }

    /// Records an operation that began at a time of [`now`](Self::now), if it was slow.
    pub(crate) fn record_if_slow(
        &self,
        operation: Operation,
        begun: Duration,
        region: impl FnOnce() -> Option<RegionDir>,
    ) {
        self.record_duration(operation, self.now().saturating_sub(begun), region);
    }

    /// Records an operation of this duration, if it was slow. `region` is called only then; an operation on a region that the
    /// node does not know is not recorded.
    pub(crate) fn record_duration(
        &self,
        operation: Operation,
        took: Duration,
        region: impl FnOnce() -> Option<RegionDir>,
    ) {
        if took <= self.slow_operation || self.slow_operation.is_zero() {
            return;
        }
        let Some(region) = region().filter(|region| !self.holds_events(*region)) else { return };
        meters::count_slow_operation(operation.as_str());
        let is_due = self.slow_rate.lock().take(self.clock.elapsed());
        if !is_due {
            return;
        }
        self.recorder.record(&SlowOperation {
            node_id: self.node.get(),
            node_kind: "data".to_owned(),
            operation: operation.as_str().to_owned(),
            table_id: Some(u64::from(region.table_id.get())),
            region_id: Some(region.region_id.get()),
            duration_ms: Some(millis(took)),
            limit_ms: millis(self.slow_operation),
        });
    }

    /// Records a compaction that began on a compactor at a time of [`now`](Self::now), if it took at least the compactor's
    /// limit. The compactor records no events itself.
    pub(crate) fn record_if_slow_on(
        &self,
        compactor: NodeId,
        region: RegionDir,
        begun: Duration,
        limit: Duration,
    ) {
        let took = self.now().saturating_sub(begun);
        if took < limit || self.holds_events(region) {
            return;
        }
        self.recorder.record(&SlowOperation {
            node_id: compactor.get(),
            node_kind: "compactor".to_owned(),
            operation: Operation::Compaction.as_str().to_owned(),
            table_id: Some(u64::from(region.table_id.get())),
            region_id: Some(region.region_id.get()),
            duration_ms: Some(millis(took)),
            limit_ms: millis(limit),
        });
    }

    /// Counts a request that was refused for lack of room, and records the sum if it is due. `region`: its region, if the
    /// node has it.
    pub(crate) fn count_refusal(&self, room: Room, region: Option<RegionDir>, cause: &str) {
        if region.is_some_and(|region| self.holds_events(region)) {
            return;
        }
        let now = self.now();
        let sum = {
            let mut refusals = self.refusals.lock();
            refusals.count(room, &cut_at(cause, MAX_CAUSE));
            refusals.take_due(room, now)
        };
        if let Some(sum) = sum {
            self.record_refusals(room, sum);
        }
    }

    /// Records the sums of refusals that are due. Called regularly, so that the last refusals are recorded, too.
    pub(crate) fn record_due_refusals(&self) {
        let now = self.now();
        for room in Room::ALL {
            let sum = self.refusals.lock().take_due(room, now);
            if let Some(sum) = sum {
                self.record_refusals(room, sum);
            }
        }
    }

    fn record_refusals(&self, room: Room, sum: RefusalSum) {
        self.recorder.record(&RoomRefused {
            node_id: self.node.get(),
            resource: room.as_str().to_owned(),
            refused: sum.refused,
            cause: sum.cause,
        });
    }

    fn holds_events(&self, region: RegionDir) -> bool {
        self.event_tables.contains(region.table_id)
    }
}

impl SuspensionCallback for NodeEvents {
    fn suspended(&self, hook: &str, region: RegionDir, cause: &str) {
        if self.holds_events(region) {
            return;
        }
        self.recorder.record(&HookSuspended {
            node_id: self.node.get(),
            table_id: u64::from(region.table_id.get()),
            region_id: region.region_id.get(),
            hook: hook.to_owned(),
            cause: cut_at(cause, MAX_CAUSE).into_owned(),
        });
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
