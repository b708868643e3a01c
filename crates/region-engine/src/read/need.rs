//! Memory that a group of sources needs (pure).

use super::BATCH_BYTES;
use crate::sst::format::PAGE_ROWS;
use crate::sst::pace::{LEAST_ROWS, Pace, RowBytes};

/// Bytes of an open source in addition to its rows: its footer, and the plan of its read.
const SOURCE_BYTES: u64 = 16 << 10;

/// Bytes of the rows of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SourceRow {
    /// Bytes that the source holds for each row in progress.
    pub(crate) held: RowBytes,
    /// Bytes of a row in a batch of the result.
    pub(crate) width: u64,
    /// Number of rows.
    pub(crate) rows: u64,
}

impl SourceRow {
    /// Returns the larger of all sizes.
    pub(crate) fn max(self, other: Self) -> Self {
        Self {
            held: RowBytes {
                decoded: self.held.decoded.max(other.held.decoded),
                stored: self.held.stored.max(other.held.stored),
            },
            width: self.width.max(other.width),
            rows: self.rows.max(other.rows),
        }
    }

    /// The smallest row.
    pub(crate) const LEAST: Self =
        Self { held: RowBytes { decoded: 1, stored: 0 }, width: 1, rows: 0 };

    /// Returns the bytes that the source holds at a pace: no more than all its rows, stored and
    /// decoded.
    fn bytes(&self, pace: Pace) -> u64 {
        let each = self.held.stored.saturating_add(self.held.decoded);
        pace.bytes(self.held).min(each.saturating_mul(self.rows))
    }
}

/// Use of the rows of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GroupUse {
    /// One source is streamed.
    Stream,
    /// Sources are merged into batches of at most this number of rows.
    Merge {
        /// Maximum rows of a batch.
        batch_rows: usize,
    },
    /// The rows of merged sources are counted.
    Count,
}

/// Memory of a group of sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GroupNeed {
    /// Bytes without which the group cannot be read at an acceptable speed, or at all.
    pub(crate) least: u64,
    /// Bytes with which it is read at full speed.
    pub(crate) want: u64,
    /// Bytes that do not depend on the pace of the sources; part of both.
    fixed: u64,
    /// Number of sources that are open at the same time.
    open: u64,
}

impl GroupNeed {
    /// Computes the need of a group. `open`: rows of the sources that are open at the same time.
    /// `limit`: bytes that the scan may have at most; a group that needs more for the usual least pace
    /// is read at a slower one.
    pub(crate) fn new(open: &[SourceRow], group_use: GroupUse, limit: u64) -> Self {
        let pace = match group_use {
            GroupUse::Stream => Pace::ALONE,
            GroupUse::Merge { .. } | GroupUse::Count => Pace::MERGED,
        };
        let all = |pace_of: &dyn Fn(RowBytes) -> Pace| {
            let bytes = open.iter().map(|row| row.bytes(pace_of(row.held)));
            bytes.fold(0, u64::saturating_add)
        };
        let rows_of_batch =
            |row: RowBytes| usize::try_from(BATCH_BYTES as u64 / row.decoded.max(1)).unwrap_or(1);
        let widest = open.iter().map(|row| row.width).max().unwrap_or(0);
        let all_rows = open.iter().map(|row| row.rows).fold(0, u64::saturating_add);
        let part = |rows: usize| {
            widest.saturating_mul((rows as u64).min(all_rows)).min(BATCH_BYTES as u64)
        };
        let output = match group_use {
            GroupUse::Stream | GroupUse::Count => 0,
            // A batch, and rows that wait for it.
            GroupUse::Merge { batch_rows } => 2 * part(batch_rows),
        };
        let fixed = (SOURCE_BYTES * open.len() as u64)
            .saturating_add(output)
            // The page of which a part is decoded.
            .saturating_add(part(PAGE_ROWS));
        let want = all(&|row| pace.within(rows_of_batch(row)));
        let usual = all(&|row| Pace::one_by_one(LEAST_ROWS.min(rows_of_batch(row))));
        let slowest = all(&|_| Pace::least());
        let most = limit.saturating_sub(fixed);
        let least = usual.min(most.max(slowest));
        Self {
            least: fixed.saturating_add(least),
            want: fixed.saturating_add(want.max(least)),
            fixed,
            open: open.len() as u64,
        }
    }

    /// Returns the bytes of each source when the group has `granted` bytes.
    pub(crate) fn per_source(&self, granted: u64) -> u64 {
        if granted == u64::MAX {
            return u64::MAX;
        }
        granted.saturating_sub(self.fixed) / self.open.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: SourceRow =
        SourceRow { held: RowBytes { decoded: 110, stored: 40 }, width: 100, rows: 1 << 20 };
    const MIB: u64 = 1 << 20;

    #[test]
    fn need_grows_with_open_sources() {
        let merge = GroupUse::Merge { batch_rows: 8_192 };
        for open in [1, 2, 10, 300] {
            let rows = vec![ROW; open];
            let need = GroupNeed::new(&rows, merge, u64::MAX);
            let sources = open as u64 * (Pace::MERGED.bytes(ROW.held) + SOURCE_BYTES);
            assert_eq!(need.want, need.fixed + sources - open as u64 * SOURCE_BYTES);
            assert!(need.least <= need.want && need.least > open as u64 * SOURCE_BYTES);
            assert!(need.per_source(need.want) >= Pace::MERGED.bytes(ROW.held));
            let slow = Pace::MERGED.within_bytes(ROW.held, need.per_source(need.least));
            assert!(slow.unit_rows >= LEAST_ROWS, "{slow:?}");
        }
        let count = GroupNeed::new(&[ROW; 10], GroupUse::Count, u64::MAX);
        assert!(count.want < GroupNeed::new(&[ROW; 10], merge, u64::MAX).want);
        assert_eq!(count.per_source(u64::MAX), u64::MAX);
    }

    #[test]
    fn many_sources_are_read_within_the_limit() {
        // With the pages of tests, a group of 100,000 sources needs 3 GiB for one row of each.
        for open in [100, 1_000] {
            let rows = vec![ROW; open];
            let merge = GroupUse::Merge { batch_rows: 8_192 };
            let need = GroupNeed::new(&rows, merge, 32 * MIB);
            assert!(need.least <= 32 * MIB, "{need:?}");
            let pace = Pace::MERGED.within_bytes(ROW.held, need.per_source(need.least));
            let held = pace.bytes(ROW.held) * open as u64 + need.fixed;
            assert!(held <= 32 * MIB, "{pace:?} holds {held}");
        }
    }

    #[test]
    fn small_sources_need_no_more_than_their_rows() {
        let row = SourceRow { rows: 3, ..ROW };
        let need = GroupNeed::new(&[row; 10], GroupUse::Merge { batch_rows: 8_192 }, u64::MAX);
        let most = 10 * (SOURCE_BYTES + 3 * 150 + 3 * 30 * 100);
        assert!(need.want <= most, "{need:?}");
    }

    #[test]
    fn wide_rows_need_one_row_of_each_source() {
        let held = RowBytes { decoded: 14 * MIB, stored: 14 * MIB };
        let row = SourceRow { held, width: 14 * MIB, rows: 4 };
        let need = GroupNeed::new(&[row; 3], GroupUse::Stream, MIB);
        assert!(need.least >= 3 * 2 * 14 * MIB, "{need:?}");
        assert!(need.want >= need.least);
    }
}
