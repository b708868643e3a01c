//! Options of calls of the object store.

use std::time::Duration;

/// Options of calls of the object store.
#[derive(Debug, Clone)]
pub struct StorageOptions {
    /// Deadline of one call, including retries of the library.
    pub deadline: Duration,
    /// Number of attempts of reads, listings, deletes and overwriting puts.
    pub attempts: u32,
    /// Backoff after the first attempt; doubles each time.
    pub backoff: Duration,
    /// Longest backoff.
    pub backoff_limit: Duration,
    /// Objects above this size are written in parts of this size, in bytes; S3 requires at least 5
    /// MiB.
    pub part_bytes: usize,
    /// Maximum parts of one upload in flight; an upload uses `part_bytes` times this.
    pub parts_in_flight: usize,
}

impl Default for StorageOptions {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(30),
            attempts: 4,
            backoff: Duration::from_millis(50),
            backoff_limit: Duration::from_secs(2),
            part_bytes: 8 << 20,
            parts_in_flight: 4,
        }
    }
}
