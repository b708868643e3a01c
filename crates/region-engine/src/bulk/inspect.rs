//! Inspection: reads a file and derives its description in the manifest.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use tidewater_common::ids::{Epoch, FileId, Sequence};
use tidewater_common::keys::KeyRange;
use tidewater_common::schema::WriteMode;

use super::columns;
use super::error::{AdoptError, Unfit};
use super::order::{InspectError, RowChecker};
use crate::EngineError;
use crate::cache::ObjectCache;
use crate::env::{RegionEnv, id_time_ms};
use crate::file_meta::{FileMeta, FileTail};
use crate::layout::RegionDir;
use crate::read::ranges::KeyRanges;
use crate::read::shape::{Carried, TableShape};
use crate::sst::FooterCache;
use crate::sst::blocks::BlockChecksums;
use crate::sst::footer::{Footer, footer};
use crate::sst::format::PAGE_ROWS;
use crate::sst::source::{FileAccess, FileSource};
use crate::sst::writer::nan_columns;

/// Bytes of one read for the checksums.
const READ_BYTES: u64 = 8 << 20;

/// Maximum length of page indexes and footer, in bytes.
const MAX_TAIL_BYTES: u64 = 256 << 20;

/// Bytes of length and magic number, with which every Parquet file ends.
const TRAILER_BYTES: u64 = 8;

/// Reads all of a file in the region's directory, checks it, and describes it.
///
/// # Errors
/// [`AdoptError::Unfit`] with the problem of the file; errors of the store.
pub(crate) async fn inspect(
    env: &RegionEnv,
    dir: RegionDir,
    shape: &Arc<TableShape>,
    range: &KeyRange,
    file: FileId,
) -> Result<FileMeta, AdoptError> {
    // A file may be rejected and rewritten under its name, so no cache may keep any of it.
    let env = RegionEnv {
        footers: Arc::new(FooterCache::new(0)),
        objects: Arc::new(ObjectCache::new(0)),
        ..env.clone()
    };
    let found = async {
        let meta = read_metadata(&env, dir, shape, file).await?;
        read_rows(&env, meta, shape, range).await
    };
    found.await.map_err(|error| match error {
        InspectError::Unfit(reason) => AdoptError::Unfit { file, reason },
        InspectError::Engine(EngineError::Damaged { detail, .. }) => {
            AdoptError::Unfit { file, reason: Unfit::Damaged(detail) }
        }
        InspectError::Engine(EngineError::Storage(error)) if error.is_not_found() => {
            AdoptError::Unfit { file, reason: Unfit::Missing }
        }
        InspectError::Engine(other) => other.into(),
    })
}

/// Describes a file from its bytes and footer; keys and bounds are as wide as possible.
async fn read_metadata(
    env: &RegionEnv,
    dir: RegionDir,
    shape: &TableShape,
    file_id: FileId,
) -> Result<FileMeta, InspectError> {
    if id_time_ms(file_id.0) == 0 {
        return Err(InspectError::Unfit(Unfit::Name));
    }
    let path = dir.data(file_id);
    let size = env.storage.head(&path).await?.size;
    let range = |start, end| env.storage.get_range(&path, start..end);
    let end_of_footer =
        size.checked_sub(TRAILER_BYTES).ok_or_else(|| damaged("it is too short"))?;
    let length = footer_length(&range(end_of_footer, size).await?).map_err(damaged)?;
    let footer_at = end_of_footer
        .checked_sub(length)
        .filter(|_| length <= MAX_TAIL_BYTES)
        .ok_or_else(|| damaged("its footer has an invalid length"))?;
    let metadata = parse(&range(footer_at, size).await?, size).map_err(damaged)?;
    let data_end = data_end(&metadata)
        .filter(|end| *end <= footer_at && size - end <= MAX_TAIL_BYTES)
        .ok_or_else(|| damaged("its row groups are outside of the file"))?;
    let rows = u64::try_from(metadata.file_metadata().num_rows())
        .map_err(|_| damaged("its number of rows is invalid"))?;
    if rows == 0 {
        return Err(InspectError::Unfit(Unfit::Empty));
    }
    let mut checksum = 0;
    let mut tail = 0;
    let mut blocks = BlockChecksums::default();
    let mut at = 0;
    while at < size {
        let end =
            if at < data_end { data_end.min(at + READ_BYTES) } else { size.min(at + READ_BYTES) };
        let bytes = range(at, end).await?;
        checksum = crc32c::crc32c_append(checksum, &bytes);
        if at < data_end {
            blocks.update(&bytes);
        } else {
            tail = crc32c::crc32c_append(tail, &bytes);
        }
        at = end;
    }
    let meta = FileMeta {
        file_id,
        origin: dir,
        clip: KeyRange::whole(),
        level: 0,
        size,
        rows,
        row_groups: u32::try_from(metadata.num_row_groups()).unwrap_or(u32::MAX),
        min_key: Vec::new(),
        max_key: Vec::new(),
        time: None,
        stored_min_sequence: Sequence(0),
        stored_max_sequence: Sequence(u64::MAX),
        stored_min_epoch: Epoch(0),
        stored_max_epoch: Epoch(u64::MAX),
        // Unknown until the rows are read, so there may be some.
        deletes: 1,
        one_version_per_key: false,
        schema_version: shape.schema.version(),
        indexes: Vec::new(),
        stamp: None,
        checksum,
        tail: FileTail { length: size - data_end, checksum: tail },
    };
    let footer = footer(&env.storage, &env.footers, &meta).await?;
    if footer.block_checksums != blocks.finish() {
        return Err(damaged("a block of its data has a wrong checksum"));
    }
    Ok(meta)
}

