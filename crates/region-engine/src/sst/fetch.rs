//! Verified byte ranges of a file, from the cache or the store.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::reader::{ChunkReader, Length};

use super::blocks::{BLOCK_BYTES, damaged_block};
use super::footer::{Footer, damaged, read_failed};
use crate::EngineError;
use crate::cache::{ObjectCache, wait_for_piece};
use crate::file_meta::FileMeta;
use crate::storage::Storage;

/// Reader of one open file that verifies all bytes.
#[derive(Debug, Clone)]
pub(crate) struct CheckedReader {
    pub(crate) storage: Storage,
    pub(crate) cache: Arc<ObjectCache>,
    pub(crate) file: Arc<FileMeta>,
    pub(crate) footer: Arc<Footer>,
    /// True if fetched bytes are put into the cache.
    pub(crate) keep: bool,
}

/// Parts of a file in memory, in order, without overlap. Input of the Parquet decoder.
#[derive(Debug, Clone)]
pub(crate) struct FileParts {
    parts: Vec<(u64, Bytes)>,
    file_bytes: u64,
    /// True if all of them were in the cache or were being fetched by another read.
    pub(super) cached: bool,
}

impl CheckedReader {
    /// Reads the ranges, which are the cache's pieces, and the rest of their blocks.
    ///
    /// # Errors
    /// [`EngineError::Damaged`] when ranges or bytes differ from what was written, and errors of
    /// the store.
    pub(crate) async fn read(&self, ranges: &[Range<u64>]) -> Result<FileParts, EngineError> {
        let data_end = self.footer.data_end;
        if let Some(bad) =
            ranges.iter().find(|range| range.start > range.end || range.end > data_end)
        {
            let detail = format!("bytes {}..{} are outside of its data", bad.start, bad.end);
            return Err(damaged(&self.storage, &self.file, detail));
        }
        let mut pending: Vec<Range<u64>> =
            ranges.iter().filter(|range| !range.is_empty()).cloned().collect();
        pending.sort_unstable_by_key(|range| range.start);
        pending.dedup();
        let mut parts: Vec<(u64, Bytes)> = Vec::new();
        let mut cached = true;
        while !pending.is_empty() {
            let starts: Vec<u64> = pending.iter().map(|range| range.start).collect();
            let mut found = self.cache.find(self.file.file_id.0, &starts, self.keep);
            parts.append(&mut found.cached);
            // Its own pieces first: reads that wait for these must not wait for pieces that others
            // fetch.
            let missing: Vec<Range<u64>> = found
                .missing
                .pieces()
                .iter()
                .filter_map(|at| range_starting_at(&pending, *at))
                .collect();
            if !missing.is_empty() {
                cached = false;
                let fetched = self.fetch(&blocks_of(&missing)).await?;
                for range in missing {
                    let bytes = slice(&fetched, &range).ok_or_else(|| {
                        let detail = format!("bytes {}..{} were not read", range.start, range.end);
                        damaged(&self.storage, &self.file, detail)
                    })?;
                    found.missing.insert_fetched(range.start, &bytes);
                    parts.push((range.start, bytes));
                }
            }
            let mut unavailable = Vec::new();
            for (start, receiver) in found.pending {
                match wait_for_piece(receiver).await {
                    Some(bytes) => parts.push((start, bytes)),
                    None => unavailable.extend(range_starting_at(&pending, start)),
                }
            }
            pending = unavailable;
        }
        parts.sort_unstable_by_key(|(start, _)| *start);
        Ok(FileParts { parts, file_bytes: self.file.size, cached })
    }

    /// Reads and verifies blocks, adjacent ones in one request.
    async fn fetch(&self, blocks: &[u64]) -> Result<Vec<(u64, Bytes)>, EngineError> {
        let ranges = runs(blocks, self.footer.data_end);
        let read = match self.storage.get_ranges(&self.file.path(), &ranges).await {
            Ok(parts) => parts,
            Err(error) => return Err(read_failed(&self.storage, &self.file, error).await),
        };
        let read: Vec<(u64, Bytes)> = ranges.iter().map(|range| range.start).zip(read).collect();
        for (start, bytes) in &read {
            if let Some(block) = damaged_block(&self.footer.block_checksums, *start, bytes) {
                let detail = format!("block {block} of its data has a wrong checksum");
                return Err(damaged(&self.storage, &self.file, detail));
            }
        }
        Ok(read)
    }

    /// Converts an error of the Parquet library on this file.
    pub(crate) fn undecodable(&self, error: &ParquetError) -> EngineError {
        damaged(&self.storage, &self.file, error.to_string())
    }
}

