//! What the manifest says about one data file.

use tidewater_common::ids::{Epoch, FileId, SchemaVersion, Sequence};
use tidewater_common::keys::KeyRange;
use uuid::Uuid;

use crate::layout::RegionDir;

/// One reference to a data file, as it stands in the manifest. Two regions, or two references of
/// one region, may show different parts of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileMeta {
    /// Names the object; UUIDv7, its time matters to garbage collection.
    pub file_id: FileId,
    /// The region that wrote the file and in whose directory it lies.
    pub origin: RegionDir,
    /// The part of the file that this reference may show. Every read and check honours it; it is
    /// never inferred from the region's own range.
    pub clip: KeyRange,
    /// 0: straight from a memtable; compaction puts its outputs higher.
    pub level: u32,
    /// Size of the object in bytes.
    pub size: u64,
    /// Rows in the whole file, deletes included.
    pub rows: u64,
    /// Row groups in the whole file.
    pub row_groups: u32,
    /// Least row key in the whole file.
    pub min_key: Vec<u8>,
    /// Greatest row key in the whole file.
    pub max_key: Vec<u8>,
    /// Least and greatest value of the time column, in its own unit; `None` without one.
    pub time: Option<TimeRange>,
    /// Least sequence stored in the file; see [`FileMeta::min_sequence`].
    pub stored_min_sequence: Sequence,
    /// Greatest sequence stored in the file; see [`FileMeta::max_sequence`].
    pub stored_max_sequence: Sequence,
    /// Least epoch stored in the file.
    pub stored_min_epoch: Epoch,
    /// Greatest epoch stored in the file.
    pub stored_max_epoch: Epoch,
    /// Rows that are deletes.
    pub deletes: u64,
    /// Whether no key occurs twice in the file.
    pub one_version_per_key: bool,
    /// Schema that the file was written with.
    pub schema_version: SchemaVersion,
    /// Indexes built for this file.
    pub indexes: Vec<IndexMeta>,
    /// Sequence and epoch of every row, in place of those stored: for files that no flush wrote.
    pub stamp: Option<Stamp>,
    /// crc32c of the whole object.
    pub checksum: u32,
    /// The end of the object: page indexes and footer. Parquet has no checksum for them, so readers
    /// check this one before they believe an offset, a type or a field id.
    pub tail: FileTail,
}

/// The end of a data file, from its page indexes on.
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
    /// The least range that holds both.
    pub(crate) fn and(self, other: Option<Self>) -> Self {
        let Some(other) = other else { return self };
        Self { min: self.min.min(other.min), max: self.max.max(other.max) }
    }
}

/// Overrides the sequence and epoch of every row of a file.
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
    /// Names the object; UUIDv7, never the data file's id.
    pub index_id: Uuid,
    /// What kind of index; also the object's extension.
    pub kind: String,
    /// Schema that it was built under.
    pub schema_version: SchemaVersion,
    /// Size of the object in bytes.
    pub size: u64,
    /// crc32c of the whole object.
    pub checksum: u32,
}

/// Names one reference to a file within a region: the same file may be live twice, clipped
/// differently.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileRef {
    /// The file.
    pub file_id: FileId,
    /// First row key that the reference may show.
    pub clip_start: Vec<u8>,
    /// First row key that it may not show any more; `None`: to the end of the key space.
    pub clip_end: Option<Vec<u8>>,
}

impl FileMeta {
    /// Names this reference.
    pub fn reference(&self) -> FileRef {
        FileRef {
            file_id: self.file_id,
            clip_start: self.clip.start.clone(),
            clip_end: self.clip.end.clone(),
        }
    }

    /// Where the object lies, relative to the root of the store.
    pub fn path(&self) -> object_store::path::Path {
        self.origin.data(self.file_id)
    }

    /// Least sequence of a row, as readers must see it.
    pub fn min_sequence(&self) -> Sequence {
        self.stamp.map_or(self.stored_min_sequence, |stamp| stamp.sequence)
    }

    /// Greatest sequence of a row, as readers must see it.
    pub fn max_sequence(&self) -> Sequence {
        self.stamp.map_or(self.stored_max_sequence, |stamp| stamp.sequence)
    }

    /// Least epoch of a row, as readers must see it.
    pub fn min_epoch(&self) -> Epoch {
        self.stamp.map_or(self.stored_min_epoch, |stamp| stamp.epoch)
    }

    /// The least and greatest row key that the reference may show; `None` when its clip admits none
    /// of the file's keys.
    pub fn shown_keys(&self) -> Option<(&[u8], &[u8])> {
        let low = self.min_key.as_slice().max(&self.clip.start);
        // The end of the clip is exclusive; as a bound it is one key too generous.
        let high = match &self.clip.end {
            Some(end) if *end <= self.max_key => end.as_slice(),
            _ => self.max_key.as_slice(),
        };
        let shows = self.clip.intersects_inclusive(&self.min_key, &self.max_key);
        (shows && low <= high).then_some((low, high))
    }

    /// A reference that shows only what this one and a range both admit.
    #[must_use]
    pub fn clipped(&self, range: &KeyRange) -> Self {
        Self { clip: self.clip.intersection(range), ..self.clone() }
    }

    /// Greatest epoch of a row, as readers must see it.
    pub fn max_epoch(&self) -> Epoch {
        self.stamp.map_or(self.stored_max_epoch, |stamp| stamp.epoch)
    }
}

/// The least range that holds the clip ranges of all files.
pub(crate) fn hull<'a>(files: impl Iterator<Item = &'a FileMeta> + Clone) -> KeyRange {
    let start = files.clone().map(|file| file.clip.start.clone()).min().unwrap_or_default();
    let ends: Option<Vec<_>> = files.map(|file| file.clip.end.clone()).collect();
    KeyRange { start, end: ends.and_then(|ends| ends.into_iter().max()) }
}

impl FileRef {
    /// The clip range.
    pub fn clip(&self) -> KeyRange {
        KeyRange { start: self.clip_start.clone(), end: self.clip_end.clone() }
    }
}

impl std::fmt::Display for FileRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.file_id.fmt(f)
    }
}