/// Completes the description of a file from its rows.
async fn read_rows(
    env: &RegionEnv,
    meta: FileMeta,
    shape: &Arc<TableShape>,
    range: &KeyRange,
) -> Result<FileMeta, InspectError> {
    let footer = footer(&env.storage, &env.footers, &meta).await?;
    columns::check(footer.format, footer.metadata.schema(), &footer.leaves, &shape.schema)
        .map_err(|detail| InspectError::Unfit(Unfit::Columns(detail)))?;
    let mut checker = RowChecker::new(shape.clone(), range.clone(), indexed_rows(&footer));
    let whole = KeyRanges::one(&KeyRange::whole(), &KeyRange::whole());
    let access = FileAccess::new(env, meta.size);
    let carried = Carried::all(&shape.schema)?;
    let file = Arc::new(meta.clone());
    let mut source = FileSource::new(access, file, shape.clone(), carried, &whole).with_epochs();
    let mut nans = BTreeSet::new();
    while let Some(piece) = source.next().await? {
        checker.push(&piece)?;
        nans.extend(nan_columns(&piece.rows));
    }
    let listed = |id| footer.nan_columns.as_ref().is_none_or(|listed| listed.contains(id));
    if let Some(id) = nans.iter().find(|id| !listed(id)) {
        return Err(damaged(format!("its footer does not record that column {id} contains a NaN")));
    }
    let (Some((min_key, max_key)), true) = (checker.keys, checker.rows == meta.rows) else {
        return Err(damaged("its number of rows differs from its footer"));
    };
    let (min_sequence, max_sequence) = checker.sequences.unwrap_or_default();
    let (min_epoch, max_epoch) = checker.epochs.unwrap_or_default();
    Ok(FileMeta {
        min_key,
        max_key,
        time: checker.time,
        stored_min_sequence: Sequence(min_sequence),
        stored_max_sequence: Sequence(max_sequence),
        stored_min_epoch: Epoch(min_epoch),
        stored_max_epoch: Epoch(max_epoch),
        deletes: 0,
        one_version_per_key: shape.mode() == WriteMode::Upsert,
        ..meta
    })
}

/// Returns the numbers and keys of the rows in the key index.
fn indexed_rows(footer: &Footer) -> Vec<(u64, Vec<u8>)> {
    let mut first = 0;
    let mut rows = Vec::new();
    for group in footer.metadata.metadata().row_groups() {
        let held = u64::try_from(group.num_rows()).unwrap_or(0);
        rows.extend((0..held).step_by(PAGE_ROWS).map(|row| first + row));
        first += held;
    }
    rows.into_iter().zip(footer.key_index.iter().cloned()).collect()
}

fn footer_length(trailer: &Bytes) -> Result<u64, &'static str> {
    let mut bytes = trailer.clone();
    if bytes.len() != 8 || &trailer[4..] != b"PAR1" {
        return Err("it is not a Parquet file");
    }
    Ok(u64::from(bytes.get_u32_le()))
}

fn parse(footer: &Bytes, size: u64) -> Result<ParquetMetaData, String> {
    let mut reader = ParquetMetaDataReader::new();
    reader.try_parse_sized(footer, size).map_err(|error| error.to_string())?;
    reader.finish().map_err(|error| error.to_string())
}

/// Returns the end of the last row group; `None` when an offset is invalid.
fn data_end(metadata: &ParquetMetaData) -> Option<u64> {
    let mut end = 0;
    for chunk in metadata.row_groups().iter().flat_map(|group| group.columns()) {
        let start = chunk.dictionary_page_offset().unwrap_or(chunk.data_page_offset());
        let bytes = u64::try_from(chunk.compressed_size()).ok()?;
        end = end.max(u64::try_from(start).ok()?.checked_add(bytes)?);
    }
    Some(end)
}

fn damaged(detail: impl Into<String>) -> InspectError {
    InspectError::Unfit(Unfit::Damaged(detail.into()))
}
