//! What a region is handed: store, clock, ids, options.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use tidewater_common::clock::Clock;
use tidewater_common::ids::{FileId, JobId, WriterId};
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::cache::ObjectCache;
use crate::compaction::CompactionOptions;
use crate::hooks::Plugins;
use crate::index::IndexCache;
use crate::manifest::ManifestOptions;
use crate::memory::MemoryBudget;
use crate::sst::FooterCache;
use crate::storage::Storage;

/// Source of fresh ids; the only randomness in the engine.
pub trait IdSource: Debug + Send + Sync + 'static {
    /// A fresh UUIDv4.
    fn random(&self) -> Uuid;

    /// A fresh UUIDv7 of the given time (milliseconds since the Unix epoch).
    fn at(&self, time_ms: u64) -> Uuid;

    /// Id for a new data file: the greater of clock and GC floor, so that the floor never refuses
    /// what has just been written.
    fn file_id(&self, now_ms: u64, gc_floor_ms: u64) -> FileId {
        FileId(self.at(now_ms.max(gc_floor_ms)))
    }

    /// Id for the content of one delta.
    fn writer_id(&self) -> WriterId {
        WriterId(self.random())
    }

    /// Id for a compaction.
    fn job_id(&self, now_ms: u64) -> JobId {
        JobId(self.at(now_ms))
    }
}

/// Ids from the operating system's randomness.
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

/// The time in a UUIDv7, milliseconds since the Unix epoch; 0 for any other id.
pub(crate) fn id_time_ms(id: Uuid) -> u64 {
    match id.get_version_num() {
        7 => id.as_u64_pair().0 >> 16,
        _ => 0,
    }
}

/// What every region of a process shares.
#[derive(Debug, Clone)]
pub struct RegionEnv {
    /// The object store.
    pub storage: Storage,
    /// Wall clock: times in deltas and ids only, never a decision of replay.
    pub clock: Arc<dyn Clock>,
    /// Fresh ids.
    pub ids: Arc<dyn IdSource>,
    /// Memory for rows that are not flushed yet.
    pub memory: Arc<MemoryBudget>,
    /// Footers of data files that were read.
    pub footers: Arc<FooterCache>,
    /// Indexes that were read.
    pub indexes: Arc<IndexCache>,
    /// Pieces of data files that were read.
    pub objects: Arc<ObjectCache>,
    /// Permits for work that keeps a core busy: merging and encoding.
    pub workers: Arc<Semaphore>,
    /// Permits for decoding rows that a read waits for; apart from the others, which are held for as
    /// long as it takes to write a file.
    pub readers: Arc<Semaphore>,
    /// Permits for compactions: a process runs few at a time, of whatever regions.
    pub compactions: Arc<Semaphore>,
    /// Observers of regions; none at first.
    pub plugins: Plugins,
    /// Options of the engine.
    pub options: EngineOptions,
}

impl RegionEnv {
    /// What regions share, made from what a process has.
    pub fn new(
        storage: Storage,
        clock: Arc<dyn Clock>,
        ids: Arc<dyn IdSource>,
        memory: Arc<MemoryBudget>,
        options: EngineOptions,
    ) -> Self {
        let footers = Arc::new(FooterCache::new(options.footer_cache_bytes));
        let workers = Arc::new(Semaphore::new(options.workers.max(1)));
        let objects = Arc::new(ObjectCache::new(options.object_cache_bytes));
        let indexes = Arc::new(IndexCache::new(options.index_cache_bytes));
        let readers = Arc::new(Semaphore::new(options.workers.max(1)));
        let compactions = Arc::new(Semaphore::new(options.compaction.jobs.max(1)));
        let plugins = Plugins::default();
        Self {
            storage,
            clock,
            ids,
            memory,
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

    /// The same with these hooks.
    pub fn with_plugins(self, plugins: Plugins) -> Self {
        Self { plugins, ..self }
    }
}

/// Options of the engine.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Checkpoints and retries of manifests.
    pub manifest: ManifestOptions,
    /// Bytes at which a data file ends and the next one begins.
    pub target_file_bytes: usize,
    /// Bytes of footers that are kept in memory.
    pub footer_cache_bytes: usize,
    /// Bytes of indexes that are kept in memory; an index that is larger is not used.
    pub index_cache_bytes: usize,
    /// Bytes of data files that are kept in memory; 0 keeps none.
    pub object_cache_bytes: usize,
    /// Merges and encodings at once, and as many decodings; at least 1.
    pub workers: usize,
    /// Longest life of a scan; well within the grace of garbage collection (6 h unless set), by
    /// which a scan's files stay after a compaction has replaced them.
    pub scan_life: Duration,
    /// When files are merged.
    pub compaction: CompactionOptions,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            manifest: ManifestOptions::default(),
            target_file_bytes: 256 << 20,
            footer_cache_bytes: 64 << 20,
            index_cache_bytes: 64 << 20,
            object_cache_bytes: 128 << 20,
            workers: 2,
            scan_life: Duration::from_secs(60 * 60),
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
