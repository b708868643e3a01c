//! Environment of a region: store, clock, id source, memory, caches, options.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use tidewater_common::clock::Clock;
use tidewater_common::ids::{FileId, JobId, RegionId, WriterId};
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::EngineError;
use crate::cache::ObjectCache;
use crate::compaction::{CompactionOptions, LocalSlots};
use crate::hooks::Plugins;
use crate::index::IndexCache;
use crate::manifest::ManifestOptions;
use crate::memory::MemoryBudget;
use crate::read::memory::ScanMemory;
use crate::sst::FooterCache;
use crate::storage::{Storage, StoreDisk};

/// Source of new ids; the only randomness in the engine.
pub trait IdSource: Debug + Send + Sync + 'static {
    /// Returns a new UUIDv4.
    fn random(&self) -> Uuid;

    /// Returns a new UUIDv7 with the given time (milliseconds since the Unix epoch).
    fn at(&self, time_ms: u64) -> Uuid;

    /// Returns an id for a new data file. Its time is the greater of clock and GC floor, so that the floor
    /// never rejects a file that was just written.
    fn file_id(&self, now_ms: u64, gc_floor_ms: u64) -> FileId {
        FileId(self.at(now_ms.max(gc_floor_ms)))
    }

    /// Returns random bits for the jitter of a backoff.
    fn jitter_bits(&self) -> u64 {
        self.random().as_u64_pair().1
    }

    /// Returns an id for the content of one delta.
    fn writer_id(&self) -> WriterId {
        WriterId(self.random())
    }

    /// Returns an id for a compaction job.
    fn job_id(&self, now_ms: u64) -> JobId {
        JobId(self.at(now_ms))
    }
}

/// Id source that uses the operating system's randomness.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemIds;

impl IdSource for SystemIds {
    fn random(&self) -> Uuid {
        Uuid::new_v4()
    }

    fn at(&self, time_ms: u64) -> Uuid {
        let random = *Uuid::new_v4().as_bytes();
        let mut tail = [0; 10];
        tail.copy_from_slice(&random[6..]);
        uuid::Builder::from_unix_timestamp_millis(time_ms, &tail).into_uuid()
    }
}

/// Returns the time in a UUIDv7, milliseconds since the Unix epoch; 0 for any other id.
pub(crate) fn id_time_ms(id: Uuid) -> u64 {
    match id.get_version_num() {
        7 => id.as_u64_pair().0 >> 16,
        _ => 0,
    }
}

/// Resources shared by all regions of a process.
#[derive(Debug, Clone)]
pub struct RegionEnv {
    /// The object store.
    pub storage: Storage,
    /// Clock of times in deltas and ids, of deadlines and of expiry; never read by replay.
    pub clock: Arc<dyn Clock>,
    /// Source of new ids.
    pub ids: Arc<dyn IdSource>,
    /// Memory budget for unflushed rows.
    pub memory: Arc<MemoryBudget>,
    /// Memory budget for scans.
    pub scan_memory: Arc<ScanMemory>,
    /// Cache of data file footers.
    pub footers: Arc<FooterCache>,
    /// Cache of indexes.
    pub indexes: Arc<IndexCache>,
    /// Cache of data file ranges.
    pub objects: Arc<ObjectCache>,
    /// Permits for CPU-bound work: merging and encoding.
    pub workers: Arc<Semaphore>,
    /// Permits for decoding rows that a read waits for. Separate from `workers`, whose permits are held
    /// for the time that writing a file takes.
    pub readers: Arc<Semaphore>,
    /// Slots for the compactions that this process runs on all its regions, and their memory.
    pub compactions: Arc<LocalSlots>,
    /// Hooks that observe the regions; initially none.
    pub plugins: Plugins,
    /// Engine options.
    pub options: EngineOptions,
}

impl RegionEnv {
    /// Creates an environment with new caches and permits, sized by the options.
    pub fn new(
        storage: Storage,
        clock: Arc<dyn Clock>,
        ids: Arc<dyn IdSource>,
        memory: Arc<MemoryBudget>,
        options: EngineOptions,
    ) -> Self {
        let scan_memory = Arc::new(ScanMemory::new(options.scan_memory_bytes));
        let footers = Arc::new(FooterCache::new(options.footer_cache_bytes));
        let workers = Arc::new(Semaphore::new(options.workers.max(1)));
        let objects = Arc::new(ObjectCache::new(options.object_cache_bytes));
        let indexes = Arc::new(IndexCache::new(options.index_cache_bytes));
        let readers = Arc::new(Semaphore::new(options.workers.max(1)));
        let disk = StoreDisk::new(storage.location(), options.compaction.disk_reserve);
        let compactions = LocalSlots::new(&options.compaction, disk);
        let plugins = Plugins::default();
        Self {
            storage,
            clock,
            ids,
            memory,
            scan_memory,
            footers,
            indexes,
            objects,
            workers,
            readers,
            compactions,
            plugins,
            options,
        }
    }

    /// Checks that this node's clock agrees with the cluster's clocks.
    ///
    /// # Errors
    /// [`EngineError::ClockDiffers`]: nothing of the region may expire or be committed.
    pub(crate) fn check_clock(&self, region: RegionId) -> Result<(), EngineError> {
        let difference = |difference| EngineError::ClockDiffers { region, difference };
        self.clock.check().map_err(difference)
    }

    /// Returns this environment with the given hooks.
    pub fn with_plugins(self, plugins: Plugins) -> Self {
        Self { plugins, ..self }
    }
}

/// Engine options.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Checkpoint and retry options of manifests.
    pub manifest: ManifestOptions,
    /// Target size of a data file in bytes: the next file begins when it is reached.
    pub target_file_bytes: usize,
    /// Bytes that the scans of all regions may hold together: half of them for open files and rows
    /// being merged, half for encoded rows that their readers have yet to take. Point reads may hold a quarter in
    /// addition, and so may the comparisons of refreshes; see [`ScanMemory::new`].
    pub scan_memory_bytes: u64,
    /// Capacity of the footer cache in bytes.
    pub footer_cache_bytes: usize,
    /// Capacity of the index cache in bytes; a larger index is not used.
    pub index_cache_bytes: usize,
    /// Capacity of the cache of data file ranges in bytes; 0 disables it.
    pub object_cache_bytes: usize,
    /// Number of concurrent merges and encodings, and of concurrent decodings; at least 1.
    pub workers: usize,
    /// Maximum duration of a scan. Must be well below the grace period of garbage collection (default
    /// 6 h), for which the files of a scan stay after a compaction has replaced them.
    pub scan_lifetime: Duration,
    /// Compaction options.
    pub compaction: CompactionOptions,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            manifest: ManifestOptions::default(),
            target_file_bytes: 256 << 20,
            scan_memory_bytes: 128 << 20,
            footer_cache_bytes: 64 << 20,
            index_cache_bytes: 64 << 20,
            object_cache_bytes: 128 << 20,
            workers: 2,
            scan_lifetime: Duration::from_secs(60 * 60),
            compaction: CompactionOptions::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_ids_carry_the_greater_of_clock_and_floor() {
        for (now, floor, expected) in [(5_000, 7_000, 7_000), (9_000, 7_000, 9_000)] {
            let id = SystemIds.file_id(now, floor);
            let (secs, nanos) = id.0.get_timestamp().unwrap().to_unix();
            assert_eq!(secs * 1_000 + u64::from(nanos) / 1_000_000, expected);
            assert_eq!(id.0.get_version_num(), 7);
        }
        assert_ne!(SystemIds.at(1), SystemIds.at(1));
    }
}
