//! Checkpoints and retries of manifests.

use std::time::Duration;

/// Checkpoints and retries of manifests.
#[derive(Debug, Clone)]
pub struct ManifestOptions {
    /// Deltas between two checkpoints; at least 1.
    pub checkpoint_every: u64,
    /// How often an ambiguous put is settled before its outcome is reported as unknown.
    pub settle_attempts: u32,
    /// How many lost versions a commit goes through before it gives up.
    pub commit_rounds: u32,
    /// How often reading starts over when the manifest changes under it.
    pub read_rounds: u32,
    /// First pause between two tries; doubles each time.
    pub backoff: Duration,
    /// Longest pause between two tries.
    pub backoff_limit: Duration,
    /// Deltas that are read at once.
    pub read_ahead: usize,
}

impl Default for ManifestOptions {
    fn default() -> Self {
        Self {
            checkpoint_every: 16,
            settle_attempts: 8,
            commit_rounds: 32,
            read_rounds: 8,
            backoff: Duration::from_millis(20),
            backoff_limit: Duration::from_secs(1),
            read_ahead: 8,
        }
    }
}
