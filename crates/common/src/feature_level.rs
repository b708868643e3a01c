//! Feature levels: forms that a cluster may write while its nodes run several releases.
//!
//! - *Feature level*: number of a set of forms: kinds of commands and rows of the meta group, kinds of
//!   entries of data groups, fields that change their effect, formats of snapshots and files. A form that an
//!   earlier release cannot read, or would apply in another way, has a level above that release's highest.
//! - *Level of the cluster*: part of the meta group's state. It begins at 1, is raised by one when all nodes
//!   support the next, and never falls. Each data group follows through its own log. Nothing of a higher
//!   level is written before, so that all nodes can return to their earlier release until then.
//! - *Release*: version of the software, with the range of levels at which it can run.

use std::fmt;

use tidewater_proto::v1;

use crate::quote::quoted;

/// Feature level of a cluster, of a group or of a form; from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FeatureLevel(u32);

impl FeatureLevel {
    /// Level of a new cluster, and of everything that was written before there were levels.
    pub const FIRST: Self = Self(1);
    /// Highest level that this release supports.
    ///
    /// - 2: the level can be raised; the header row of the catalog and snapshots of data groups carry it.
    ///   Observations of many nodes and groups are recorded by one command, the cursors of a hook are
    ///   created and deleted in steps, and new deadlines of loads are not published.
    /// - 3: operations on tables are procedures; the state has their records.
    /// - 4: an alteration is checked by all regions before the first one is altered; regions serve the schema
    ///   version before, too, which snapshots of data groups contain. Routes are split and merged.
    /// - 5: barriers begin epochs in data groups; rows have the epoch of their group.
    /// - 6: refreshable tables, their sources and refreshes.
    /// - 7: the table options `compaction_window` and `holds_events`.
    /// - 8: observed states of nodes, also of meta nodes, name the process that was observed; the state has the term of the
    ///   last agreement of the clocks.
    /// - 9: read holds, policies of tables, and the own oldest readable epoch of a table.
    /// - 10: exports of tables.
    /// - 11: held tables are dropped, and keep their rows until the last hold ends; the empty read policy; ids of collections
    ///   that are handed out.
    /// - 12: holds, policies and capabilities of refreshable tables, and their complete epochs; drops of unused ids of collections.
    pub const HIGHEST: Self = Self(12);
    /// Level of the table options `compaction_window` and `holds_events`.
    pub const EVENT_TABLES: Self = Self(7);
    /// Level from which on events of the catalog have the time of the clocks after an outage, and events of nodes are recorded
    /// once, also those of meta nodes.
    pub const EXACT_EVENTS: Self = Self(8);
    /// Level of read holds, of policies of tables, and of the table option `explicit_since`.
    pub const COLLECTIONS: Self = Self(9);
    /// Level of exports of tables.
    pub const EXPORTS: Self = Self(10);
    /// Level of drops of held tables, of the table option `dropped`, of the empty read policy, and of ids that are handed out.
    pub const HELD_DROPS: Self = Self(11);
    /// Level of holds, policies and capabilities of refreshable tables, and of the complete epochs of these tables.
    pub const HELD_REFRESHES: Self = Self(12);

    /// Creates a level; 0 is the first one: sent or stored by a release without levels.
    #[must_use]
    pub const fn new(level: u32) -> Self {
        if level == 0 { Self::FIRST } else { Self(level) }
    }

    /// Returns the plain number, for encoding and display.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// Returns the next level.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// Returns the level before this one; that of the first level is the first.
    #[must_use]
    pub const fn previous(self) -> Self {
        Self::new(self.0 - 1)
    }
}

impl Default for FeatureLevel {
    fn default() -> Self {
        Self::FIRST
    }
}

impl fmt::Display for FeatureLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Characters of a release's version that are kept.
const MAX_VERSION_CHARS: usize = 64;

/// Release of a node, and the levels at which it can run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// Version for people; `None` from a release without levels.
    pub version: Option<String>,
    /// Lowest level of a cluster with such a node.
    pub lowest: FeatureLevel,
    /// Highest level of a cluster with such a node.
    pub highest: FeatureLevel,
}

impl Release {
    /// Release of this process.
    #[must_use]
    pub fn own() -> Self {
        Self {
            version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            lowest: FeatureLevel::FIRST,
            highest: FeatureLevel::HIGHEST,
        }
    }

    /// A release that knows no levels: it can run at the first level only.
    #[must_use]
    pub fn without_levels() -> Self {
        Self { version: None, lowest: FeatureLevel::FIRST, highest: FeatureLevel::FIRST }
    }

