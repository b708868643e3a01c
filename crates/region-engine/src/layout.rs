//! Paths of the objects of a region, relative to the root of the store.

use std::fmt;

use object_store::path::Path;
use tidewater_common::ids::{FileId, Incarnation, ManifestVersion, RegionId, TableId};
use uuid::Uuid;

/// Directory of one region: `t<table id>/r<region id>-<incarnation>`.
///
/// The incarnation distinguishes ids that a cluster assigns again after a restore from a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RegionDir {
    /// Id of the table that contains the region.
    pub table_id: TableId,
    /// Id of the region.
    pub region_id: RegionId,
    /// Incarnation of the cluster in which the region was created.
    pub incarnation: Incarnation,
}

/// Kind of an object in a region's directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum RegionObject {
    /// A delta or a checkpoint in `manifest/`.
    Manifest(ManifestObject),
    /// A data file.
    Data(FileId),
    /// An index of a data file.
    Index(Uuid),
    /// An object that the engine did not write, or the hint of the last checkpoint.
    Other,
}

/// Kind of an object in `manifest/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ManifestObject {
    /// One committed change.
    Delta(ManifestVersion),
    /// The full state at a version.
    Checkpoint(ManifestVersion),
}

impl RegionDir {
    /// Parses a directory name such as `t3/r12-1`; `None` for any other name.
    pub fn parse(name: &str) -> Option<Self> {
        let (table, region) = name.strip_prefix('t')?.split_once("/r")?;
        let (region, incarnation) = region.split_once('-')?;
        let dir = Self {
            table_id: TableId(table.parse().ok()?),
            region_id: RegionId(region.parse().ok()?),
            incarnation: Incarnation(incarnation.parse().ok()?),
        };
        // The engine writes only the canonical form, without leading zeros or signs.
        (dir.to_string() == name).then_some(dir)
    }

    /// Returns the kind of an object below this directory.
    pub fn object(&self, path: &Path) -> RegionObject {
        let parts = path.prefix_match(&self.path()).map(|parts| parts.collect::<Vec<_>>());
        let Some([directory, name]) = parts.as_deref() else { return RegionObject::Other };
        let name = name.as_ref();
        let known = match directory.as_ref() {
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

    /// Path of the directory.
    pub fn path(&self) -> Path {
        Path::from(self.to_string())
    }

    /// Path of the manifest directory.
    pub fn manifest(&self) -> Path {
        self.path().join("manifest")
    }

    /// Path of a delta: `manifest/<20-digit version>.delta`.
    pub fn delta(&self, version: ManifestVersion) -> Path {
        self.manifest().join(format!("{:020}.delta", version.get()))
    }

    /// Path of a checkpoint: `manifest/<20-digit version>.checkpoint`.
    pub fn checkpoint(&self, version: ManifestVersion) -> Path {
        self.manifest().join(format!("{:020}.checkpoint", version.get()))
    }

    /// Returns a path that sorts before every object of `version` and after those of the previous version;
    /// used as the offset of a listing.
    pub fn before(&self, version: ManifestVersion) -> Path {
        self.manifest().join(format!("{:020}", version.get()))
    }

    /// Path of the checkpoint hint: `manifest/_last_checkpoint`.
    pub fn last_checkpoint(&self) -> Path {
        self.manifest().join("_last_checkpoint")
    }

    /// Path of a data file: `data/<uuid>.parquet`.
    pub fn data(&self, file: FileId) -> Path {
        self.path().join("data").join(format!("{file}.parquet"))
    }

    /// Path of an index: `index/<uuid>.<kind>`.
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
    /// Parses an object name; `None` if it is neither a delta nor a checkpoint.
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
    fn object_paths_have_the_documented_form() {
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
    fn listing_offset_sorts_between_two_versions() {
        let offset = DIR.before(ManifestVersion(7));
        assert!(DIR.delta(ManifestVersion(6)) < offset);
        assert!(offset < DIR.checkpoint(ManifestVersion(7)));
        assert!(offset < DIR.delta(ManifestVersion(7)));
    }

    #[test]
    fn region_dir_parses_only_canonical_names() {
        assert_eq!(RegionDir::parse("t3/r12-1"), Some(DIR));
        for name in
            ["t3", "t3/r12", "t3/r12-1/data", "t03/r12-1", "x3/r12-1", "t3/r+12-1", "t3/12-1"]
        {
            assert_eq!(RegionDir::parse(name), None, "{name}");
        }
    }

    #[test]
    fn object_kind_depends_on_directory_and_name() {
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
    fn manifest_object_parses_only_canonical_names() {
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
