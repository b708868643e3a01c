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

/// What an object in a region's directory is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum RegionObject {
    /// In `manifest/`.
    Manifest(ManifestObject),
    /// A data file.
    Data(FileId),
    /// An index of a data file.
    Index(Uuid),
    /// Nothing that the engine names, or the hint of the last checkpoint.
    Other,
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
    /// Reads a directory's name, `t3/r12-1`; `None` for anything else.
    pub fn parse(name: &str) -> Option<Self> {
        let (table, region) = name.strip_prefix('t')?.split_once("/r")?;
        let (region, incarnation) = region.split_once('-')?;
        let dir = Self {
            table_id: TableId(table.parse().ok()?),
            region_id: RegionId(region.parse().ok()?),
            incarnation: Incarnation(incarnation.parse().ok()?),
        };
        // What is written in another way is not ours.
        (dir.to_string() == name).then_some(dir)
    }

    /// What an object below this directory is.
    pub fn object(&self, path: &Path) -> RegionObject {
        let parts = path.prefix_match(&self.path()).map(|parts| parts.collect::<Vec<_>>());
        let Some([folder, name]) = parts.as_deref() else { return RegionObject::Other };
        let (folder, name) = (folder.as_ref(), name.as_ref());
        let known = match folder {
            "manifest" => ManifestObject::parse(name).map(RegionObject::Manifest),
            "data" => name
                .strip_suffix(".parquet")
                .and_then(|id| Uuid::try_parse(id).ok())
                .map(|id| RegionObject::Data(FileId(id))),
            "index" => name
                .split_once('.')
                .and_then(|(id, _)| Uuid::try_parse(id).ok())
                .map(RegionObject::Index),
            _ => None,
        };
        known.unwrap_or(RegionObject::Other)
    }

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
    fn directories_parse_back_and_others_do_not() {
        assert_eq!(RegionDir::parse("t3/r12-1"), Some(DIR));
        for name in
            ["t3", "t3/r12", "t3/r12-1/data", "t03/r12-1", "x3/r12-1", "t3/r+12-1", "t3/12-1"]
        {
            assert_eq!(RegionDir::parse(name), None, "{name}");
        }
    }

    #[test]
    fn objects_are_known_by_folder_and_name() {
        let id = Uuid::from_u128(7);
        let manifest = ManifestObject::Delta(ManifestVersion(7));
        for (path, object) in [
            (DIR.data(FileId(id)), RegionObject::Data(FileId(id))),
            (DIR.index(id, "bloom"), RegionObject::Index(id)),
            (DIR.delta(ManifestVersion(7)), RegionObject::Manifest(manifest)),
            (DIR.last_checkpoint(), RegionObject::Other),
            (DIR.path().join("data").join("notes.txt"), RegionObject::Other),
            (DIR.path().join("data").join("x").join("y.parquet"), RegionObject::Other),
            (
                Path::from("t4/r12-1/data/00000000-0000-0000-0000-000000000007.parquet"),
                RegionObject::Other,
            ),
        ] {
            assert_eq!(DIR.object(&path), object, "{path}");
        }
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
