//! Number of rows of a Parquet row group that are decoded at a time, so that their values fit into
//! memory however they are encoded.
//!
//! A page of a few kilobytes may refer a million times to one value of its dictionary, and a compressed
//! page may be a thousand times larger than in the file. The sizes of all pages are known from their
//! headers before a value is decoded: pages with plain values have their bytes once; each value of a page
//! with a dictionary may be the longest one of the dictionary; and with front coding (DELTA_BYTE_ARRAY) each may
//! be as long as its page.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use parquet::basic::Type;
use parquet::column::page::{Page, PageReader};
use parquet::file::metadata::{ColumnChunkMetaData, RowGroupMetaData};
use parquet::file::serialized_reader::SerializedPageReader;

use super::page_header::{HeaderError, MAX_HEADER_BYTES, PageHeader};
use crate::error::LoadError;

/// Bytes of the values that are decoded at a time; a single row may have more.
const BATCH_BYTES: u64 = 32 << 20;
/// Maximum bytes of a page without compression.
const MAX_PAGE_BYTES: u64 = 128 << 20;
/// Bytes that are read for a header at first.
const HEADER_BYTES: u64 = 256;

/// Encodings by their numbers in parquet.thrift.
const PLAIN_DICTIONARY: i64 = 2;
const DELTA_BYTE_ARRAY: i64 = 7;
const RLE_DICTIONARY: i64 = 8;

/// Reason why a row group is not read.
#[derive(Debug, thiserror::Error)]
pub(super) enum RowGroupError {
    /// A page whose values do not fit into memory.
    #[error("a page of column `{column}` has {bytes} bytes without compression")]
    PageTooLarge { column: String, bytes: u64 },
    /// The pages contradict the format.
    #[error("column {column}: {reason}")]
    Malformed { column: String, reason: String },
    /// The file cannot be read.
    #[error(transparent)]
    Read(#[from] io::Error),
}

impl RowGroupError {
    /// Returns the error of a file.
    pub(super) fn in_file(self, file: &str) -> LoadError {
        let file = file.to_owned();
        match self {
            Self::PageTooLarge { column, bytes } => {
                LoadError::PageTooLarge { file, column, bytes, limit: MAX_PAGE_BYTES }
            }
            Self::Malformed { .. } => LoadError::BadParquet { file, reason: self.to_string() },
            Self::Read(source) => LoadError::Read { file, source },
        }
    }
}

/// Values of one page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct PageValues {
    rows: u64,
    /// Bytes that are decoded if any of its values is.
    bytes: u64,
    /// Bytes of each value in addition.
    each: u64,
}

/// Returns the rows to decode at a time, at most `most` and at least 1.
///
/// # Errors
/// The pages of the row group are malformed or too large, or cannot be read.
pub(super) fn batch_rows(
    file: &Arc<File>,
    group: &RowGroupMetaData,
    most: usize,
) -> Result<usize, RowGroupError> {
    // The library panics at a negative place.
    if let Some(column) = group.columns().iter().find(|column| place(column).is_none()) {
        return Err(malformed(column, "its place in the file is negative"));
    }
    let columns = group
        .columns()
        .iter()
        .filter(|column| {
            matches!(column.column_type(), Type::BYTE_ARRAY | Type::FIXED_LEN_BYTE_ARRAY)
        })
        .map(|column| pages(file, group, column))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(fitting_rows(&columns, most))
}

/// Returns the greatest number of rows, from `most` down by halves, whose values fit.
fn fitting_rows(columns: &[Vec<PageValues>], most: usize) -> usize {
    let mut rows = most.max(1);
    let needed = |rows| {
        let bytes = columns.iter().map(|pages| largest_batch(pages, rows));
        bytes.fold(0, u64::saturating_add)
    };
    while rows > 1 && needed(rows as u64) > BATCH_BYTES {
        rows /= 2;
    }
    rows
}

/// Returns the bytes of the largest batch of a column, with batches of `rows` rows.
fn largest_batch(pages: &[PageValues], rows: u64) -> u64 {
    let mut largest = 0;
    let (mut used, mut room) = (0_u64, rows);
    for page in pages {
        let mut left = page.rows;
        while left > 0 {
            let taken = left.min(room);
            let bytes = page.bytes.saturating_add(page.each.saturating_mul(taken));
            used = used.saturating_add(bytes);
            largest = largest.max(used);
            left -= taken;
            room -= taken;
            if room > 0 {
                continue;
            }
            (used, room) = (0, rows);
            // All further full batches within the page are equal.
            left -= (left / rows).saturating_sub(1) * rows;
        }
    }
    largest
}

fn pages(
    file: &Arc<File>,
    group: &RowGroupMetaData,
    column: &ColumnChunkMetaData,
) -> Result<Vec<PageValues>, RowGroupError> {
    let (mut at, end) = place(column).unwrap_or_default();
    let mut longest = u64::try_from(column.column_descr().type_length()).unwrap_or(0);
    let mut pages = Vec::new();
    while at < end {
        let Some(header) = read_header(file, at)? else {
            return Err(malformed(column, format!("the page at byte {at} has no valid header")));
        };
        if header.bytes.unsigned_abs() > MAX_PAGE_BYTES {
            let column = column.column_path().string();
            return Err(RowGroupError::PageTooLarge { column, bytes: header.bytes.unsigned_abs() });
        }
        if header.kind == PageHeader::DICTIONARY {
            let dictionary = longest_in_dictionary(file, group, column);
            longest = longest.max(dictionary.map_err(|reason| malformed(column, reason))?);
        }
        let (bytes, values) = (header.bytes.unsigned_abs(), header.values.unsigned_abs());
        if matches!(header.kind, PageHeader::DATA | PageHeader::DATA_V2) {
            let (bytes, each) = match header.encoding {
                PLAIN_DICTIONARY | RLE_DICTIONARY => (0, longest),
                DELTA_BYTE_ARRAY => (0, bytes),
                _ => (bytes, 0),
            };
            pages.push(PageValues { rows: values, bytes, each });
        }
        let size = header.header_bytes.saturating_add(header.stored_bytes.unsigned_abs());
        at = at.saturating_add(size);
    }
    Ok(pages)
}

