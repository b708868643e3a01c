//! What durable hooks have still to be told: pure.
//!
//! A hook that knows a version needs every delta after it, and to tell what they did the newest
//! checkpoint at or below it with the deltas in between (`manifest::history`). They are spared up to
//! a limit in time and number: one hook whose receiver is gone must not keep a manifest for ever. A
//! hook beyond the limit lags, and begins again with a snapshot.

use std::collections::BTreeMap;

use tidewater_common::ids::{ManifestVersion, RegionId};

use crate::layout::ManifestObject;
use crate::manifest::ManifestState;

/// The versions that hooks know, by region, and how long they are waited for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HookPositions {
    /// What each hook was told of each region last.
    pub known: BTreeMap<RegionId, Vec<ManifestVersion>>,
    /// A hook whose next delta is older is waited for no longer. Milliseconds since the Unix epoch.
    pub oldest_ms: u64,
    /// Versions that a hook may be behind.
    pub most: u64,
}

/// What is spared of one region's manifest: this checkpoint, and everything after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RetainedManifest {
    base: ManifestVersion,
}

impl RetainedManifest {
    /// Whether this object is spared.
    pub(super) fn has(self, object: ManifestObject) -> bool {
        match object {
            ManifestObject::Delta(version) => version > self.base,
            ManifestObject::Checkpoint(version) => version >= self.base,
        }
    }
}

impl HookPositions {
    /// What is spared of a region's manifest with these checkpoints; `None`: nothing.
    pub(super) fn spared(
        &self,
        state: &ManifestState,
        checkpoints: impl Iterator<Item = ManifestVersion>,
    ) -> Option<RetainedManifest> {
        let known = self.known.get(&state.dir.region_id)?;
        let least = *known.iter().filter(|version| self.is_worth(state, **version)).min()?;
        let base = checkpoints.filter(|version| *version <= least).max();
        Some(RetainedManifest { base: base.unwrap_or(ManifestVersion(0)) })
    }

    /// Whether a hook that knows this version is waited for.
    fn is_worth(&self, state: &ManifestState, known: ManifestVersion) -> bool {
        let behind = state.version.get().saturating_sub(known.get());
        // A delta of which the state has forgotten who wrote it counts for nobody any more.
        let in_time = || {
            let next = state.slots.get(&known.next());
            next.is_some_and(|slot| slot.time_ms >= self.oldest_ms)
        };
        behind == 0 || (behind <= self.most && in_time())
    }
}

#[cfg(test)]
mod tests {
    use tidewater_common::ids::WriterId;
    use uuid::Uuid;

    use super::*;
    use crate::manifest::samples::DIR;
    use crate::manifest::state::VersionSlot;

    /// At version 20, with checkpoints at 4, 8, 12, 16; version n was written at n times 10.
    fn spared(known: &[u64], oldest_ms: u64, most: u64) -> Option<u64> {
        let v = ManifestVersion;
        let mut state = ManifestState::empty(DIR);
        state.version = v(20);
        for version in 3..=20 {
            let slot = VersionSlot { writer: WriterId(Uuid::from_u128(1)), time_ms: version * 10 };
            state.slots.insert(v(version), slot);
        }
        let known = BTreeMap::from([(DIR.region_id, known.iter().copied().map(v).collect())]);
        let awaited = HookPositions { known, oldest_ms, most };
        awaited.spared(&state, [4, 8, 12, 16].into_iter().map(v)).map(|spared| spared.base.get())
    }

    #[test]
    fn the_least_version_counts_among_those_within_the_limits() {
        assert_eq!(spared(&[], 0, 100), None);
        assert_eq!(spared(&[13], 0, 100), Some(12));
        assert_eq!(spared(&[12], 0, 100), Some(12));
        assert_eq!(spared(&[18, 11, 13], 0, 100), Some(8));
        assert_eq!(spared(&[3], 0, 100), Some(0), "from the first delta on");
        // Too many.
        assert_eq!(spared(&[18, 11], 0, 8), Some(16));
        assert_eq!(spared(&[11], 0, 9), Some(8));
        // Too old: what comes next to 11 was written at 120.
        assert_eq!(spared(&[18, 11], 120, 100), Some(8));
        assert_eq!(spared(&[18, 11], 121, 100), Some(16));
        assert_eq!(spared(&[11], 121, 100), None);
        // Forgotten.
        assert_eq!(spared(&[1], 0, 100), None);
        // Told everything, however long ago.
        assert_eq!(spared(&[20], 1_000, 0), Some(16));
    }

    #[test]
    fn other_regions_are_not_waited_for() {
        let known = BTreeMap::from([(RegionId(99), vec![ManifestVersion(1)])]);
        let awaited = HookPositions { known, oldest_ms: 0, most: 100 };
        assert_eq!(awaited.spared(&ManifestState::empty(DIR), std::iter::empty()), None);
    }

    #[test]
    fn the_checkpoint_and_what_follows_it_is_spared() {
        let spared = RetainedManifest { base: ManifestVersion(8) };
        for (version, delta, checkpoint) in [(7, false, false), (8, false, true), (9, true, true)] {
            let version = ManifestVersion(version);
            assert_eq!(spared.has(ManifestObject::Delta(version)), delta, "{version}");
            assert_eq!(spared.has(ManifestObject::Checkpoint(version)), checkpoint, "{version}");
        }
    }
}