/// Returns the numbers of the blocks that the ranges touch, ascending.
fn blocks_of(ranges: &[Range<u64>]) -> Vec<u64> {
    let mut blocks: Vec<u64> = ranges
        .iter()
        .filter(|range| !range.is_empty())
        .flat_map(|range| range.start / BLOCK_BYTES..range.end.div_ceil(BLOCK_BYTES))
        .collect();
    blocks.sort_unstable();
    blocks.dedup();
    blocks
}

/// Returns the bytes of blocks in ascending order, in the fewest ranges.
fn runs(blocks: &[u64], data_end: u64) -> Vec<Range<u64>> {
    let mut runs: Vec<Range<u64>> = Vec::new();
    for block in blocks {
        let start = block * BLOCK_BYTES;
        let end = (start + BLOCK_BYTES).min(data_end);
        match runs.last_mut() {
            Some(last) if last.end == start => last.end = end,
            _ => runs.push(start..end),
        }
    }
    runs
}

/// Returns the range that begins at `start`, out of ranges in order.
fn range_starting_at(ranges: &[Range<u64>], start: u64) -> Option<Range<u64>> {
    let index = ranges.binary_search_by_key(&start, |range| range.start).ok()?;
    ranges.get(index).cloned()
}

/// Returns a range of bytes out of parts in order; `None` unless one part contains it.
fn slice(parts: &[(u64, Bytes)], range: &Range<u64>) -> Option<Bytes> {
    let index = parts.partition_point(|(at, _)| *at <= range.start).checked_sub(1)?;
    let (at, bytes) = parts.get(index)?;
    let start = usize::try_from(range.start - at).ok()?;
    let end = usize::try_from(range.end - at).ok()?;
    (end <= bytes.len()).then(|| bytes.slice(start..end))
}

fn not_read(start: u64) -> ParquetError {
    ParquetError::EOF(format!("byte {start} was not read"))
}

impl Length for FileParts {
    fn len(&self) -> u64 {
        self.file_bytes
    }
}

impl ChunkReader for FileParts {
    type T = bytes::buf::Reader<Bytes>;

    fn get_read(&self, start: u64) -> ParquetResult<Self::T> {
        let index = self.parts.partition_point(|(at, _)| *at <= start).checked_sub(1);
        let end = index.and_then(|index| self.parts.get(index)).map(|(at, b)| at + b.len() as u64);
        let rest = end.filter(|end| start < *end).and_then(|end| slice(&self.parts, &(start..end)));
        rest.map(Buf::reader).ok_or_else(|| not_read(start))
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        let end = start.saturating_add(length as u64);
        slice(&self.parts, &(start..end)).ok_or_else(|| not_read(start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adjacent_blocks_are_read_in_one_request() {
        let data = 10 * BLOCK_BYTES - 3;
        let ranges = [
            5 * BLOCK_BYTES + 1..5 * BLOCK_BYTES + 2,
            1..2,
            BLOCK_BYTES - 1..BLOCK_BYTES + 1,
            9 * BLOCK_BYTES..data,
            7..7,
        ];
        let blocks = blocks_of(&ranges);
        assert_eq!(blocks, [0, 1, 5, 9]);
        let expected =
            [0..2 * BLOCK_BYTES, 5 * BLOCK_BYTES..6 * BLOCK_BYTES, 9 * BLOCK_BYTES..data];
        assert_eq!(runs(&blocks, data), expected);
    }

    #[test]
    fn ranges_are_sliced_from_file_parts() {
        let bytes = |range: Range<u64>| -> Bytes { range.map(|i| (i % 251) as u8).collect() };
        let spans = [0..10_u64, 10..15, 20..30];
        let parts = FileParts {
            parts: spans.iter().map(|span| (span.start, bytes(span.clone()))).collect(),
            file_bytes: 40,
            cached: false,
        };
        let cases = [
            (0..10, true),
            (3..9, true),
            (10..15, true),
            // In two parts, or in none.
            (9..11, false),
            (16..17, false),
            (20..31, false),
        ];
        for (range, expected) in cases {
            let bytes_read = parts.get_bytes(range.start, (range.end - range.start) as usize);
            assert_eq!(bytes_read.ok(), expected.then(|| bytes(range.clone())), "{range:?}");
        }
        assert!(parts.get_read(14).is_ok());
        assert!(parts.get_read(15).is_err() && parts.get_read(30).is_err());
        assert_eq!(range_starting_at(&spans, 10), Some(10..15));
        assert_eq!(range_starting_at(&spans, 11), None);
    }
}
