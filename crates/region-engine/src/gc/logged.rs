//! Manifest versions that the groups' logs have recorded (pure).
//!
//! A manifest that ends below the version that its region's log has recorded has lost deltas, for
//! example because an older copy of the store was restored. The files that those deltas added look
//! like orphans: the region is left alone.

use std::collections::{BTreeMap, BTreeSet};

use tidewater_common::ids::{ManifestVersion, RegionId};

use crate::layout::RegionDir;

/// The versions that the logs of the groups have recorded. Regions in neither are not checked: no
/// group serves them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoggedVersions {
    /// The recorded version, by region.
    pub known: BTreeMap<RegionDir, ManifestVersion>,
    /// Regions of the catalog of which no replica answered.
    pub unanswered: BTreeSet<RegionId>,
}

/// A reason to doubt that a manifest is complete.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ManifestDoubt {
    /// Deltas are missing at the end.
    #[error(
        "the manifest ends at version {found}, but the log of the region's group has recorded \
         version {logged}: restore the missing deltas"
    )]
    Behind {
        /// Last version in the store.
        found: ManifestVersion,
        /// Version that the log has recorded.
        logged: ManifestVersion,
    },
    /// No replica could be asked.
    #[error("no replica of the region answered: its manifest may end too early")]
    Unanswered,
}

impl LoggedVersions {
    /// Checks a manifest that was read to version `found`.
    pub(super) fn check(
        &self,
        dir: RegionDir,
        found: ManifestVersion,
    ) -> Result<(), ManifestDoubt> {
        match self.known.get(&dir) {
            Some(&logged) if found < logged => Err(ManifestDoubt::Behind { found, logged }),
            Some(_) => Ok(()),
            None if self.unanswered.contains(&dir.region_id) => Err(ManifestDoubt::Unanswered),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::samples::DIR;

    #[test]
    fn manifest_is_doubted_below_the_logged_version() {
        let v = ManifestVersion;
        let known = |version| LoggedVersions {
            known: BTreeMap::from([(DIR, v(version))]),
            ..LoggedVersions::default()
        };
        let unanswered = LoggedVersions {
            unanswered: BTreeSet::from([DIR.region_id]),
            ..LoggedVersions::default()
        };
        let behind = Err(ManifestDoubt::Behind { found: v(5), logged: v(7) });
        for (logged, found, expected) in [
            (known(7), 5, behind),
            (known(7), 7, Ok(())),
            // The log learns of a version after it was committed.
            (known(7), 8, Ok(())),
            (LoggedVersions::default(), 5, Ok(())),
            (unanswered, 5, Err(ManifestDoubt::Unanswered)),
        ] {
            assert_eq!(logged.check(DIR, v(found)), expected, "{logged:?}");
        }
    }
}