    /// Checks that a node of this release can run in a cluster at this level.
    ///
    /// # Errors
    /// [`UnsupportedRelease`].
    pub fn check(&self, cluster: FeatureLevel) -> Result<(), UnsupportedRelease> {
        if cluster > self.highest {
            return Err(UnsupportedRelease::TooOld { release: self.clone(), cluster });
        }
        if cluster < self.lowest {
            return Err(UnsupportedRelease::TooNew { release: self.clone(), cluster });
        }
        Ok(())
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.version {
            Some(version) => write!(f, "release {}", quoted(version)),
            None => f.write_str("an earlier release, without feature levels"),
        }
    }
}

impl From<Option<v1::ReleaseInfo>> for Release {
    fn from(wire: Option<v1::ReleaseInfo>) -> Self {
        let Some(wire) = wire else { return Self::without_levels() };
        Self {
            version: Some(wire.release.chars().take(MAX_VERSION_CHARS).collect()),
            lowest: FeatureLevel::new(wire.lowest_level),
            highest: FeatureLevel::new(wire.highest_level),
        }
    }
}

impl From<&Release> for v1::ReleaseInfo {
    fn from(release: &Release) -> Self {
        Self {
            release: release.version.clone().unwrap_or_default(),
            lowest_level: release.lowest.get(),
            highest_level: release.highest.get(),
        }
    }
}

/// Error of a node that cannot run at the level of its cluster.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnsupportedRelease {
    /// The cluster has reached a higher level.
    #[error(
        "the node runs {release}, which supports feature levels up to {highest}, and the cluster is at level \
         {cluster}, which never falls: start a release on the node that supports level {cluster}",
        highest = release.highest
    )]
    TooOld {
        /// Release of the node.
        release: Release,
        /// Level of the cluster.
        cluster: FeatureLevel,
    },
    /// The release has dropped the support of the cluster's level.
    #[error(
        "the node runs {release}, which supports feature levels from {lowest}, and the cluster is at level \
         {cluster}: first upgrade all nodes to a release that supports both levels",
        lowest = release.lowest
    )]
    TooNew {
        /// Release of the node.
        release: Release,
        /// Level of the cluster.
        cluster: FeatureLevel,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(lowest: u32, highest: u32) -> Release {
        let release = "1.2".to_owned();
        Some(v1::ReleaseInfo { release, lowest_level: lowest, highest_level: highest }).into()
    }

    #[test]
    fn release_runs_at_the_levels_of_its_range() {
        for (lowest, highest, cluster, expected) in [
            (1, 1, 1, "runs"),
            (1, 2, 1, "runs"),
            (1, 2, 2, "runs"),
            (1, 1, 2, "too old"),
            (2, 3, 1, "too new"),
            (2, 3, 4, "too old"),
            (0, 0, 1, "runs"),
            (0, 0, 2, "too old"),
            (u32::MAX, u32::MAX, 1, "too new"),
        ] {
            let found = match release(lowest, highest).check(FeatureLevel::new(cluster)) {
                Ok(()) => "runs",
                Err(UnsupportedRelease::TooOld { .. }) => "too old",
                Err(UnsupportedRelease::TooNew { .. }) => "too new",
            };
            assert_eq!(found, expected, "{lowest} to {highest} at {cluster}");
        }
        assert_eq!(Release::own().check(FeatureLevel::FIRST), Ok(()));
        assert_eq!(Release::own().check(FeatureLevel::HIGHEST), Ok(()));
        assert!(Release::own().check(FeatureLevel::HIGHEST.next()).is_err());
    }

    #[test]
    fn release_without_levels_supports_the_first_only() {
        let older = Release::from(None);
        assert_eq!(older, Release::without_levels());
        assert_eq!(older.check(FeatureLevel::FIRST), Ok(()));
        let refused = older.check(FeatureLevel::new(2)).unwrap_err().to_string();
        assert!(refused.contains("an earlier release") && refused.contains("level 2"), "{refused}");
    }

    #[test]
    fn long_version_on_the_wire_is_cut() {
        let wire = v1::ReleaseInfo { release: "9".repeat(1_000), ..v1::ReleaseInfo::default() };
        assert_eq!(Release::from(Some(wire)).version.map(|text| text.len()), Some(64));
    }

    #[test]
    fn levels_follow_each_other() {
        assert_eq!(FeatureLevel::new(0), FeatureLevel::FIRST);
        assert_eq!(FeatureLevel::FIRST.next(), FeatureLevel::new(2));
        assert_eq!(FeatureLevel::new(3).previous(), FeatureLevel::new(2));
        assert_eq!(FeatureLevel::FIRST.previous(), FeatureLevel::FIRST);
        assert_eq!(FeatureLevel::new(u32::MAX).next(), FeatureLevel::new(u32::MAX));
    }
}
