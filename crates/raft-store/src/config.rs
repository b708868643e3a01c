//! Openraft's settings for the two kinds of group.

use std::sync::Arc;

use openraft::{Config, SnapshotPolicy};

/// Kind of data that a group replicates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupKind {
    /// Group 0: the catalog.
    Meta,
    /// Regions.
    Data,
}

/// Maximum size of an append in bytes, unless a single entry is larger.
pub const APPEND_BYTES: usize = 4 * 1024 * 1024;

/// Maximum number of entries in an append. [`APPEND_BYTES`] is the usual bound.
const APPEND_ENTRIES: u64 = 4_096;

/// Entries covered by a snapshot that stay in the log for slow followers.
const TAIL_ENTRIES: u64 = 10_000;

/// Maximum lag, in entries, of a learner that counts as caught up.
const CAUGHT_UP_ENTRIES: u64 = 1_000;

/// Returns the settings of a group of this kind. They are fixed, and a test validates them.
pub fn raft_config(kind: GroupKind) -> Arc<Config> {
    let name = match kind {
        GroupKind::Meta => "meta",
        GroupKind::Data => "data",
    };
    Arc::new(Config {
        cluster_name: name.to_owned(),
        heartbeat_interval: 150,
        election_timeout_min: 500,
        election_timeout_max: 1_000,
        install_snapshot_timeout: 30_000,
        max_payload_entries: APPEND_ENTRIES,
        max_append_entries: Some(APPEND_ENTRIES),
        // The node triggers snapshots, by bytes of log, data nodes only after a flush.
        snapshot_policy: SnapshotPolicy::Never,
        // In this openraft release it only decides when `add_learner(.., blocking)` returns.
        // Openraft sends a snapshot exactly when the log no longer holds the needed entries.
        replication_lag_threshold: CAUGHT_UP_ENTRIES,
        max_in_snapshot_log_to_keep: TAIL_ENTRIES,
        purge_batch_size: 1_024,
        // The default lets an old leader continue in the same term after a restart, with a read
        // index that has moved backward.
        enable_leader_restore: Some(false),
        // Unset means off: an isolated node would raise its term and depose the leader on return.
        enable_pre_vote: Some(true),
        allow_log_reversion: Some(false),
        // Bounds of a group's queues. The defaults (65,536) times the size of a command are too
        // much memory for a node with several groups.
        api_channel_size: Some(4_096),
        notification_channel_size: Some(8_192),
        state_machine_channel_size: Some(1_024),
        ..Config::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_valid_and_as_designed() {
        for kind in [GroupKind::Meta, GroupKind::Data] {
            let config = raft_config(kind);
            Config::clone(&config).validate().unwrap();
            assert_eq!(config.heartbeat_interval, 150);
            assert_eq!((config.election_timeout_min, config.election_timeout_max), (500, 1_000));
            assert_eq!(config.enable_leader_restore, Some(false));
            assert_eq!(config.enable_pre_vote, Some(true));
            assert_eq!(config.install_snapshot_timeout, 30_000);
            assert_eq!(config.snapshot_policy, SnapshotPolicy::Never);
        }
    }
}
