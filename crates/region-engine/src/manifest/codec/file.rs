//! Conversion of files, references, ranges and ids to and from protobuf.

use bytes::Bytes;
use tidewater_common::ids::{
    Epoch, FileId, Incarnation, OwnerEpoch, RegionId, SchemaVersion, Sequence, TableId, Term,
};
use tidewater_common::keys::KeyRange;
use tidewater_proto::v1;
use uuid::Uuid;

use super::CodecError;
use crate::file_meta::{FileMeta, FileRef, FileTail, IndexMeta, Stamp, TimeRange};
use crate::layout::RegionDir;

pub(super) fn uuid_bytes(id: &Uuid) -> Bytes {
    Bytes::copy_from_slice(id.as_bytes())
}

pub(super) fn uuid(bytes: &[u8], field: &str) -> Result<Uuid, CodecError> {
    Uuid::from_slice(bytes).map_err(|_| CodecError::missing(field))
}

pub(super) fn range(
    message: Option<v1::ManifestKeyRange>,
    field: &str,
) -> Result<KeyRange, CodecError> {
    message.map(KeyRange::from_message).ok_or_else(|| CodecError::missing(field))
}

pub(super) trait RangeMessage {
    fn to_message(&self) -> v1::ManifestKeyRange;
    fn from_message(message: v1::ManifestKeyRange) -> Self;
}

impl RangeMessage for KeyRange {
    fn to_message(&self) -> v1::ManifestKeyRange {
        v1::ManifestKeyRange {
            start: self.start.clone().into(),
            end: self.end.clone().map(Bytes::from),
        }
    }

    fn from_message(message: v1::ManifestKeyRange) -> Self {
        Self { start: message.start.to_vec(), end: message.end.map(|end| end.to_vec()) }
    }
}

pub(super) fn owner_epoch_message(epoch: OwnerEpoch) -> v1::ManifestOwnerEpoch {
    v1::ManifestOwnerEpoch { move_epoch: epoch.move_epoch, term: epoch.term.get() }
}

pub(super) fn owner_epoch(message: v1::ManifestOwnerEpoch) -> OwnerEpoch {
    OwnerEpoch { move_epoch: message.move_epoch, term: Term(message.term) }
}

impl From<RegionDir> for v1::ManifestRegionDir {
    fn from(dir: RegionDir) -> Self {
        Self {
            table_id: dir.table_id.get(),
            region_id: dir.region_id.get(),
            incarnation: dir.incarnation.get(),
        }
    }
}

pub(super) fn region_dir(
    message: Option<v1::ManifestRegionDir>,
    field: &str,
) -> Result<RegionDir, CodecError> {
    message.map(RegionDir::from).ok_or_else(|| CodecError::missing(field))
}

impl From<v1::ManifestRegionDir> for RegionDir {
    fn from(message: v1::ManifestRegionDir) -> Self {
        Self {
            table_id: TableId(message.table_id),
            region_id: RegionId(message.region_id),
            incarnation: Incarnation(message.incarnation),
        }
    }
}

impl From<&FileRef> for v1::ManifestFileRef {
    fn from(file: &FileRef) -> Self {
        Self { file_id: uuid_bytes(&file.file_id.0), clip: Some(file.clip().to_message()) }
    }
}

impl TryFrom<v1::ManifestFileRef> for FileRef {
    type Error = CodecError;

    fn try_from(message: v1::ManifestFileRef) -> Result<Self, CodecError> {
        let clip = range(message.clip, "clip")?;
        Ok(Self {
            file_id: FileId(uuid(&message.file_id, "file id")?),
            clip_start: clip.start,
            clip_end: clip.end,
        })
    }
}

impl From<&IndexMeta> for v1::ManifestIndex {
    fn from(index: &IndexMeta) -> Self {
        Self {
            index_id: uuid_bytes(&index.index_id),
            kind: index.kind.clone(),
            schema_version: index.schema_version.get(),
            size: index.size,
            checksum: index.checksum,
        }
    }
}

impl TryFrom<v1::ManifestIndex> for IndexMeta {
    type Error = CodecError;

    fn try_from(message: v1::ManifestIndex) -> Result<Self, CodecError> {
        Ok(Self {
            index_id: uuid(&message.index_id, "index id")?,
            kind: message.kind,
            schema_version: SchemaVersion(message.schema_version),
            size: message.size,
            checksum: message.checksum,
        })
    }
}

impl From<&FileMeta> for v1::ManifestFile {
    fn from(file: &FileMeta) -> Self {
        Self {
            file_id: uuid_bytes(&file.file_id.0),
            origin: Some(file.origin.into()),
            clip: Some(file.clip.to_message()),
            level: file.level,
            size: file.size,
            rows: file.rows,
            row_groups: file.row_groups,
            min_key: file.min_key.clone().into(),
            max_key: file.max_key.clone().into(),
            time: file.time.map(|time| v1::ManifestTimeRange { min: time.min, max: time.max }),
            min_sequence: file.stored_min_sequence.get(),
            max_sequence: file.stored_max_sequence.get(),
            min_epoch: file.stored_min_epoch.get(),
            max_epoch: file.stored_max_epoch.get(),
            deletes: file.deletes,
            one_version_per_key: file.one_version_per_key,
            schema_version: file.schema_version.get(),
            indexes: file.indexes.iter().map(Into::into).collect(),
            stamp: file.stamp.map(|stamp| v1::ManifestStamp {
                sequence: stamp.sequence.get(),
                epoch: stamp.epoch.get(),
            }),
            checksum: file.checksum,
            tail_length: file.tail.length,
            tail_checksum: file.tail.checksum,
        }
    }
}

impl TryFrom<v1::ManifestFile> for FileMeta {
    type Error = CodecError;

    fn try_from(message: v1::ManifestFile) -> Result<Self, CodecError> {
        Ok(Self {
            file_id: FileId(uuid(&message.file_id, "file id")?),
            origin: region_dir(message.origin, "origin")?,
            clip: range(message.clip, "clip")?,
            level: message.level,
            size: message.size,
            rows: message.rows,
            row_groups: message.row_groups,
            min_key: message.min_key.to_vec(),
            max_key: message.max_key.to_vec(),
            time: message.time.map(|time| TimeRange { min: time.min, max: time.max }),
            stored_min_sequence: Sequence(message.min_sequence),
            stored_max_sequence: Sequence(message.max_sequence),
            stored_min_epoch: Epoch(message.min_epoch),
            stored_max_epoch: Epoch(message.max_epoch),
            deletes: message.deletes,
            one_version_per_key: message.one_version_per_key,
            schema_version: SchemaVersion(message.schema_version),
            indexes: message
                .indexes
                .into_iter()
                .map(TryInto::try_into)
                .collect::<Result<_, _>>()?,
            stamp: message.stamp.map(|stamp| Stamp {
                sequence: Sequence(stamp.sequence),
                epoch: Epoch(stamp.epoch),
            }),
            checksum: message.checksum,
            tail: FileTail { length: message.tail_length, checksum: message.tail_checksum },
        })
    }
}
