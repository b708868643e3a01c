//! Number and size of the pages of each column of a file.

use parquet::file::metadata::ParquetMetaData;
use parquet::file::page_index::offset_index::PageLocation;

/// Number and bytes of the pages of a column in one file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ColumnPages {
    pub(crate) count: u64,
    pub(crate) bytes: u64,
}

/// Counts the pages of each column, once per file and not for every read.
pub(crate) fn pages(metadata: &ParquetMetaData) -> Vec<ColumnPages> {
    let mut pages: Vec<ColumnPages> = Vec::new();
    for columns in metadata.offset_index().into_iter().flatten() {
        pages.resize(pages.len().max(columns.len()), ColumnPages::default());
        for (sum, column) in pages.iter_mut().zip(columns) {
            let bytes = column.page_locations().iter().map(page_bytes);
            sum.count += column.page_locations().len() as u64;
            sum.bytes = bytes.fold(sum.bytes, u64::saturating_add);
        }
    }
    pages
}

pub(crate) fn page_bytes(page: &PageLocation) -> u64 {
    u64::try_from(page.compressed_page_size).unwrap_or(0)
}
