//! Options of calls of the object store.

use std::time::Duration;

use tidewater_common::backoff::{Backoff, Jitter};

/// Options of calls of the object store.
#[derive(Debug, Clone)]
pub struct StorageOptions {
    /// Deadline of one call, including retries of the library.
    pub deadline: Duration,
    /// Number of attempts of reads, listings, deletes and overwriting puts.
    pub attempts: u32,
    /// Backoff between attempts.
    pub backoff: Backoff,
    /// Source of the jitter of all backoffs, also of manifests.
    pub jitter: Jitter,
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
            backoff: Backoff { first: Duration::from_millis(50), longest: Duration::from_secs(2) },
            jitter: Jitter::system(),
            part_bytes: 8 << 20,
            parts_in_flight: 4,
        }
    }
}
