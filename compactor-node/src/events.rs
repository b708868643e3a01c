//! Events that a compactor records: compactions that take long, and hooks that are suspended. Calls of hooks are recorded
//! by the hook kind `events`.

use std::sync::Arc;
use std::time::Duration;

use tidewater_cluster_events::RecordedCalls;
use tidewater_cluster_events::types::{HookSuspended, SlowOperation};
use tidewater_common::clock::SystemClock;
use tidewater_common::ids::NodeId;
use tidewater_common::quote::cut_at;
use tidewater_common::schema::TableOptions;
use tidewater_events::EventRecorderRef;
use tidewater_hook_kinds::EventTables;
use tidewater_region_engine::hooks::SuspensionCallback;
use tidewater_region_engine::layout::RegionDir;

use crate::options::CompactorOptions;

/// Longest text of a reason, in characters.
const MAX_CAUSE: usize = 400;

/// Recorder of the events of a node.
#[derive(Debug)]
pub(crate) struct CompactorEvents {
    recorder: EventRecorderRef,
    tables: EventTables,
    node: NodeId,
    slow_operation: Option<Duration>,
}

impl CompactorEvents {
    /// Creates the recorder of a node with these options.
    pub(crate) fn new(options: &CompactorOptions, node: NodeId) -> Self {
        Self {
            recorder: options.events.clone(),
            tables: options.event_tables.clone(),
            node,
            slow_operation: options.slow_operation,
        }
    }

    /// Returns the recorder of administrative calls that this node answers.
    pub(crate) fn admin_calls(&self) -> RecordedCalls {
        RecordedCalls::new(self.recorder.clone(), Arc::new(SystemClock))
    }

    /// Leaves a table out of all events if it holds events. Called before a region of it is opened.
    pub(crate) fn opening(&self, dir: RegionDir, options: &TableOptions) {
        if options.holds_events {
            self.tables.add(dir.table_id);
        }
    }

    /// Returns the milliseconds from which a job is slow, for owners: they record slow jobs if this node records no
    /// events, so that each is recorded once.
    pub(crate) fn limit_for_owners(&self) -> Option<u64> {
        self.slow_operation.filter(|_| !self.recorder.is_recording()).map(millis)
    }

    /// Records a job that has ended, if it was slow.
    pub(crate) fn job_ended(&self, dir: RegionDir, took: Duration) {
        if self.tables.contains(dir.table_id) {
            return;
        }
        if let Some(slow) = slow_compaction(self.node, dir, took, self.slow_operation) {
            drop(self.recorder.record(&slow));
        }
    }
}

impl SuspensionCallback for CompactorEvents {
    fn suspended(&self, hook: &str, dir: RegionDir, cause: &str) {
        if self.tables.contains(dir.table_id) {
            return;
        }
        drop(self.recorder.record(&HookSuspended {
            node_id: self.node.get(),
            table_id: dir.table_id.get().into(),
            region_id: dir.region_id.get(),
            hook: hook.to_owned(),
            cause: cut_at(cause, MAX_CAUSE).into_owned(),
        }));
    }
}

/// Returns the event of a job that took at least the limit.
fn slow_compaction(
    node: NodeId,
    dir: RegionDir,
    took: Duration,
    limit: Option<Duration>,
) -> Option<SlowOperation> {
    let limit = limit.filter(|limit| took >= *limit)?;
    Some(SlowOperation {
        node_id: node.get(),
        node_kind: "compactor".to_owned(),
        operation: "compaction".to_owned(),
        table_id: Some(dir.table_id.get().into()),
        region_id: Some(dir.region_id.get()),
        duration_ms: Some(millis(took)),
        limit_ms: millis(limit),
    })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use tidewater_common::ids::{Incarnation, RegionId, TableId};
    use tidewater_events::NoRecorder;
    use tidewater_events::testing::CollectingRecorder;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn dir(table: u32) -> RegionDir {
        let table_id = TableId(table);
        RegionDir { table_id, region_id: RegionId(9), incarnation: Incarnation(1) }
    }

    #[test]
    fn compaction_is_slow_from_its_limit_on() {
        for (took, limit, expected) in [
            (MINUTE, Some(MINUTE), true),
            (MINUTE, Some(Duration::ZERO), true),
            (MINUTE, None, false),
            (MINUTE - Duration::from_nanos(1), Some(MINUTE), false),
        ] {
            let slow = slow_compaction(NodeId(7), dir(3), took, limit);
            assert_eq!(slow.is_some(), expected, "{took:?} {limit:?}");
        }
        let took = Duration::from_millis(61_500);
        assert_eq!(
            slow_compaction(NodeId(7), dir(3), took, Some(MINUTE)),
            Some(SlowOperation {
                node_id: 7,
                node_kind: "compactor".to_owned(),
                operation: "compaction".to_owned(),
                table_id: Some(3),
                region_id: Some(9),
                duration_ms: Some(61_500),
                limit_ms: 60_000,
            })
        );
    }

    #[test]
    fn owners_record_slow_jobs_unless_the_compactor_does() {
        let limit = |slow_operation, events: EventRecorderRef| {
            let options = CompactorOptions::new("a:1", vec![], "memory:///");
            let options = CompactorOptions { slow_operation, events, ..options };
            CompactorEvents::new(&options, NodeId(7)).limit_for_owners()
        };
        assert_eq!(limit(Some(MINUTE), Arc::new(NoRecorder)), Some(60_000));
        assert_eq!(limit(None, Arc::new(NoRecorder)), None);
        assert_eq!(limit(Some(MINUTE), Arc::new(CollectingRecorder::default())), None);
    }

    #[test]
    fn tables_of_events_are_left_out() {
        let recorder = Arc::new(CollectingRecorder::default());
        let options = CompactorOptions {
            events: recorder.clone(),
            ..CompactorOptions::new("a:1", vec![], "memory:///")
        };
        let events = CompactorEvents::new(&options, NodeId(7));
        let plain = TableOptions::append_only();
        events.opening(dir(3), &plain);
        events.opening(dir(4), &TableOptions { holds_events: true, ..plain });
        events.job_ended(dir(4), 2 * MINUTE);
        events.suspended("audit", dir(4), "no route");
        assert_eq!(recorder.types(), Vec::<String>::new());
        events.job_ended(dir(3), MINUTE / 2);
        events.job_ended(dir(3), 2 * MINUTE);
        events.suspended("audit", dir(3), "no route");
        assert_eq!(recorder.types(), ["slow_operation", "hook_suspended"]);
        assert!(options.event_tables.contains(TableId(4)));
    }
}
