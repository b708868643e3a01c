//! Events that a compactor records: compactions that take long. Those of its hooks are recorded by the hook kind.

use std::time::Duration;

use tidewater_cluster_events::types::SlowOperation;
use tidewater_common::ids::NodeId;
use tidewater_common::schema::TableOptions;
use tidewater_events::EventRecorderRef;
use tidewater_hook_kinds::EventTables;
use tidewater_region_engine::layout::RegionDir;

use crate::options::CompactorOptions;

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

    /// Leaves a table out of all events if it holds events. Called before a region of it is opened.
    pub(crate) fn opening(&self, dir: RegionDir, options: &TableOptions) {
        if options.holds_events {
            self.tables.add(dir.table_id);
        }
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
    use std::sync::Arc;

    use tidewater_common::ids::{Incarnation, RegionId, TableId};
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
    fn compactions_of_events_are_not_recorded() {
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
        assert_eq!(recorder.types(), Vec::<String>::new());
        events.job_ended(dir(3), MINUTE / 2);
        events.job_ended(dir(3), 2 * MINUTE);
        assert_eq!(recorder.types(), ["slow_operation"]);
        assert!(options.event_tables.contains(TableId(4)));
    }
}
