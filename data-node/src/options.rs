//! Settings of a data node, and what they mean for groups and regions.

use std::path::PathBuf;
use std::time::Duration;

use tidewater_raft_store::LogStoreOptions;
use tidewater_region_engine::compaction::CompactionOptions;
use tidewater_region_engine::env::EngineOptions;
use tidewater_region_engine::hooks::{HookKinds, HookLimits};

use crate::group::admission::WriteLimits;
use crate::group::batch::BatchLimits;
use crate::leadership::compactions::choose::CompactionPolicy;
use crate::leadership::pick::FlushPolicy;

/// How a data node runs. All addresses are host:port.
#[derive(Debug, Clone)]
pub struct DataOptions {
    /// What others are told to connect to.
    pub advertise: String,
    /// Holds identity, log store and snapshots; made when it is missing.
    pub data_dir: PathBuf,
    /// Meta nodes; at least one.
    pub meta: Vec<String>,
    /// URL of the object store.
    pub object_store: String,
    /// Bytes of memory that the process may take; see [`row_budget`](Self::row_budget).
    pub memory_limit: u64,
    /// Bytes of data files that are kept in memory for reads; `None`: an eighth of the memory limit.
    pub object_cache: Option<u64>,
    /// Bytes that must be free on the disk of the data directory; with less, no writes are taken.
    /// More than all write buffers of the log store, so that it never meets a full disk itself.
    pub disk_reserve: u64,
    /// Limits and intervals of groups.
    pub groups: GroupOptions,
    /// How often the meta service hears from this node.
    pub heartbeat: Duration,
    /// The kinds that hooks may have. A program that embeds a node adds its own, here and to the
    /// meta nodes' options.
    pub hook_kinds: HookKinds,
    /// What keeps a bad hook from slowing the node down.
    pub hook_limits: HookLimits,
}

impl DataOptions {
    /// 1 GiB: a third for rows, of which flushing to S3 at 100 MB/s frees a third each second.
    pub const DEFAULT_MEMORY_LIMIT: u64 = 1024 * 1024 * 1024;
    /// The least that a process can stay within: what does not shrink with the limit (writes on
    /// their way, files being written, scans, the pages of the binary) needs about half of it.
    pub const LEAST_MEMORY_LIMIT: u64 = 768 * 1024 * 1024;

    /// Defaults for everything that is not a place.
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
            disk_reserve: LogStoreOptions::default().free_space_floor,
            groups: GroupOptions::default(),
            heartbeat: Duration::from_secs(1),
            hook_kinds: tidewater_hook_kinds::builtin(),
            hook_limits: HookLimits::default(),
        }
    }

    /// Bytes of unflushed rows at which writers stall; at twice as many they are refused. A third of
    /// the limit, so that the rest holds even then what is not rows: log store, log tails, files
    /// being written, scans.
    pub fn row_budget(&self) -> u64 {
        self.memory_limit / 3
    }

    /// Options of the engine: its caches take a part of the memory limit.
    pub fn engine(&self) -> EngineOptions {
        let bytes = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        EngineOptions {
            object_cache_bytes: bytes(self.object_cache.unwrap_or(self.memory_limit / 8)),
            footer_cache_bytes: bytes(self.memory_limit / 16),
            index_cache_bytes: bytes(self.memory_limit / 32),
            compaction: CompactionOptions {
                memory_bytes: self.memory_limit / 6,
                ..CompactionOptions::default()
            },
            ..EngineOptions::default()
        }
    }

    /// Sets the bytes of data files that are kept in memory for reads; 0 keeps none.
    #[must_use]
    pub fn object_cache(mut self, bytes: Option<u64>) -> Self {
        self.object_cache = bytes;
        self
    }

    /// How the log store is opened: its buffers and the tails of the logs in memory have their share
    /// of the limit, and never more than serves them.
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

    /// Sets the memory limit, and what follows from it.
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
    /// Bytes of log after which a snapshot is taken. A restart reads at most about as much.
    pub snapshot_bytes: u64,
    /// Bytes of log kept below a snapshot for followers that lag. More spares them a snapshot,
    /// less spares disk.
    pub log_tail_bytes: u64,
    /// What one log entry carries.
    pub batch: BatchLimits,
    /// What one write carries.
    pub write: WriteLimits,
    /// When regions are flushed.
    pub flush: FlushPolicy,
    /// When regions are compacted.
    pub compactions: CompactionPolicy,
    /// How long a write waits for memory before it is refused.
    pub stall: Duration,
    /// Longest life of a write call.
    pub write_deadline: Duration,
    /// Longest wait for a quorum to confirm a read.
    pub read_deadline: Duration,
    /// Longest life of a scan.
    pub scan_life: Duration,
    /// Scans open at the same time on this node.
    pub open_scans: usize,
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
            stall: Duration::from_secs(5),
            write_deadline: Duration::from_secs(30),
            read_deadline: Duration::from_secs(5),
            scan_life: Duration::from_secs(30 * 60),
            open_scans: 256,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caches_take_a_part_of_the_memory_limit() {
        let options = DataOptions::new("a", "d", vec![], "memory:///").memory_limit(1 << 30);
        let parts = |options: &DataOptions| {
            let engine = options.engine();
            (engine.object_cache_bytes, engine.footer_cache_bytes, engine.index_cache_bytes)
        };
        assert_eq!(parts(&options), (128 << 20, 64 << 20, 32 << 20));
        assert_eq!(parts(&options.object_cache(Some(7))), (7, 64 << 20, 32 << 20));
    }
}
