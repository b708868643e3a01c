//! Options of compaction.

/// Strategy of the choice of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompactionStrategy {
    /// By time windows if rows have a time and all versions of a key share it, else by tiers.
    Auto,
    /// By tiers, for all tables.
    SizeTiered,
}

/// Triggers and limits of compaction.
#[derive(Debug, Clone)]
pub struct CompactionOptions {
    /// Strategy of the choice of files.
    pub strategy: CompactionStrategy,
    /// Runs of a level that are compacted into one; at least 2. More: less is rewritten, reads open
    /// more files.
    pub fan_in: usize,
    /// Maximum runs of one job.
    pub max_runs: usize,
    /// Maximum bytes of a job's inputs: runs that are larger together stay separate.
    pub max_job_bytes: u64,
    /// Concurrent jobs of a process, over all regions; at least 1.
    pub jobs: usize,
    /// Concurrent sub-jobs of a job; each keeps one core busy.
    pub parallelism: usize,
    /// Bytes of memory that all jobs of the process share: a job that needs more is refused. With less
    /// memory, jobs have fewer runs, and fewer sub-jobs run concurrently.
    pub memory_bytes: u64,
    /// Bytes that stay free on the disk of a store that is a local directory.
    pub disk_reserve: u64,
}

impl Default for CompactionOptions {
    fn default() -> Self {
        Self {
            strategy: CompactionStrategy::Auto,
            fan_in: 4,
            max_runs: 16,
            max_job_bytes: 16 << 30,
            jobs: 1,
            parallelism: 2,
            memory_bytes: 512 << 20,
            disk_reserve: 256 << 20,
        }
    }
}

/// Resources that a job may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompactionLimits {
    /// Concurrent sub-jobs; each keeps one core busy.
    pub parallelism: usize,
    /// Bytes of memory. With less memory, fewer sub-jobs run concurrently, but always one.
    pub memory_bytes: u64,
}

impl From<&CompactionOptions> for CompactionLimits {
    fn from(options: &CompactionOptions) -> Self {
        Self { parallelism: options.parallelism, memory_bytes: options.memory_bytes }
    }
}
