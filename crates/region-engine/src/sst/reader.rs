//! Reads ranges of a file for the Parquet decoder, and checks every byte before it sees it.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::metadata::ParquetMetaData;

use super::blocks::{damaged_block, widen};
use super::footer::{Footer, damaged, read_failed};
use crate::EngineError;
use crate::file_meta::FileMeta;
use crate::storage::Storage;

/// One open file.
#[derive(Debug, Clone)]
pub(crate) struct CheckedReader {
    pub(crate) storage: Storage,
    pub(crate) file: Arc<FileMeta>,
    pub(crate) footer: Arc<Footer>,
}

/// An engine error on its way through the Parquet library.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct Carried(EngineError);

/// The engine's error for one that the Parquet library reported on this file.
pub(crate) fn unwrap_error(reader: &CheckedReader, error: ParquetError) -> EngineError {
    if let ParquetError::External(inner) = &error
        && let Some(Carried(engine)) = inner.downcast_ref::<Carried>()
    {
        return engine.clone();
    }
    damaged(&reader.storage, &reader.file, error.to_string())
}

impl CheckedReader {
    async fn read(&self, ranges: Vec<Range<u64>>) -> Result<Vec<Bytes>, EngineError> {
        let data_end = self.footer.data_end;
        if let Some(bad) =
            ranges.iter().find(|range| range.start > range.end || range.end > data_end)
        {
            let detail = format!("bytes {}..{} lie outside of its data", bad.start, bad.end);
            return Err(damaged(&self.storage, &self.file, detail));
        }
        let blocks = coalesce(&ranges, data_end);
        let path = self.file.path();
        let parts = match self.storage.get_ranges(&path, &blocks).await {
            Ok(parts) => parts,
            Err(error) => return Err(read_failed(&self.storage, &self.file, error).await),
        };
        for (range, part) in blocks.iter().zip(&parts) {
            if let Some(block) = damaged_block(&self.footer.block_checksums, range.start, part) {
                let detail = format!("block {block} of its data has another checksum");
                return Err(damaged(&self.storage, &self.file, detail));
            }
        }
        ranges
            .iter()
            .map(|range| cut(&blocks, &parts, range))
            .collect::<Option<_>>()
            .ok_or_else(|| damaged(&self.storage, &self.file, "a range was not read".to_owned()))
    }
}

/// Whole blocks that cover the ranges; those that touch are read as one.
fn coalesce(ranges: &[Range<u64>], data_end: u64) -> Vec<Range<u64>> {
    let mut blocks: Vec<Range<u64>> = ranges.iter().map(|range| widen(range, data_end)).collect();
    blocks.sort_by_key(|range| range.start);
    let mut merged: Vec<Range<u64>> = Vec::new();
    for block in blocks {
        match merged.last_mut() {
            Some(last) if block.start <= last.end => last.end = last.end.max(block.end),
            _ => merged.push(block),
        }
    }
    merged
}

fn cut(blocks: &[Range<u64>], parts: &[Bytes], range: &Range<u64>) -> Option<Bytes> {
    let index = blocks.partition_point(|block| block.start <= range.start).checked_sub(1)?;
    let start = usize::try_from(range.start - blocks[index].start).ok()?;
    let length = usize::try_from(range.end - range.start).ok()?;
    let part = parts.get(index)?;
    (start + length <= part.len()).then(|| part.slice(start..start + length))
}

impl AsyncFileReader for CheckedReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, ParquetResult<Bytes>> {
        async move {
            let mut parts = self.get_byte_ranges(vec![range]).await?;
            parts.pop().ok_or_else(|| ParquetError::General("no range".to_owned()))
        }
        .boxed()
    }

    fn get_byte_ranges(
        &mut self,
        ranges: Vec<Range<u64>>,
    ) -> BoxFuture<'_, ParquetResult<Vec<Bytes>>> {
        async move {
            self.read(ranges)
                .await
                .map_err(|error| ParquetError::External(Box::new(Carried(error))))
        }
        .boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        _options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, ParquetResult<Arc<ParquetMetaData>>> {
        let metadata = self.footer.metadata.metadata().clone();
        async move { Ok(metadata) }.boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::super::blocks::BLOCK_BYTES;
    use super::*;

    #[test]
    fn ranges_that_touch_in_a_block_are_read_once() {
        let data = 10 * BLOCK_BYTES;
        let ranges =
            [5 * BLOCK_BYTES + 1..5 * BLOCK_BYTES + 2, 1..2, BLOCK_BYTES - 1..BLOCK_BYTES + 1];
        let blocks = coalesce(&ranges, data);
        assert_eq!(blocks, [0..2 * BLOCK_BYTES, 5 * BLOCK_BYTES..6 * BLOCK_BYTES]);
        let parts: Vec<Bytes> = blocks
            .iter()
            .map(|block| (block.start..block.end).map(|i| (i % 251) as u8).collect())
            .collect();
        for range in &ranges {
            let bytes = cut(&blocks, &parts, range).unwrap();
            let expected: Vec<u8> = range.clone().map(|i| (i % 251) as u8).collect();
            assert_eq!(bytes, expected);
        }
    }
}
