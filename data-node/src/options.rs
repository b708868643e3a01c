//! Options of a data node, and the options of groups and regions that follow from them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tidewater_common::clock::ClusterClock;
use tidewater_common::problems::ProcessProblems;
use tidewater_events::{EventRecorderRef, NoRecorder};
use tidewater_hook_kinds::{EventTables, HookAccess};
use tidewater_raft_store::LogStoreOptions;
use tidewater_region_engine::compaction::{CompactionOptions, TWO_RUNS_BYTES};
use tidewater_region_engine::env::EngineOptions;
use tidewater_region_engine::hooks::{HookKinds, HookLimits};
use tidewater_source_kinds::{ExportTargets, SourceAccess, SourceKinds};

use crate::group::admission::WriteLimits;
use crate::group::batch::BatchLimits;
use crate::leadership::compactions::placement::CompactionPolicy;
use crate::leadership::flush_policy::FlushPolicy;
use crate::leadership::held_regions::HoldLimits;

/// Options of a data node. All addresses are host:port.
#[derive(Debug, Clone)]
pub struct DataOptions {
    /// Address that other nodes and clients connect to.
    pub advertise: String,
    /// Directory of identity, log store and snapshots; created if it does not exist.
    pub data_dir: PathBuf,
    /// Addresses of meta nodes; at least one.
    pub meta: Vec<String>,
    /// URL of the object store.
    pub object_store: String,
    /// Bytes of memory that the process may use; see [`row_budget`](Self::row_budget).
    pub memory_limit: u64,
    /// Bytes of data files that are cached in memory for reads; `None`: an eighth of the memory limit.
    pub object_cache: Option<u64>,
    /// Bytes that all scans together may hold; `None`: an eighth of the memory limit.
    pub scan_memory: Option<u64>,
    /// Bytes that must be free on the disk of the data directory; with less, writes are refused. More
    /// than all write buffers of the log store, so that the log store itself never encounters a full
    /// disk.
    pub disk_reserve: u64,
    /// Free bytes on the disk of the data directory, and of a local object store, below which the node
    /// reports a problem; 0: never.
    pub disk_low: u64,
    /// Limits and intervals of groups.
    pub groups: GroupOptions,
    /// Interval of heartbeats to the meta service.
    pub heartbeat: Duration,
    /// Difference of the node's clock from the cluster's clocks beyond which it neither commits to
    /// manifests nor leads groups; more than 0.
    pub max_clock_difference: Duration,
    /// Available hook kinds. A program that embeds a node adds its own kinds here and to the options of
    /// the meta nodes.
    pub hook_kinds: HookKinds,
    /// Available source kinds of refreshable tables. A program that embeds a node adds its own kinds here, on all data nodes.
    pub source_kinds: SourceKinds,
    /// Targets that exports may write from this node. Use the same permissions on all data nodes.
    pub export_targets: ExportTargets,
    /// Limits that keep a bad hook from slowing down the node.
    pub hook_limits: HookLimits,
    /// Problems of the process, which the node reports with its own.
    pub problems: ProcessProblems,
    /// Recorder of the node's events.
    pub events: EventRecorderRef,
    /// Tables that hold events, to which the node adds those of its regions: the same set as that of the hook kinds.
    pub event_tables: EventTables,
    /// Duration above which an operation is recorded as slow; 0: none is.
    pub slow_operation: Duration,
}

impl DataOptions {
    /// Default memory limit: 1 GiB. A third is for rows; flushing to S3 at 100 MB/s frees a third of
    /// that each second.
    pub const DEFAULT_MEMORY_LIMIT: u64 = 1024 * 1024 * 1024;
    /// Smallest memory limit that a process can stay within. The memory that does not shrink with the
    /// limit (writes in progress, files being written, scans, the pages of the binary) is about half of
    /// it.
    pub const MIN_MEMORY_LIMIT: u64 = 768 * 1024 * 1024;

    /// Creates options with defaults for everything that is not an address or a location.
    pub fn new(
        advertise: impl Into<String>,
        data_dir: impl Into<PathBuf>,
        meta: Vec<String>,
        object_store: impl Into<String>,
    ) -> Self {
        Self {
            advertise: advertise.into(),
            data_dir: data_dir.into(),
            meta,
            object_store: object_store.into(),
            memory_limit: Self::DEFAULT_MEMORY_LIMIT,
            object_cache: None,
            scan_memory: None,
            disk_reserve: LogStoreOptions::default().free_space_floor,
            disk_low: 1 << 30,
            groups: GroupOptions::default(),
            heartbeat: Duration::from_secs(1),
            hook_kinds: tidewater_hook_kinds::builtin(HookAccess::default()),
            source_kinds: tidewater_source_kinds::builtin(SourceAccess::default(), PathBuf::new()),
            export_targets: ExportTargets::default(),
            max_clock_difference: ClusterClock::DEFAULT_BOUND,
            hook_limits: HookLimits::default(),
            problems: ProcessProblems::default(),
            events: Arc::new(NoRecorder),
            event_tables: EventTables::default(),
            slow_operation: Duration::from_secs(1),
        }
    }

    /// Returns the bytes of unflushed rows at which writers stall; at twice as many, writes are
    /// refused. A third of the limit, so that even then the rest suffices for everything else: log
    /// store, log tails, files being written, scans.
    pub fn row_budget(&self) -> u64 {
        self.memory_limit / 3
    }

    /// Returns the bytes of memory for compactions on this node: a sixth of the limit, and as much as jobs
    /// of two runs of wide rows need, which no compactor may be there to run.
    pub fn compaction_bytes(&self) -> u64 {
        (self.memory_limit / 6).max(TWO_RUNS_BYTES)
    }

