//! Options of manifests.

use std::time::Duration;

use tidewater_common::backoff::Backoff;

/// Intervals of checkpoints, and retries, of manifests.
#[derive(Debug, Clone)]
pub struct ManifestOptions {
    /// Deltas between two checkpoints; at least 1. More: fewer objects are written, an open reads
    /// more.
    pub checkpoint_every: u64,
    /// Attempts to resolve an ambiguous put before its outcome is reported as unknown.
    pub settle_attempts: u32,
    /// Versions that a commit may lose to other committers before it fails.
    pub commit_rounds: u32,
    /// Rounds of reading a manifest that changes during the read before the read fails.
    pub read_rounds: u32,
    /// Backoff between two attempts.
    pub backoff: Backoff,
    /// Deltas that are read concurrently.
    pub read_ahead: usize,
}

impl Default for ManifestOptions {
    fn default() -> Self {
        Self {
            checkpoint_every: 16,
            settle_attempts: 8,
            commit_rounds: 32,
            read_rounds: 8,
            backoff: Backoff { first: Duration::from_millis(20), longest: Duration::from_secs(1) },
            read_ahead: 8,
        }
    }
}
