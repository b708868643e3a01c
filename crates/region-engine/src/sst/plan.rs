//! Plan of a file read: selects from the footer which rows must be decoded (pure).

use std::ops::Range;

use parquet::arrow::arrow_reader::{RowSelection, RowSelector};
use parquet::file::page_index::offset_index::PageLocation;
use tidewater_common::schema::TableSchema;

use super::column_pages::{ColumnPages, page_bytes};
use super::footer::Footer;
use super::format::PAGE_ROWS;
use super::statistics::ColumnStatistics;
use crate::read::filter::Term;
use crate::read::prune::admits;
use crate::read::stats::ScanCounters;

/// Rows of one row group, as ascending ranges that neither touch nor overlap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GroupRows {
    pub(crate) group: usize,
    pub(crate) rows: Vec<Range<usize>>,
}

impl GroupRows {
    /// Returns the number of rows.
    pub(crate) fn count(&self) -> usize {
        self.rows.iter().map(ExactSizeIterator::len).sum()
    }
}

/// Selected rows of a file: row groups in order, without those of which no row is selected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RowPlan(pub(crate) Vec<GroupRows>);

/// Selects the rows that may match all terms and are in the selected blocks of the key index
/// (`None`: all).
pub(crate) fn plan(
    footer: &Footer,
    schema: &TableSchema,
    blocks: Option<&[bool]>,
    terms: &[&Term],
) -> RowPlan {
    let groups = footer.metadata.metadata().row_groups();
    let statistics: Vec<(&Term, ColumnStatistics<'_>)> = terms
        .iter()
        .filter_map(|term| {
            let data_type = schema.column(term.column)?.data_type.arrow();
            Some((*term, ColumnStatistics::new(footer, term.column, data_type)?))
        })
        .collect();
    let admitted: Vec<Vec<bool>> =
        statistics.iter().map(|(term, column)| admits(term, &column.groups())).collect();
    let mut plan = Vec::new();
    let mut blocks = blocks.map(<[bool]>::iter);
    for (group, metadata) in groups.iter().enumerate() {
        let rows = usize::try_from(metadata.num_rows()).unwrap_or(0);
        let mut chosen = match &mut blocks {
            None => whole(rows),
            Some(blocks) => chosen_blocks(blocks.by_ref().take(rows.div_ceil(PAGE_ROWS)), rows),
        };
        if admitted.iter().any(|groups| groups.get(group) == Some(&false)) {
            continue;
        }
        for (term, column) in &statistics {
            if chosen.is_empty() {
                break;
            }
            if let Some((bounds, ranges)) = column.pages(group) {
                let pages = admits(term, &bounds);
                let kept = ranges.into_iter().zip(pages).filter(|(_, kept)| *kept);
                chosen = intersect(&chosen, &joined(kept.map(|(range, _)| range)));
            }
        }
        if !chosen.is_empty() {
            plan.push(GroupRows { group, rows: chosen });
        }
    }
    RowPlan(plan)
}

impl RowPlan {
    /// Returns the input of the Parquet library: row groups, and the rows within all of them.
    pub(crate) fn selection(&self, footer: &Footer) -> (Vec<usize>, RowSelection) {
        let mut selectors = Vec::new();
        for GroupRows { group, rows } in &self.0 {
            let end = group_rows(footer, *group);
            let mut at = 0;
            for range in rows {
                selectors.push(RowSelector::skip(range.start - at));
                selectors.push(RowSelector::select(range.len()));
                at = range.end;
            }
            selectors.push(RowSelector::skip(end.saturating_sub(at)));
        }
        (self.0.iter().map(|rows| rows.group).collect(), selectors.into())
    }

    /// Returns the number of rows.
    pub(crate) fn rows(&self) -> usize {
        self.0.iter().map(GroupRows::count).sum()
    }

    /// Keeps those rows, numbered from 0 over the whole plan, that are in `kept`: ascending ranges
    /// that do not overlap.
    pub(crate) fn pick(&self, kept: &[Range<usize>]) -> Self {
        let mut picked = Vec::new();
        let mut at = 0;
        for group in &self.0 {
            let mut rows = Vec::new();
            for range in &group.rows {
                let span = at..at + range.len();
                let found = intersect(std::slice::from_ref(&span), kept);
                let shifted =
                    |f: Range<usize>| range.start + f.start - at..range.start + f.end - at;
                rows.extend(found.into_iter().map(shifted));
                at += range.len();
            }
            if !rows.is_empty() {
                picked.push(GroupRows { group: group.group, rows: joined(rows.into_iter()) });
            }
        }
        Self(picked)
    }

    /// Returns the pages of these columns that will be read and skipped.
    pub(crate) fn usage(&self, footer: &Footer, leaves: &[usize]) -> PageUsage {
        let metadata = footer.metadata.metadata();
        let mut usage = PageUsage { groups: self.0.len() as u64, ..PageUsage::default() };
        usage.groups_pruned = (metadata.num_row_groups() as u64).saturating_sub(usage.groups);
        for GroupRows { group, rows } in &self.0 {
            let columns = metadata.offset_index().and_then(|index| index.get(*group));
            let columns = leaves.iter().filter_map(|leaf| columns?.get(*leaf));
            columns.for_each(|column| usage.add(column.page_locations(), rows));
        }
        let whole = leaves.iter().filter_map(|leaf| footer.pages.get(*leaf));
        let whole = whole.fold(ColumnPages::default(), |sum, leaf| ColumnPages {
            count: sum.count + leaf.count,
            bytes: sum.bytes.saturating_add(leaf.bytes),
        });
        usage.pages_pruned = whole.count.saturating_sub(usage.pages);
        usage.bytes_pruned = whole.bytes.saturating_sub(usage.bytes);
        usage
    }
}

/// Row groups, pages and compressed bytes that a read of one file reads and skips.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct PageUsage {
    pub(crate) groups: u64,
    pub(crate) groups_pruned: u64,
    pub(crate) pages: u64,
    pub(crate) pages_pruned: u64,
    pub(crate) bytes: u64,
    pub(crate) bytes_pruned: u64,
}

