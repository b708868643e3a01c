//! Purge points of the groups, as compactions of the database see them.
//!
//! A compaction drops the entries below a group's purge point. A purge point is published here only
//! when it is durable: an entry that was dropped before would be missing from the log after a crash.

use std::collections::BTreeMap;

use parking_lot::RwLock;
use rocksdb::CompactionDecision;
use tidewater_common::ids::GroupId;

use super::keys::split_log_key;

/// Index of the first entry that is not purged, durably, for each group.
#[derive(Debug, Default)]
pub(super) struct PurgePoints {
    live_from: RwLock<BTreeMap<GroupId, u64>>,
}

impl PurgePoints {
    /// Publishes durable purge points: the index of the first live entry of each group. Replaces all
    /// that were published before.
    pub(super) fn publish(&self, live_from: BTreeMap<GroupId, u64>) {
        *self.live_from.write() = live_from;
    }

    /// Returns whether exactly these purge points are published.
    pub(super) fn are_published(&self, live_from: &BTreeMap<GroupId, u64>) -> bool {
        *self.live_from.read() == *live_from
    }

    /// Withdraws the purge point of a group. Call it before a removed group can be created again:
    /// its new log may begin below the old purge point.
    pub(super) fn withdraw(&self, group: GroupId) {
        self.live_from.write().remove(&group);
    }

    /// Returns whether a compaction keeps the entry with this key.
    pub(super) fn decide(&self, key: &[u8]) -> CompactionDecision {
        let is_purged = split_log_key(key).is_some_and(|(group, index)| {
            self.live_from.read().get(&group).is_some_and(|live_from| index < *live_from)
        });
        if is_purged { CompactionDecision::Remove } else { CompactionDecision::Keep }
    }
}

#[cfg(test)]
mod tests {
    use super::super::keys::log_key;
    use super::*;

    #[test]
    fn compactions_drop_entries_below_published_points() {
        let points = PurgePoints::default();
        let drops = |group, index| {
            matches!(points.decide(&log_key(GroupId(group), index)), CompactionDecision::Remove)
        };
        assert!(!drops(2, 0));
        points.publish(BTreeMap::from([(GroupId(2), 7)]));
        assert!(drops(2, 0) && drops(2, 6));
        assert!(!drops(2, 7) && !drops(1, 0) && !drops(3, 0));
        assert!(matches!(points.decide(b"short"), CompactionDecision::Keep));
        points.withdraw(GroupId(2));
        assert!(!drops(2, 0));
    }
}
