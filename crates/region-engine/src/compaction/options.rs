//! When files are merged, and with what.

/// How files are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompactionStrategy {
    /// By time windows where rows have a time and versions of a key share it, else by tiers.
    Auto,
    /// By tiers, whatever the table has.
    SizeTiered,
}

/// When files are merged, and with what.
#[derive(Debug, Clone)]
pub struct CompactionOptions {
    /// How files are chosen.
    pub strategy: CompactionStrategy,
    /// Runs of a level that are merged into one; at least 2. More: less is rewritten, reads open
    /// more files.
    pub fan_in: usize,
    /// Runs merged at once at most.
    pub max_runs: usize,
    /// Bytes of a job's inputs at most: what is larger together stays apart.
    pub max_job_bytes: u64,
    /// Jobs of a process at once, of whatever regions; at least 1.
    pub jobs: usize,
    /// Sub-jobs of a job at once; each keeps one core busy.
    pub parallelism: usize,
    /// Bytes of memory that a job may take; with less, fewer sub-jobs run at once.
    pub memory_bytes: u64,
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
        }
    }
}
