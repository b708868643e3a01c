//! Footers of files: read once, verified, and kept in a cache that is bounded in bytes.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader};
use tidewater_common::ids::{ColumnId, FileId};

use super::column_pages::{ColumnPages, pages};
use super::format::{
    BLOCKS_KEY, FORMAT, FORMAT_KEY, KEY_INDEX_KEY, NAN_KEY, PAGE_ROWS, column_of, decode_checksums,
    decode_ids, decode_keys,
};
use crate::EngineError;
use crate::cache::lru::Lru;
use crate::file_meta::FileMeta;
use crate::storage::{Storage, StorageError};

/// Metadata that a reader needs before it reads data.
#[derive(Debug)]
pub(crate) struct Footer {
    /// Format of the file.
    pub(crate) format: u32,
    pub(crate) metadata: ArrowReaderMetadata,
    /// Leaf of each column, by field id.
    pub(crate) leaves: HashMap<ColumnId, usize>,
    pub(crate) block_checksums: Vec<u32>,
    /// First key of every [`PAGE_ROWS`] rows of each row group.
    pub(crate) key_index: Vec<Vec<u8>>,
    /// Float columns that contain a NaN; `None` when the writer did not record them.
    pub(crate) nan_columns: Option<Vec<ColumnId>>,
    /// Pages of each leaf.
    pub(crate) pages: Vec<ColumnPages>,
    /// Length of the data in bytes; the tail begins there.
    pub(crate) data_end: u64,
    weight: usize,
}

/// Cache of footers by file; evicts the least recently used. Files never change, so nothing
/// expires.
#[derive(Debug)]
pub struct FooterCache(Mutex<Lru<FileId, Arc<Footer>>>);

impl FooterCache {
    /// Creates a cache of at most `capacity` bytes; 0 disables caching.
    pub fn new(capacity: usize) -> Self {
        Self(Mutex::new(Lru::new(capacity)))
    }
}

/// Returns the file's footer, from the cache or the store.
///
/// # Errors
/// [`EngineError::Damaged`] when it differs from what was written, [`EngineError::Storage`] when it
/// cannot be read.
pub(crate) async fn footer(
    storage: &Storage,
    cache: &FooterCache,
    file: &FileMeta,
) -> Result<Arc<Footer>, EngineError> {
    if let Some(footer) = cache.0.lock().get(&file.file_id) {
        return Ok(footer);
    }
    let start = file.size.saturating_sub(file.tail.length);
    let path = file.path();
    let tail = match storage.get_range(&path, start..file.size).await {
        Ok(tail) => tail,
        Err(error) => return Err(read_failed(storage, file, error).await),
    };
    let footer = parse(&tail, file).map_err(|detail| damaged(storage, file, detail))?;
    if footer.format > FORMAT {
        return Err(EngineError::NewerFormat {
            object: storage.name(&path),
            found: footer.format,
            supported: FORMAT,
        });
    }
    let footer = Arc::new(footer);
    cache.0.lock().insert(file.file_id, footer.clone(), footer.weight);
    Ok(footer)
}

/// Returns the error for a damaged file.
pub(crate) fn damaged(storage: &Storage, file: &FileMeta, detail: String) -> EngineError {
    EngineError::Damaged { object: storage.name(&file.path()), detail }
}

/// Returns the error for a failed read: damage when the file's size differs from what was written,
/// otherwise the store's error.
pub(crate) async fn read_failed(
    storage: &Storage,
    file: &FileMeta,
    error: StorageError,
) -> EngineError {
    if error.is_not_found() {
        return error.into();
    }
    match storage.head(&file.path()).await {
        Ok(found) if found.size != file.size => {
            let detail = format!("it has {} bytes, not {}", found.size, file.size);
            damaged(storage, file, detail)
        }
        _ => error.into(),
    }
}

fn parse(tail: &Bytes, file: &FileMeta) -> Result<Footer, String> {
    let found = crc32c::crc32c(tail);
    if found != file.tail.checksum {
        return Err(format!("its footer has checksum {found:08x}, not {:08x}", file.tail.checksum));
    }
    let mut reader = ParquetMetaDataReader::new().with_page_index_policy(PageIndexPolicy::Required);
    reader.try_parse_sized(tail, file.size).map_err(|error| error.to_string())?;
    let metadata = reader.finish().map_err(|error| error.to_string())?;
    let value = |key: &str| {
        metadata
            .file_metadata()
            .key_value_metadata()
            .and_then(|pairs| pairs.iter().find(|pair| pair.key == key))
            .and_then(|pair| pair.value.as_deref())
            .ok_or_else(|| format!("its footer lacks {key}"))
    };
    let format = value(FORMAT_KEY)?.parse().map_err(|_| "its format is not a number".to_owned())?;
    let malformed = |what: &str| format!("its {what} cannot be read");
    let block_checksums =
        decode_checksums(value(BLOCKS_KEY)?).ok_or_else(|| malformed("block checksums"))?;
    let key_index = decode_keys(value(KEY_INDEX_KEY)?).ok_or_else(|| malformed("key index"))?;
    if key_index.len() != index_entries(&metadata) {
        return Err("its key index does not match its row groups".to_owned());
    }
    let nan_columns = match value(NAN_KEY) {
        Ok(text) => Some(decode_ids(text).ok_or_else(|| malformed("list of NaN columns"))?),
        // Files may be older than this entry.
        Err(_) => None,
    };
    let leaves = leaves(&metadata, format);
    let pages = pages(&metadata);
    let data_end = file.size - file.tail.length;
    // In memory the footer is about as large as in the file, offsets twice that.
    let weight = 3 * tail.len();
    let metadata = ArrowReaderMetadata::try_new(Arc::new(metadata), ArrowReaderOptions::new())
        .map_err(|error| error.to_string())?;
    Ok(Footer {
        format,
        metadata,
        leaves,
        block_checksums,
        key_index,
        nan_columns,
        pages,
        data_end,
        weight,
    })
}

fn index_entries(metadata: &ParquetMetaData) -> usize {
    metadata
        .row_groups()
        .iter()
        .map(|group| usize::try_from(group.num_rows()).unwrap_or(0).div_ceil(PAGE_ROWS))
        .sum()
}

fn leaves(metadata: &ParquetMetaData, format: u32) -> HashMap<ColumnId, usize> {
    metadata
        .file_metadata()
        .schema_descr()
        .columns()
        .iter()
        .enumerate()
        .filter_map(|(leaf, column)| {
            let info = column.self_type().get_basic_info();
            let id = info.has_id().then(|| u32::try_from(info.id()).ok()).flatten()?;
            Some((column_of(format, id), leaf))
        })
        .collect()
}
