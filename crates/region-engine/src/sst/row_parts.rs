//! Parts of the rows of a file: their bytes, and the pages that hold them (pure).

use std::ops::Range;

use super::footer::Footer;
use super::pace::RowBytes;
use super::plan::GroupRows;
use super::statistics::page_rows;

/// Returns the average bytes of a row of these leaves in a row group.
pub(super) fn row_bytes(footer: &Footer, group: usize, leaves: &[usize]) -> RowBytes {
    let least = RowBytes { decoded: 1, stored: 0 };
    let Some(group) = footer.metadata.metadata().row_groups().get(group) else { return least };
    let fields = footer.metadata.schema().fields();
    let rows = offset(group.num_rows()).max(1);
    let mut decoded: u64 = 0;
    let mut stored: u64 = 0;
    for leaf in leaves {
        let Some(column) = group.columns().get(*leaf) else { continue };
        // A dictionary may hold a long text once that occurs in every row, and numbers may be encoded
        // in a few bits.
        let texts = offset(column.unencoded_byte_array_data_bytes().unwrap_or(0).max(0));
        let width = fields.get(*leaf).and_then(|field| field.data_type().primitive_width());
        let values = width.map_or(0, |width| rows.saturating_mul(width as u64));
        let encoded = offset(column.uncompressed_size().max(0));
        decoded = decoded.saturating_add(encoded.max(texts).max(values));
        stored = stored.saturating_add(offset(column.compressed_size().max(0)));
    }
    RowBytes { decoded: (decoded / rows).max(1), stored: stored.div_ceil(rows) }
}

/// Splits rows into parts of at most `most` rows, at page boundaries unless rows are so wide that a
/// part is smaller than a page.
pub(super) fn split_rows(whole: &GroupRows, most: usize) -> Vec<GroupRows> {
    let mut parts: Vec<GroupRows> = Vec::new();
    for range in &whole.rows {
        let mut start = range.start;
        while start < range.end {
            let window = start / most;
            let end = range.end.min((window + 1) * most);
            match parts.last_mut() {
                Some(last)
                    if last.rows.first().is_some_and(|first| first.start / most == window) =>
                {
                    last.rows.push(start..end);
                }
                _ => {
                    let rows = std::iter::once(start..end).collect();
                    parts.push(GroupRows { group: whole.group, rows });
                }
            }
            start = end;
        }
    }
    parts
}

/// Returns the byte ranges of the pages that hold the rows, and of the dictionaries of these pages.
pub(super) fn byte_ranges(footer: &Footer, rows: &GroupRows, leaves: &[usize]) -> Vec<Range<u64>> {
    let metadata = footer.metadata.metadata();
    let mut ranges = Vec::new();
    for leaf in leaves {
        let Some(chunk) =
            metadata.row_groups().get(rows.group).and_then(|group| group.columns().get(*leaf))
        else {
            continue;
        };
        let start = offset(chunk.dictionary_page_offset().unwrap_or(chunk.data_page_offset()));
        let whole = start..start.saturating_add(offset(chunk.compressed_size()));
        let pages = metadata.offset_index().and_then(|index| index.get(rows.group)?.get(*leaf));
        let (Some(pages), Some(page_rows)) = (pages, page_rows(footer, rows.group, *leaf)) else {
            ranges.push(whole);
            continue;
        };
        let pages = pages.page_locations();
        if let Some(first) = pages.first() {
            ranges.push(whole.start..offset(first.offset).max(whole.start));
        }
        for (page, held) in pages.iter().zip(page_rows) {
            let next = rows.rows.partition_point(|range| range.end <= held.start);
            if rows.rows.get(next).is_some_and(|range| range.start < held.end) {
                let start = offset(page.offset);
                ranges.push(start..start.saturating_add(offset(page.compressed_page_size.into())));
            }
        }
    }
    ranges.retain(|range| !range.is_empty());
    ranges
}

/// Converts an offset; an invalid one becomes an offset outside of every file.
fn offset(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_split_at_page_boundaries() {
        let rows = |pairs: &[(usize, usize)]| GroupRows {
            group: 3,
            rows: pairs.iter().map(|(start, end)| *start..*end).collect(),
        };
        assert_eq!(split_rows(&rows(&[]), 8), []);
        assert_eq!(split_rows(&rows(&[(0, 8)]), 8), [rows(&[(0, 8)])]);
        assert_eq!(
            split_rows(&rows(&[(3, 20)]), 8),
            [rows(&[(3, 8)]), rows(&[(8, 16)]), rows(&[(16, 20)])]
        );
        assert_eq!(
            split_rows(&rows(&[(1, 2), (4, 9), (30, 31)]), 8),
            [rows(&[(1, 2), (4, 8)]), rows(&[(8, 9)]), rows(&[(30, 31)])]
        );
    }
}
