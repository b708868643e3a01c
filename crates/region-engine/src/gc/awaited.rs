//! Versions and files that durable hooks still need (pure).
//!
//! A hook at a known version needs every delta after it, and, to compute their effects, the newest
//! checkpoint at or below that version with the deltas in between (`manifest::history`). Garbage
//! collection keeps them up to a limit in time and number: a hook whose receiver is down must not
//! keep a manifest forever. A hook beyond the limit lags, and restarts from a snapshot.
//!
//! The receiver of a version may read the data files that were live at it. Files that a later version
//! removed are kept within the same limits: the region's floor stays at the time of the first version
//! that a hook has yet to receive, because a manifest forgets removed files below its floor. The floor
//! also refuses late references to old objects of other regions, so a region with a lower floor
//! that references other regions spares their candidates.

use std::collections::BTreeMap;

use tidewater_common::ids::{ManifestVersion, RegionId};

use crate::layout::ManifestObject;
use crate::manifest::ManifestState;

/// The versions that hooks have received, by region, and the limits of keeping the versions after
/// them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HookPositions {
    /// The last version that each hook received of each region.
    pub known: BTreeMap<RegionId, Vec<ManifestVersion>>,
    /// A hook whose next delta is older is ignored. Milliseconds since the Unix epoch.
    pub oldest_ms: u64,
    /// Number of versions that a hook may be behind.
    pub max_versions_behind: u64,
}

/// Times up to which a pass collects in one region, milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegionFloor {
    /// The floor of the pass.
    pub pass_ms: u64,
    /// The floor of the region: that of the pass, or earlier while a hook has yet to receive a version
    /// before it. Objects between the two are kept for the hook.
    pub region_ms: u64,
}

impl RegionFloor {
    /// Returns the floor of a region for which no hook waits.
    pub fn of_pass(pass_ms: u64) -> Self {
        Self { pass_ms, region_ms: pass_ms }
    }
}

/// The part of one region's manifest that is kept: this checkpoint, and everything after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RetainedManifest {
    base: ManifestVersion,
}

impl RetainedManifest {
    /// Returns `true` if this object is kept.
    pub(super) fn has(self, object: ManifestObject) -> bool {
        match object {
            ManifestObject::Delta(version) => version > self.base,
            ManifestObject::Checkpoint(version) => version >= self.base,
        }
    }
}

impl HookPositions {
    /// Returns the part of a region's manifest that is kept, given its checkpoints; `None`:
    /// nothing.
    pub(super) fn retained(
        &self,
        state: &ManifestState,
        checkpoints: impl Iterator<Item = ManifestVersion>,
    ) -> Option<RetainedManifest> {
        let least = self.least(state)?;
        let base = checkpoints.filter(|version| *version <= least).max();
        Some(RetainedManifest { base: base.unwrap_or(ManifestVersion(0)) })
    }

    /// Returns the floor of a region in a pass with this floor: files are kept that a version
    /// removed which a hook has yet to receive.
    pub(super) fn floor(&self, state: &ManifestState, pass_ms: u64) -> RegionFloor {
        let Some(least) = self.least(state) else { return RegionFloor::of_pass(pass_ms) };
        let times = state.slots.range(least.next()..).map(|(_, slot)| slot.time_ms);
        let region_ms = times.min().map_or(pass_ms, |since| since.min(pass_ms));
        RegionFloor { pass_ms, region_ms }
    }

    /// Returns the least version that a hook within the limits has received.
    fn least(&self, state: &ManifestState) -> Option<ManifestVersion> {
        let known = self.known.get(&state.dir.region_id)?;
        known.iter().filter(|version| self.is_within_limits(state, **version)).min().copied()
    }

    /// Returns `true` if a hook at this version is within the limits.
    fn is_within_limits(&self, state: &ManifestState, known: ManifestVersion) -> bool {
        let behind = state.version.get().saturating_sub(known.get());
        // A delta whose writer is no longer in the state is too old for any reader.
        let in_time = || {
            let next = state.slots.get(&known.next());
            next.is_some_and(|slot| slot.time_ms >= self.oldest_ms)
        };
        behind == 0 || (behind <= self.max_versions_behind && in_time())
    }
}