impl PageUsage {
    fn add(&mut self, pages: &[PageLocation], chosen: &[Range<usize>]) {
        let row = |page: &PageLocation| usize::try_from(page.first_row_index).unwrap_or(0);
        for (index, page) in pages.iter().enumerate() {
            let start = row(page);
            let end = pages.get(index + 1).map_or(usize::MAX, row);
            let next = chosen.partition_point(|rows| rows.end <= start);
            if chosen.get(next).is_some_and(|rows| rows.start < end) {
                self.pages += 1;
                self.bytes = self.bytes.saturating_add(page_bytes(page));
            }
        }
    }

    pub(crate) fn count(&self, counters: &ScanCounters) {
        counters.row_groups.add(self.groups);
        counters.row_groups_pruned.add(self.groups_pruned);
        counters.pages.add(self.pages);
        counters.pages_pruned.add(self.pages_pruned);
        counters.bytes.add(self.bytes);
        counters.bytes_pruned.add(self.bytes_pruned);
    }
}

pub(crate) fn group_rows(footer: &Footer, group: usize) -> usize {
    let groups = footer.metadata.metadata().row_groups();
    groups.get(group).map_or(0, |group| usize::try_from(group.num_rows()).unwrap_or(0))
}

fn whole(rows: usize) -> Vec<Range<usize>> {
    (rows > 0).then_some(0..rows).into_iter().collect()
}

fn chosen_blocks<'a>(blocks: impl Iterator<Item = &'a bool>, rows: usize) -> Vec<Range<usize>> {
    joined(
        blocks
            .enumerate()
            .filter(|(_, chosen)| **chosen)
            .map(|(block, _)| block * PAGE_ROWS..((block + 1) * PAGE_ROWS).min(rows)),
    )
}

