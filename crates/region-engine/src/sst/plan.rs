//! Which rows of a file a read must decode: a pure choice from its footer.

use std::ops::Range;

use parquet::arrow::arrow_reader::{RowSelection, RowSelector};
use tidewater_common::schema::TableSchema;

use super::footer::Footer;
use super::format::PAGE_ROWS;
use super::statistics::{ColumnStatistics, page_rows};
use crate::read::filter::Term;
use crate::read::prune::admits;
use crate::read::stats::Counters;

/// The rows of one row group, as ranges in order that neither touch nor overlap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GroupRows {
    pub(crate) group: usize,
    pub(crate) rows: Vec<Range<usize>>,
}

/// Row groups in order; those of which no row is wanted are left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RowPlan(pub(crate) Vec<GroupRows>);

/// The rows that may fulfil all terms and lie in the chosen blocks of the key index (`None`: all).
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
    /// What the Parquet library takes: row groups, and the rows within all of them.
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

    /// Counts what will be read of these columns, and what will not.
    pub(crate) fn count(&self, footer: &Footer, leaves: &[usize], counters: &Counters) {
        let Some(offsets) = footer.metadata.metadata().offset_index() else { return };
        let mut planned = self.0.iter().peekable();
        for (group, columns) in offsets.iter().enumerate() {
            let rows = planned.next_if(|rows| rows.group == group);
            match rows {
                Some(_) => counters.row_groups.add(1),
                None => counters.row_groups_pruned.add(1),
            }
            let chosen = rows.map_or(&[][..], |rows| rows.rows.as_slice());
            for leaf in leaves {
                let Some(ranges) = page_rows(footer, group, *leaf) else { continue };
                let Some(column) = columns.get(*leaf) else { continue };
                for (range, page) in ranges.iter().zip(column.page_locations()) {
                    let bytes = u64::try_from(page.compressed_page_size).unwrap_or(0);
                    let after = chosen.partition_point(|rows| rows.end <= range.start);
                    if chosen.get(after).is_some_and(|rows| rows.start < range.end) {
                        counters.pages.add(1);
                        counters.bytes.add(bytes);
                    } else {
                        counters.pages_pruned.add(1);
                        counters.bytes_pruned.add(bytes);
                    }
                }
            }
        }
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

/// The same rows with ranges that touch made one.
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

/// The rows that lie in both.
fn intersect(a: &[Range<usize>], b: &[Range<usize>]) -> Vec<Range<usize>> {
    let (mut i, mut j) = (0, 0);
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
    fn rows_that_lie_in_both() {
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
    fn blocks_become_ranges_of_rows() {
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
