//! Manifest entry of a data file.

use tidewater_common::ids::{Epoch, FileId, SchemaVersion, Sequence};
use tidewater_common::keys::KeyRange;
use uuid::Uuid;

use crate::layout::RegionDir;

/// Reference to a data file in the manifest. Two regions, or two references of one region, may show
/// different parts of the same file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileMeta {
    /// Id of the file; a UUIDv7 whose time garbage collection compares with its floor.
    pub file_id: FileId,
    /// Directory of the region that wrote the file, which contains it.
    pub origin: RegionDir,
    /// Key range of the file that this reference may show. Every read and check honours it; it is never
    /// inferred from the region's own range.
    pub clip: KeyRange,
    /// 0 for a flushed file; compaction outputs have higher levels.
    pub level: u32,
    /// Size of the object in bytes.
    pub size: u64,
    /// Rows in the whole file, including deletes.
    pub rows: u64,
    /// Row groups in the whole file.
    pub row_groups: u32,
    /// Least row key in the whole file.
    pub min_key: Vec<u8>,
    /// Greatest row key in the whole file.
    pub max_key: Vec<u8>,
    /// Least and greatest value of the time column, in its own unit; `None` without a time column.
    pub time: Option<TimeRange>,
    /// Least sequence stored in the file; see [`FileMeta::min_sequence`].
    pub stored_min_sequence: Sequence,
    /// Greatest sequence stored in the file; see [`FileMeta::max_sequence`].
    pub stored_max_sequence: Sequence,
    /// Least epoch stored in the file.
    pub stored_min_epoch: Epoch,
    /// Greatest epoch stored in the file.
    pub stored_max_epoch: Epoch,
    /// Number of rows that are deletes.
    pub deletes: u64,
    /// True if no key occurs twice in the file.
    pub one_version_per_key: bool,
    /// Version of the schema with which the file was written.
    pub schema_version: SchemaVersion,
    /// Indexes built for this file.
    pub indexes: Vec<IndexMeta>,
    /// Sequence and epoch of every row, instead of the stored ones: for files of bulk loads.
    pub stamp: Option<Stamp>,
    /// crc32c of the whole object.
    pub checksum: u32,
    /// End of the object: page indexes and footer. Parquet has no checksum for them, so readers verify
    /// this one before they use an offset, a type or a field id.
    pub tail: FileTail,
}

/// End of a data file, from its page indexes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileTail {
    /// Bytes from the end of the last row group to the end of the object.
    pub length: u64,
    /// crc32c of those bytes.
    pub checksum: u32,
}

/// Least and greatest value of a time column, both inclusive, in the column's unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeRange {
    /// Least value.
    pub min: i64,
    /// Greatest value.
    pub max: i64,
}

impl TimeRange {
    /// Returns the smallest range that contains both ranges.
    pub(crate) fn and(self, other: Option<Self>) -> Self {
        let Some(other) = other else { return self };
        Self { min: self.min.min(other.min), max: self.max.max(other.max) }
    }
}

/// Sequence and epoch that override those stored in the rows of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Sequence of every row.
    pub sequence: Sequence,
    /// Epoch of every row.
    pub epoch: Epoch,
}

/// An index object that belongs to a data file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexMeta {
    /// Id of the index; a UUIDv7, different from the data file's id.
    pub index_id: Uuid,
    /// Kind of the index; also the extension of the object.
    pub kind: String,
    /// Version of the schema with which the index was built.
    pub schema_version: SchemaVersion,
    /// Size of the object in bytes.
    pub size: u64,
    /// crc32c of the whole object.
    pub checksum: u32,
}

/// Key of a file reference within a region: the same file may be live twice with different clips.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileRef {
    /// Id of the file.
    pub file_id: FileId,
    /// First row key that the reference may show.
    pub clip_start: Vec<u8>,
    /// Row key after the last one that the reference may show (exclusive); `None`: the end of the key
    /// space.
    pub clip_end: Option<Vec<u8>>,
}

impl FileMeta {
    /// Returns the key of this reference.
    pub fn reference(&self) -> FileRef {
        FileRef {
            file_id: self.file_id,
            clip_start: self.clip.start.clone(),
            clip_end: self.clip.end.clone(),
        }
    }

    /// Path of the object, relative to the root of the store.
    pub fn path(&self) -> object_store::path::Path {
        self.origin.data(self.file_id)
    }

    /// Least sequence of a row, including the override by `stamp`.
    pub fn min_sequence(&self) -> Sequence {
        self.stamp.map_or(self.stored_min_sequence, |stamp| stamp.sequence)
    }

    /// Greatest sequence of a row, including the override by `stamp`.
    pub fn max_sequence(&self) -> Sequence {
        self.stamp.map_or(self.stored_max_sequence, |stamp| stamp.sequence)
    }

    /// Least epoch of a row, including the override by `stamp`.
    pub fn min_epoch(&self) -> Epoch {
        self.stamp.map_or(self.stored_min_epoch, |stamp| stamp.epoch)
    }

    /// Returns the least and greatest row key that the reference may show; `None` if its clip excludes all
    /// keys of the file.
    pub fn shown_keys(&self) -> Option<(&[u8], &[u8])> {
        let low = self.min_key.as_slice().max(&self.clip.start);
        // The end of the clip is exclusive; as an inclusive bound it admits one key too many.
        let high = match &self.clip.end {
            Some(end) if *end <= self.max_key => end.as_slice(),
            _ => self.max_key.as_slice(),
        };
        let shows = self.clip.intersects_inclusive(&self.min_key, &self.max_key);
        (shows && low <= high).then_some((low, high))
    }

    /// Returns a reference whose clip is the intersection of this one's clip and `range`.
    #[must_use]
    pub fn clipped(&self, range: &KeyRange) -> Self {
        Self { clip: self.clip.intersection(range), ..self.clone() }
    }

    /// Greatest epoch of a row, including the override by `stamp`.
    pub fn max_epoch(&self) -> Epoch {
        self.stamp.map_or(self.stored_max_epoch, |stamp| stamp.epoch)
    }
}

/// Returns the smallest range that contains the clips of all files.
pub(crate) fn hull<'a>(files: impl Iterator<Item = &'a FileMeta> + Clone) -> KeyRange {
    let start = files.clone().map(|file| file.clip.start.clone()).min().unwrap_or_default();
    let ends: Option<Vec<_>> = files.map(|file| file.clip.end.clone()).collect();
    KeyRange { start, end: ends.and_then(|ends| ends.into_iter().max()) }
}

impl FileRef {
    /// Key range that the reference may show.
    pub fn clip(&self) -> KeyRange {
        KeyRange { start: self.clip_start.clone(), end: self.clip_end.clone() }
    }
}

impl std::fmt::Display for FileRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.file_id.fmt(f)
    }
}
