//! Where the objects of a region lie, relative to the root of the store.

use std::fmt;

use object_store::path::Path;
use tidewater_common::ids::{FileId, Incarnation, ManifestVersion, RegionId, TableId};
use uuid::Uuid;

/// The directory of one region: `t<table id>/r<region id>-<incarnation>`.
///
/// The incarnation keeps ids apart that a cluster restored from a backup gives out again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RegionDir {
    /// The table that the region is a part of.
    pub table_id: TableId,
    /// The region.
    pub region_id: RegionId,
    /// Incarnation of the cluster in which the region was created.
    pub incarnation: Incarnation,
}

/// What an object in `manifest/` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ManifestObject {
    /// One committed change.
    Delta(ManifestVersion),
    /// The whole state at a version.
    Checkpoint(ManifestVersion),
}

impl RegionDir {
    /// The directory's path.
    pub fn path(&self) -> Path {
        Path::from(self.to_string())
    }

    /// The folder of the manifest.
    pub fn manifest(&self) -> Path {
        self.path().join("manifest")
    }

    /// `manifest/<20-digit version>.delta`
    pub fn delta(&self, version: ManifestVersion) -> Path {
        self.manifest().join(format!("{:020}.delta", version.get()))
    }

    /// `manifest/<20-digit version>.checkpoint`
    pub fn checkpoint(&self, version: ManifestVersion) -> Path {
        self.manifest().join(format!("{:020}.checkpoint", version.get()))
    }

    /// A name that sorts before every object of `version` and after those of the one before it.
    pub fn before(&self, version: ManifestVersion) -> Path {
        self.manifest().join(format!("{:020}", version.get()))
    }

    /// `manifest/_last_checkpoint`
    pub fn last_checkpoint(&self) -> Path {
        self.manifest().join("_last_checkpoint")
    }

    /// `data/<uuid>.parquet`
    pub fn data(&self, file: FileId) -> Path {
        self.path().join("data").join(format!("{file}.parquet"))
    }

    /// `index/<uuid>.<kind>`
    pub fn index(&self, index: Uuid, kind: &str) -> Path {
        self.path().join("index").join(format!("{index}.{kind}"))
    }
}

impl fmt::Display for RegionDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t{}/r{}-{}", self.table_id, self.region_id, self.incarnation)
    }
}

impl ManifestObject {
    /// Reads an object's name; `None` for anything that is neither delta nor checkpoint.
    pub fn parse(name: &str) -> Option<Self> {
        let (digits, kind) = name.split_once('.')?;
        if digits.len() != 20 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let version = ManifestVersion(digits.parse().ok()?);
        match kind {
            "delta" => Some(Self::Delta(version)),
            "checkpoint" => Some(Self::Checkpoint(version)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIR: RegionDir =
        RegionDir { table_id: TableId(3), region_id: RegionId(12), incarnation: Incarnation(1) };

    #[test]
    fn names_are_those_of_the_design() {
        assert_eq!(
            DIR.delta(ManifestVersion(7)).as_ref(),
            "t3/r12-1/manifest/00000000000000000007.delta"
        );
        assert_eq!(
            DIR.checkpoint(ManifestVersion(16)).as_ref(),
            "t3/r12-1/manifest/00000000000000000016.checkpoint"
        );
        assert_eq!(DIR.last_checkpoint().as_ref(), "t3/r12-1/manifest/_last_checkpoint");
        let file = FileId(Uuid::from_u128(1));
        assert_eq!(
            DIR.data(file).as_ref(),
            "t3/r12-1/data/00000000-0000-0000-0000-000000000001.parquet"
        );
    }

    #[test]
    fn an_offset_lies_between_two_versions() {
        let offset = DIR.before(ManifestVersion(7));
        assert!(DIR.delta(ManifestVersion(6)) < offset);
        assert!(offset < DIR.checkpoint(ManifestVersion(7)));
        assert!(offset < DIR.delta(ManifestVersion(7)));
    }

    #[test]
    fn names_parse_back_and_others_do_not() {
        for object in [
            ManifestObject::Delta(ManifestVersion(7)),
            ManifestObject::Checkpoint(ManifestVersion(u64::MAX)),
        ] {
            let path = match object {
                ManifestObject::Delta(version) => DIR.delta(version),
                ManifestObject::Checkpoint(version) => DIR.checkpoint(version),
            };
            assert_eq!(path.filename().and_then(ManifestObject::parse), Some(object));
        }
        for name in [
            "_last_checkpoint",
            "7.delta",
            "00000000000000000007.tmp",
            "00000000000000000007.delta#12",
            "+0000000000000000007.delta",
            "99999999999999999999.delta",
            "",
        ] {
            assert_eq!(ManifestObject::parse(name), None, "{name}");
        }
    }
}