    /// Returns the options of the engine: its caches use a part of the memory limit.
    pub fn engine(&self) -> EngineOptions {
        let bytes = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        EngineOptions {
            object_cache_bytes: bytes(self.object_cache.unwrap_or(self.memory_limit / 8)),
            scan_memory_bytes: self.scan_memory.unwrap_or(self.memory_limit / 8),
            footer_cache_bytes: bytes(self.memory_limit / 16),
            index_cache_bytes: bytes(self.memory_limit / 32),
            compaction: CompactionOptions {
                memory_bytes: self.compaction_bytes(),
                disk_reserve: self.disk_reserve,
                ..CompactionOptions::default()
            },
            ..EngineOptions::default()
        }
    }

    /// Sets the bytes of data files that are cached in memory for reads; 0 disables the cache.
    #[must_use]
    pub fn object_cache(mut self, bytes: Option<u64>) -> Self {
        self.object_cache = bytes;
        self
    }

    /// Sets the bytes that all scans together may hold.
    #[must_use]
    pub fn scan_memory(mut self, bytes: Option<u64>) -> Self {
        self.scan_memory = bytes;
        self
    }

    /// Returns the options of the log store. Its buffers and the log tails in memory have a share of
    /// the limit, and at most their usual sizes.
    pub fn log_store(&self) -> LogStoreOptions {
        let usual = LogStoreOptions::default();
        let share = |part: u64, least: usize, most: usize| {
            usize::try_from(self.memory_limit / part).unwrap_or(most).clamp(least, most)
        };
        LogStoreOptions {
            free_space_floor: self.disk_reserve,
            write_buffer_bytes: share(16, 8 << 20, usual.write_buffer_bytes),
            pending_bytes: share(16, 8 << 20, usual.pending_bytes),
            batch_bytes: share(64, 4 << 20, usual.batch_bytes),
            cache_bytes_per_group: share(64, 2 << 20, usual.cache_bytes_per_group),
            ..usual
        }
    }

    /// Sets the memory limit, and the flush policy that follows from it.
    #[must_use]
    pub fn memory_limit(mut self, bytes: u64) -> Self {
        self.memory_limit = bytes;
        self.groups.flush = FlushPolicy::for_memory(bytes);
        self
    }
}

/// Limits and intervals of groups.
#[derive(Debug, Clone)]
pub struct GroupOptions {
    /// Bytes of log after which a snapshot is taken. A restart replays at most about as many.
    pub snapshot_bytes: u64,
    /// Bytes of log kept below a snapshot for followers that lag. More avoids sending them a snapshot,
    /// less saves disk.
    pub log_tail_bytes: u64,
    /// Limits of one log entry.
    pub batch: BatchLimits,
    /// Limits of one write.
    pub write: WriteLimits,
    /// When regions are flushed.
    pub flush: FlushPolicy,
    /// When regions are compacted.
    pub compactions: CompactionPolicy,
    /// Longest times for which regions wait for a step of their split or merge.
    pub hold_limits: HoldLimits,
    /// Longest wait of a write for memory, after which it is refused.
    pub memory_wait: Duration,
    /// Deadline of a write call.
    pub write_deadline: Duration,
    /// Longest wait for a quorum to confirm a read.
    pub read_deadline: Duration,
    /// Longest duration of a scan.
    pub scan_lifetime: Duration,
    /// Most scans open at the same time on this node; a connection may have half of them.
    pub open_scans: usize,
    /// Time for which the log of a removed replica is kept.
    pub keep_removed_logs: Duration,
    /// Interval at which the leader compares the files of a region with a listing.
    pub check_files_every: Duration,
}

impl Default for GroupOptions {
    fn default() -> Self {
        Self {
            snapshot_bytes: 256 * 1024 * 1024,
            log_tail_bytes: 64 * 1024 * 1024,
            batch: BatchLimits::default(),
            write: WriteLimits::default(),
            flush: FlushPolicy::for_memory(DataOptions::DEFAULT_MEMORY_LIMIT),
            compactions: CompactionPolicy::default(),
            hold_limits: HoldLimits::default(),
            memory_wait: Duration::from_secs(5),
            write_deadline: Duration::from_secs(30),
            read_deadline: Duration::from_secs(5),
            scan_lifetime: Duration::from_secs(30 * 60),
            open_scans: 256,
            keep_removed_logs: Duration::from_secs(24 * 3_600),
            check_files_every: Duration::from_secs(600),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caches_use_a_part_of_the_memory_limit() {
        let options = DataOptions::new("a", "d", vec![], "memory:///").memory_limit(1 << 30);
        let parts = |options: &DataOptions| {
            let engine = options.engine();
            (engine.object_cache_bytes, engine.footer_cache_bytes, engine.index_cache_bytes)
        };
        assert_eq!(parts(&options), (128 << 20, 64 << 20, 32 << 20));
        assert_eq!(options.engine().scan_memory_bytes, 128 << 20);
        assert_eq!(options.clone().scan_memory(Some(9)).engine().scan_memory_bytes, 9);
        assert_eq!(options.compaction_bytes(), TWO_RUNS_BYTES);
        assert_eq!(parts(&options.object_cache(Some(7))), (7, 64 << 20, 32 << 20));
        let large = DataOptions::new("a", "d", vec![], "memory:///").memory_limit(6 << 30);
        assert_eq!(large.engine().compaction.memory_bytes, 1 << 30);
    }
}
