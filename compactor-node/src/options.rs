//! Options of a compactor node, and the engine options derived from them.

use std::sync::Arc;
use std::time::Duration;

use tidewater_common::clock::ClusterClock;
use tidewater_common::problems::ProcessProblems;
use tidewater_events::{EventRecorderRef, NoRecorder};
use tidewater_hook_kinds::{EventTables, HookAccess};
use tidewater_region_engine::compaction::CompactionOptions;
use tidewater_region_engine::compaction::admission::JobCapacity;
use tidewater_region_engine::env::EngineOptions;
use tidewater_region_engine::hooks::{HookKinds, HookLimits};

/// Options of a compactor node.
#[derive(Debug, Clone)]
pub struct CompactorOptions {
    /// Address that other nodes connect to: host:port.
    pub advertise: String,
    /// Addresses of meta nodes; at least one.
    pub meta: Vec<String>,
    /// URL of the cluster's object store.
    pub object_store: String,
    /// Interval of heartbeats.
    pub heartbeat: Duration,
    /// Difference of the node's clock from the cluster's clocks beyond which it accepts and commits no
    /// jobs; more than 0.
    pub max_clock_difference: Duration,
    /// Concurrent jobs, which is also the number of cores that they keep busy together; at least 1.
    pub slots: usize,
    /// Memory limit of the process in bytes, [`process_bytes`](Self::process_bytes) included.
    pub memory_limit: u64,
    /// Memory in bytes that the process takes without any job: binary, runtime, connections. 0 if
    /// other nodes of the same process account for it.
    pub process_bytes: u64,
    /// Bytes that stay free on the disk of a store that is a local directory.
    pub disk_reserve: u64,
    /// Available hook kinds. A program that embeds a node adds its own.
    pub hook_kinds: HookKinds,
    /// Limits that keep a faulty hook from slowing down jobs.
    pub hook_limits: HookLimits,
    /// Time limit for running jobs to end when the node stops.
    pub drain: Duration,
    /// Time after which an unused handle expires.
    pub handle_life: Duration,
    /// Recorder of the node's events; `hook_kinds` has its own reference to it.
    pub events: EventRecorderRef,
    /// Tables about which no events are recorded; shared with `hook_kinds`. The node adds tables.
    pub event_tables: EventTables,
    /// Duration from which a compaction is recorded as slow, by its owner if `events` records nothing; `None`: none is.
    pub slow_operation: Option<Duration>,
    /// Problems of the process, which the node reports with its own.
    pub problems: ProcessProblems,
}

impl CompactorOptions {
    /// 512 MiB.
    pub const DEFAULT_MEMORY_LIMIT: u64 = 512 << 20;
    /// Minimum memory limit at which jobs of usual size are accepted.
    pub const MIN_MEMORY_LIMIT: u64 = 256 << 20;
    /// 256 MiB.
    pub const DEFAULT_DISK_RESERVE: u64 = 256 << 20;
    /// 30 s.
    pub const DEFAULT_DRAIN: Duration = Duration::from_secs(30);
    /// 1 min: jobs rewrite files of any size, so that only the exceptional are worth an event.
    pub const DEFAULT_SLOW_OPERATION: Duration = Duration::from_secs(60);
    /// Memory of a process without any job, estimated high.
    const PROCESS_BYTES: u64 = 64 << 20;

    /// Creates options with defaults for all but the addresses: as many slots as there are cores.
    pub fn new(
        advertise: impl Into<String>,
        meta: Vec<String>,
        object_store: impl Into<String>,
    ) -> Self {
        Self {
            advertise: advertise.into(),
            meta,
            object_store: object_store.into(),
            heartbeat: Duration::from_secs(1),
            max_clock_difference: ClusterClock::DEFAULT_BOUND,
            slots: std::thread::available_parallelism().map_or(1, Into::into),
            memory_limit: Self::DEFAULT_MEMORY_LIMIT,
            process_bytes: Self::PROCESS_BYTES,
            disk_reserve: Self::DEFAULT_DISK_RESERVE,
            hook_kinds: tidewater_hook_kinds::builtin(HookAccess::default()),
            hook_limits: HookLimits::default(),
            drain: Self::DEFAULT_DRAIN,
            handle_life: Duration::from_secs(5 * 60),
            events: Arc::new(NoRecorder),
            event_tables: EventTables::default(),
            slow_operation: Some(Self::DEFAULT_SLOW_OPERATION),
            problems: ProcessProblems::default(),
        }
    }

    /// Resources shared by all jobs.
    pub(crate) fn capacity(&self) -> JobCapacity {
        let reserved = self.process_bytes.saturating_add(self.footer_bytes());
        let slots = self.slots.max(1);
        JobCapacity {
            slots,
            sub_jobs: slots,
            memory_bytes: self.memory_limit.saturating_sub(reserved),
        }
    }

    /// Options of the engine. A compaction reads each footer once or twice and no other object
    /// again: other caches are useless.
    pub(crate) fn engine(&self) -> EngineOptions {
        let capacity = self.capacity();
        EngineOptions {
            object_cache_bytes: 0,
            index_cache_bytes: 0,
            footer_cache_bytes: usize::try_from(self.footer_bytes()).unwrap_or(usize::MAX),
            workers: capacity.slots,
            compaction: CompactionOptions {
                jobs: capacity.slots,
                parallelism: capacity.slots,
                memory_bytes: capacity.memory_bytes,
                disk_reserve: self.disk_reserve,
                ..CompactionOptions::default()
            },
            ..EngineOptions::default()
        }
    }

    fn footer_bytes(&self) -> u64 {
        self.memory_limit / 32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compactions_get_memory_left_by_process_and_caches() {
        let options = CompactorOptions {
            slots: 0,
            memory_limit: 512 << 20,
            ..CompactorOptions::new("a:1", vec![], "memory:///")
        };
        let engine = options.engine();
        assert_eq!(
            options.capacity(),
            JobCapacity { slots: 1, sub_jobs: 1, memory_bytes: 432 << 20 }
        );
        assert_eq!((engine.workers, engine.footer_cache_bytes), (1, 16 << 20));
        assert_eq!((engine.object_cache_bytes, engine.index_cache_bytes), (0, 0));
        let embedded = CompactorOptions { process_bytes: 0, ..options.clone() };
        assert_eq!(embedded.capacity().memory_bytes, 496 << 20);
        let tiny = CompactorOptions { memory_limit: 1 << 20, ..options };
        assert_eq!(tiny.capacity().memory_bytes, 0);
    }
}