/// Returns the first byte of a column chunk and the byte after it; `None` if it is malformed.
fn place(column: &ColumnChunkMetaData) -> Option<(u64, u64)> {
    let first = column.dictionary_page_offset().unwrap_or(column.data_page_offset());
    let start = u64::try_from(first).ok()?;
    Some((start, start.checked_add(u64::try_from(column.compressed_size()).ok()?)?))
}

fn malformed(column: &ColumnChunkMetaData, reason: impl Into<String>) -> RowGroupError {
    RowGroupError::Malformed { column: column.column_path().string(), reason: reason.into() }
}

/// Returns the header of the page at a place in the file; `None`: there is no valid one.
fn read_header(file: &File, at: u64) -> io::Result<Option<PageHeader>> {
    let mut length = HEADER_BYTES;
    loop {
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
        let mut read = 0;
        while read < bytes.len() {
            match file.read_at(&mut bytes[read..], at + read as u64) {
                Ok(0) => break,
                Ok(more) => read += more,
                Err(error) => return Err(error),
            }
        }
        match PageHeader::read(&bytes[..read]) {
            Ok(header) => return Ok(Some(header)),
            Err(HeaderError::Short) if read == bytes.len() && length < MAX_HEADER_BYTES => {
                length *= 8;
            }
            Err(HeaderError::Short | HeaderError::Malformed) => return Ok(None),
        }
    }
}

/// Returns the length of the longest value of a dictionary, whose page has a permitted size.
fn longest_in_dictionary(
    file: &Arc<File>,
    group: &RowGroupMetaData,
    column: &ColumnChunkMetaData,
) -> Result<u64, String> {
    if column.column_type() == Type::FIXED_LEN_BYTE_ARRAY {
        return Ok(0);
    }
    let rows = usize::try_from(group.num_rows()).unwrap_or(usize::MAX);
    let mut reader = SerializedPageReader::new(file.clone(), column, rows, None)
        .map_err(|error| error.to_string())?;
    let Some(Page::DictionaryPage { buf, .. }) =
        reader.get_next_page().map_err(|error| error.to_string())?
    else {
        return Err("its first page is not its dictionary".to_owned());
    };
    let mut rest = &buf[..];
    let mut longest = 0;
    while let Some((length, values)) = rest.split_first_chunk::<4>() {
        let length = u32::from_le_bytes(*length);
        longest = longest.max(length);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        rest = values.get(length..).ok_or("its dictionary is truncated")?;
    }
    Ok(u64::from(longest))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn plain(rows: u64, bytes: u64) -> PageValues {
        PageValues { rows, bytes, each: 0 }
    }

    fn coded(rows: u64, each: u64) -> PageValues {
        PageValues { rows, bytes: 0, each }
    }

    #[test]
    fn batch_is_bounded_by_its_largest_values() {
        let cases: [(&[&[PageValues]], usize); 12] = [
            (&[], 8_192),
            (&[&[coded(1_000_000, 100)]], 8_192),
            (&[&[coded(1_000_000, MIB)]], 32),
            (&[&[coded(1_000_000, 60 * MIB)]], 1),
            // The second column takes half of the bytes.
            (&[&[coded(1_000, MIB)], &[coded(1_000, MIB)]], 16),
            // Bytes of plain pages count once for each batch that has a part of the page.
            (&[&[plain(1_000_000, 20 * MIB)]], 8_192),
            (&[&[plain(100, 20 * MIB), plain(100, 20 * MIB)]], 4),
            (&[&[plain(1, 10 * MIB); 9]], 2),
            (&[&[plain(1, 10 * MIB); 3]], 8_192),
            (&[&[plain(1, 100 * MIB)]], 1),
            // A large value at the end, after many small ones.
            (&[&[coded(100_000, 10), plain(1, 40 * MIB)]], 1),
            (&[&[coded(100_000, 10), plain(1, 30 * MIB)]], 8_192),
        ];
        for (columns, expected) in cases {
            let columns: Vec<Vec<PageValues>> =
                columns.iter().map(|pages| pages.to_vec()).collect();
            assert_eq!(fitting_rows(&columns, 8_192), expected, "{columns:?}");
        }
        assert_eq!(fitting_rows(&[], 0), 1);
    }

    #[test]
    fn largest_batch_is_that_of_all_batches() {
        let naive = |pages: &[PageValues], rows: u64| {
            let of_row: Vec<usize> = pages
                .iter()
                .enumerate()
                .flat_map(|(page, values)| vec![page; values.rows as usize])
                .collect();
            let bytes = |batch: &[usize]| {
                let mut distinct = batch.to_vec();
                distinct.dedup();
                batch.iter().map(|page| pages[*page].each).sum::<u64>()
                    + distinct.iter().map(|page| pages[*page].bytes).sum::<u64>()
            };
            of_row.chunks(rows as usize).map(bytes).max().unwrap_or(0)
        };
        let pages =
            [plain(7, 100), coded(50, 3), plain(1, 90), plain(0, 7), coded(2, 40), plain(33, 55)];
        for rows in 1..120 {
            for from in 0..pages.len() {
                let pages = &pages[from..];
                assert_eq!(largest_batch(pages, rows), naive(pages, rows), "{rows} of {pages:?}");
            }
        }
    }
}