/// Joins ranges that touch.
fn joined(ranges: impl Iterator<Item = Range<usize>>) -> Vec<Range<usize>> {
    let mut joined: Vec<Range<usize>> = Vec::new();
    for range in ranges.filter(|range| !range.is_empty()) {
        match joined.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    joined
}

/// Returns the rows that are in both.
fn intersect(a: &[Range<usize>], b: &[Range<usize>]) -> Vec<Range<usize>> {
    let mut i = 0;
    let mut j = 0;
    let mut both = Vec::new();
    while let (Some(x), Some(y)) = (a.get(i), b.get(j)) {
        both.push(x.start.max(y.start)..x.end.min(y.end));
        if x.end < y.end {
            i += 1;
        } else {
            j += 1;
        }
    }
    joined(both.into_iter())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intersect_returns_rows_in_both_plans() {
        type Pairs = &'static [(usize, usize)];
        let cases: &[(Pairs, Pairs, Pairs)] = &[
            (&[], &[(0, 9)], &[]),
            (&[(0, 9)], &[(0, 9)], &[(0, 9)]),
            (&[(0, 4), (6, 9)], &[(3, 7)], &[(3, 4), (6, 7)]),
            (&[(0, 3)], &[(3, 5)], &[]),
            (&[(0, 8)], &[(1, 2), (3, 4), (7, 20)], &[(1, 2), (3, 4), (7, 8)]),
            (&[(2, 4), (4, 6)], &[(0, 9)], &[(2, 6)]),
        ];
        let ranges = |pairs: Pairs| -> Vec<Range<usize>> {
            pairs.iter().map(|(start, end)| *start..*end).collect()
        };
        for (a, b, expected) in cases {
            assert_eq!(intersect(&ranges(a), &ranges(b)), ranges(expected), "{a:?} {b:?}");
            assert_eq!(intersect(&ranges(b), &ranges(a)), ranges(expected), "{b:?} {a:?}");
        }
    }

    #[test]
    fn row_plan_keeps_rows_by_position() {
        let group = |group, pairs: &[(usize, usize)]| GroupRows {
            group,
            rows: pairs.iter().map(|(start, end)| *start..*end).collect(),
        };
        // Positions 0 to 4, 5 to 6; 7 to 9.
        let plan = RowPlan(vec![group(1, &[(10, 15), (20, 22)]), group(4, &[(0, 3)])]);
        assert_eq!(plan.rows(), 10);
        let pick = |pairs: &[(usize, usize)]| {
            let ranges: Vec<Range<usize>> = pairs.iter().map(|(start, end)| *start..*end).collect();
            plan.pick(&ranges)
        };
        assert_eq!(pick(&[]), RowPlan(vec![]));
        assert_eq!(pick(&[(0, 10)]), plan);
        assert_eq!(pick(&[(3, 4)]), RowPlan(vec![group(1, &[(13, 14)])]));
        assert_eq!(
            pick(&[(4, 6), (9, 10)]),
            RowPlan(vec![group(1, &[(14, 15), (20, 21)]), group(4, &[(2, 3)])])
        );
    }

    #[test]
    fn index_blocks_become_row_ranges() {
        let rows = 3 * PAGE_ROWS + 1;
        let of = |blocks: &[bool]| chosen_blocks(blocks.iter(), rows);
        assert!(of(&[false; 4]).is_empty());
        assert_eq!(of(&[true; 4]), whole(rows));
        assert_eq!(of(&[true, true, false, true]), [0..2 * PAGE_ROWS, 3 * PAGE_ROWS..rows]);
        assert_eq!(
            of(&[false, true, false, true]),
            [PAGE_ROWS..2 * PAGE_ROWS, 3 * PAGE_ROWS..rows]
        );
    }
}
