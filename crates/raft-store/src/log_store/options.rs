use std::sync::Arc;
use std::time::Duration;

use rocksdb::{BlockBasedOptions, Cache, DBCompressionType, DBRecoveryMode, Options};

use super::purge_points::PurgePoints;

const MIB: usize = 1024 * 1024;

/// Options of a log store.
#[derive(Debug, Clone)]
pub struct LogStoreOptions {
    /// Column families of the caller, in addition to those of the log store. Meta nodes: `state`.
    pub extra_column_families: Vec<String>,
    /// Bytes of recent entries that each group keeps in memory. Choose the lag of replication and
    /// apply that must not read the disk.
    pub cache_bytes_per_group: usize,
    /// Bytes over all groups that may be queued for the flusher; appends wait beyond it.
    pub pending_bytes: usize,
    /// Maximum bytes of one synced write.
    pub batch_bytes: usize,
    /// Free bytes of the disk below which health is `Full`; 0 disables the check. Choose more
    /// than all write buffers, so that RocksDB itself never runs out of space.
    pub free_space_floor: u64,
    /// Interval of free space checks while nothing is written, or while there is no space.
    pub check_interval: Duration,
    /// Bytes of RocksDB memtables over all column families.
    pub write_buffer_bytes: usize,
    /// Interval at which the disk space of purged entries is released.
    pub reclaim_interval: Duration,
    /// Bytes of purged entries that may remain on disk before files are compacted; files that hold
    /// purged entries only are always deleted.
    pub reclaim_slack_bytes: u64,
}

impl Default for LogStoreOptions {
    fn default() -> Self {
        Self {
            extra_column_families: Vec::new(),
            cache_bytes_per_group: 16 * MIB,
            pending_bytes: 64 * MIB,
            batch_bytes: 16 * MIB,
            free_space_floor: 128 * MIB as u64,
            check_interval: Duration::from_secs(1),
            write_buffer_bytes: 64 * MIB,
            reclaim_interval: Duration::from_secs(10),
            reclaim_slack_bytes: 64 * MIB as u64,
        }
    }
}

impl LogStoreOptions {
    /// Adds a column family of the caller.
    #[must_use]
    pub fn with_column_family(mut self, name: impl Into<String>) -> Self {
        self.extra_column_families.push(name.into());
        self
    }

    pub(super) fn database(&self) -> Options {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        // A record truncated by a crash at the end was never acknowledged. Damage anywhere else is
        // an error: point-in-time recovery, the default, would silently drop everything after it.
        options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
        // A recycled file ends with old records, which look like damage.
        options.set_recycle_log_file_num(0);
        // A column family with few writes keeps the write-ahead log from being deleted until this
        // limit. Reopening after a full disk flushes the write-ahead log, too: keep it small.
        options.set_max_total_wal_size(self.write_buffer_bytes as u64);
        options.set_db_write_buffer_size(self.write_buffer_bytes);
        options.set_max_background_jobs(2);
        options.set_max_open_files(256);
        options.set_keep_log_file_num(2);
        options.set_max_log_file_size(4 * MIB);
        options.set_stats_dump_period_sec(0);
        options
    }

    /// Options for values written once, in key order per group, and mostly read from memory.
    /// Compactions drop the entries below the purge points.
    pub(super) fn log_family(&self, cache: &Cache, purge_points: Arc<PurgePoints>) -> Options {
        let mut options = Options::default();
        options.set_write_buffer_size(self.write_buffer_bytes / 4);
        options.set_max_write_buffer_number(4);
        options.set_target_file_size_base(64 * MIB as u64);
        // Commands are compressed Arrow buffers or small: compression costs more than it saves.
        options.set_compression_type(DBCompressionType::None);
        options.set_compaction_filter("purged entries", move |_, key, _| purge_points.decide(key));
        options.set_block_based_table_factory(&block_options(cache, 64 * 1024));
        options
    }

    pub(super) fn small_family(&self, cache: &Cache) -> Options {
        let mut options = Options::default();
        options.set_write_buffer_size(self.write_buffer_bytes / 8);
        options.set_max_write_buffer_number(2);
        options.set_compression_type(DBCompressionType::Lz4);
        options.set_block_based_table_factory(&block_options(cache, 16 * 1024));
        options
    }

    pub(super) fn block_cache() -> Cache {
        Cache::new_lru_cache(16 * MIB)
    }
}

fn block_options(cache: &Cache, block_bytes: usize) -> BlockBasedOptions {
    let mut options = BlockBasedOptions::default();
    options.set_block_cache(cache);
    options.set_block_size(block_bytes);
    options.set_cache_index_and_filter_blocks(true);
    options.set_bloom_filter(10.0, false);
    options
}
