//! Limits on the object store's answers.

use std::time::Duration;

/// Limits on the object store's answers.
#[derive(Debug, Clone)]
pub struct StorageOptions {
    /// Longest wait for one call, the library's own retries included.
    pub deadline: Duration,
    /// How often reads, listings, deletes and overwriting puts are tried.
    pub attempts: u32,
    /// First pause between two tries; doubles each time.
    pub backoff: Duration,
    /// Longest pause between two tries.
    pub backoff_limit: Duration,
    /// Objects above this are written in parts of this size, in bytes; S3 wants at least 5 MiB.
    pub part_bytes: usize,
    /// Parts of one upload that are under way at once; memory is `part_bytes` times this.
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