#[cfg(test)]
mod tests {
    use tidewater_common::ids::WriterId;
    use uuid::Uuid;

    use super::*;
    use crate::manifest::samples::DIR;
    use crate::manifest::state::VersionSlot;

    /// A state at version 20; version n was written at n times 10.
    fn state() -> ManifestState {
        let mut state = ManifestState::empty(DIR);
        state.version = ManifestVersion(20);
        for version in 3..=20 {
            let slot = VersionSlot { writer: WriterId(Uuid::from_u128(1)), time_ms: version * 10 };
            state.slots.insert(ManifestVersion(version), slot);
        }
        state
    }

    fn positions(known: &[u64], oldest_ms: u64, most: u64) -> HookPositions {
        let known = known.iter().copied().map(ManifestVersion).collect();
        let known = BTreeMap::from([(DIR.region_id, known)]);
        HookPositions { known, oldest_ms, max_versions_behind: most }
    }

    /// With checkpoints at 4, 8, 12, 16.
    fn retained(known: &[u64], oldest_ms: u64, most: u64) -> Option<u64> {
        let v = ManifestVersion;
        positions(known, oldest_ms, most)
            .retained(&state(), [4, 8, 12, 16].into_iter().map(v))
            .map(|retained| retained.base.get())
    }

    #[test]
    fn least_hook_version_within_limits_is_retained() {
        assert_eq!(retained(&[], 0, 100), None);
        assert_eq!(retained(&[13], 0, 100), Some(12));
        assert_eq!(retained(&[12], 0, 100), Some(12));
        assert_eq!(retained(&[18, 11, 13], 0, 100), Some(8));
        assert_eq!(retained(&[3], 0, 100), Some(0), "from the first delta on");
        // Too many versions behind.
        assert_eq!(retained(&[18, 11], 0, 8), Some(16));
        assert_eq!(retained(&[11], 0, 9), Some(8));
        // Too old: the version after 11 was written at 120.
        assert_eq!(retained(&[18, 11], 120, 100), Some(8));
        assert_eq!(retained(&[18, 11], 121, 100), Some(16));
        assert_eq!(retained(&[11], 121, 100), None);
        // No longer in the slots.
        assert_eq!(retained(&[1], 0, 100), None);
        // A hook that has received everything is never too old.
        assert_eq!(retained(&[20], 1_000, 0), Some(16));
    }

    #[test]
    fn floor_stays_at_first_version_that_hook_awaits() {
        let floor = |known: &[u64], oldest, most| {
            let floor = positions(known, oldest, most).floor(&state(), 175);
            assert_eq!(floor.pass_ms, 175);
            floor.region_ms
        };
        assert_eq!(floor(&[], 0, 100), 175);
        assert_eq!(floor(&[20], 0, 100), 175, "the hook has received everything");
        assert_eq!(floor(&[18], 0, 100), 175, "the next version is above the floor");
        assert_eq!(floor(&[18, 11, 13], 0, 100), 120);
        // Beyond a limit.
        assert_eq!(floor(&[18, 11], 0, 8), 175);
        assert_eq!(floor(&[13, 11], 121, 100), 140);
        // Clocks of writers differ: the least time counts.
        let mut late = state();
        if let Some(slot) = late.slots.get_mut(&ManifestVersion(15)) {
            slot.time_ms = 33;
        }
        assert_eq!(positions(&[11], 0, 100).floor(&late, 175).region_ms, 33);
    }

    #[test]
    fn positions_of_other_regions_retain_nothing() {
        let known = BTreeMap::from([(RegionId(99), vec![ManifestVersion(1)])]);
        let positions = HookPositions { known, oldest_ms: 0, max_versions_behind: 100 };
        assert_eq!(positions.retained(&ManifestState::empty(DIR), std::iter::empty()), None);
    }

    #[test]
    fn base_checkpoint_and_later_versions_are_retained() {
        let retained = RetainedManifest { base: ManifestVersion(8) };
        for (version, delta, checkpoint) in [(7, false, false), (8, false, true), (9, true, true)] {
            let version = ManifestVersion(version);
            assert_eq!(retained.has(ManifestObject::Delta(version)), delta, "{version}");
            assert_eq!(retained.has(ManifestObject::Checkpoint(version)), checkpoint, "{version}");
        }
    }
}
