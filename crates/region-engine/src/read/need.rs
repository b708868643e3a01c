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
    /// Number of rows of all sources that are opened one after the other in its place.
    pub(crate) all_rows: u64,
}

impl SourceRow {
    /// Returns the sizes of two sources that are opened one after the other: the larger ones.
    pub(crate) fn then(self, other: Self) -> Self {
        Self {
            held: RowBytes {
                decoded: self.held.decoded.max(other.held.decoded),
                stored: self.held.stored.max(other.held.stored),
            },
            width: self.width.max(other.width),
            rows: self.rows.max(other.rows),
            all_rows: self.all_rows.saturating_add(other.all_rows),
        }
    }

    /// The smallest row.
    pub(crate) const LEAST: Self =
        Self { held: RowBytes { decoded: 1, stored: 0 }, width: 1, rows: 0, all_rows: 0 };

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
    /// One source is streamed. Small pieces of it are gathered into batches.
    Stream {
        /// Maximum rows of a batch; 0: the rows are counted.
        batch_rows: usize,
    },
    /// Sources are merged into batches of at most this number of rows.
    Merge {
        /// Maximum rows of a batch.
        batch_rows: usize,
    },
    /// The rows of merged sources are counted.
    Count,
}

/// Memory of a group of sources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GroupNeed {
    /// Bytes without which the group cannot be read at an acceptable speed, or at all.
    pub(crate) least: u64,
    /// Bytes with which it is read at full speed.
    pub(crate) want: u64,
    /// Bytes that do not depend on the pace of the sources; part of both.
    fixed: u64,
    /// Bytes of each source that is open at the same time as the others.
    open: Vec<SourceNeed>,
}

/// Bytes of a source, each at least those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SourceNeed {
    /// At the slowest pace.
    slowest: u64,
    /// At the least pace that is acceptable.
    usual: u64,
    /// At full speed.
    want: u64,
}

/// Memory of a scan, which has one group open at a time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ScanNeed {
    /// See [`GroupNeed::least`].
    pub(crate) least: u64,
    /// See [`GroupNeed::want`].
    pub(crate) want: u64,
}

impl ScanNeed {
    /// Adds a group that is open before or after the others.
    pub(crate) fn or(self, group: &GroupNeed) -> Self {
        Self { least: self.least.max(group.least), want: self.want.max(group.want) }
    }
}

impl GroupUse {
    /// Returns this use without a merge: the only source of the group is streamed.
    pub(crate) fn without_merge(self) -> Self {
        match self {
            Self::Stream { batch_rows } | Self::Merge { batch_rows } => Self::Stream { batch_rows },
            Self::Count => Self::Stream { batch_rows: 0 },
        }
    }
}

impl GroupNeed {
    /// Computes the need of a group. `open`: rows of the sources that are open at the same time.
    /// `limit`: bytes that the scan may have at most; a group that needs more for the usual least pace
    /// is read at a slower one.
    pub(crate) fn new(open: &[SourceRow], group_use: GroupUse, limit: u64) -> Self {
        let pace = match group_use {
            GroupUse::Stream { .. } => Pace::ALONE,
            GroupUse::Merge { .. } | GroupUse::Count => Pace::MERGED,
        };
        let rows_of_batch =
            |row: RowBytes| usize::try_from(BATCH_BYTES as u64 / row.decoded.max(1)).unwrap_or(1);
        let widest = open.iter().map(|row| row.width).max().unwrap_or(0);
        let all_rows = open.iter().map(|row| row.all_rows).fold(0, u64::saturating_add);
        let part = |rows: usize| {
            widest.saturating_mul((rows as u64).min(all_rows)).min(BATCH_BYTES as u64)
        };
        let output = match group_use {
            GroupUse::Count => 0,
            // A batch, and rows that wait for it.
            GroupUse::Stream { batch_rows } | GroupUse::Merge { batch_rows } => {
                2 * part(batch_rows)
            }
        };
        let fixed = (SOURCE_BYTES * open.len() as u64)
            .saturating_add(output)
            // The page of which a part is decoded.
            .saturating_add(part(PAGE_ROWS));
        let need_of = |row: &SourceRow| {
            let batch = rows_of_batch(row.held);
            let slowest = row.bytes(Pace::least());
            let usual = row.bytes(Pace::one_by_one(LEAST_ROWS.min(batch))).max(slowest);
            SourceNeed { slowest, usual, want: row.bytes(pace.within(batch)).max(usual) }
        };
        let open: Vec<SourceNeed> = open.iter().map(need_of).collect();
        let most = limit.saturating_sub(fixed);
        let least = sum(&open, |need| need.usual).min(most.max(sum(&open, |need| need.slowest)));
        Self {
            least: fixed.saturating_add(least),
            want: fixed.saturating_add(sum(&open, |need| need.want)),
            fixed,
            open,
        }
    }

    /// Distributes `granted` bytes among the sources: to each those of its slowest pace, then to each
    /// the same part of what it lacks for the usual least pace, and then for full speed. A source of
    /// wide rows gets more than others.
    pub(crate) fn distribute(&self, granted: u64) -> Vec<u64> {
        if granted == u64::MAX {
            return vec![u64::MAX; self.open.len()];
        }
        let granted = granted.saturating_sub(self.fixed);
        let levels: [fn(&SourceNeed) -> u64; 4] =
            [|_| 0, |need| need.slowest, |need| need.usual, |need| need.want];
        for (from, to) in levels.into_iter().zip(levels.into_iter().skip(1)) {
            let base = sum(&self.open, from);
            let lacking = sum(&self.open, to).saturating_sub(base);
            let added = granted.saturating_sub(base);
            if added < lacking {
                let part = |need| from(need) + part_of(to(need) - from(need), added, lacking);
                return self.open.iter().map(part).collect();
            }
        }
        // More than all want: rows may be larger than estimated.
        let more = granted.saturating_sub(sum(&self.open, |need| need.want));
        let more = more / (self.open.len() as u64).max(1);
        self.open.iter().map(|need| need.want.saturating_add(more)).collect()
    }
}

fn sum(needs: &[SourceNeed], bytes: fn(&SourceNeed) -> u64) -> u64 {
    needs.iter().map(bytes).fold(0, u64::saturating_add)
}

/// Returns `bytes * part / whole`; `part` is less than `whole`.
fn part_of(bytes: u64, part: u64, whole: u64) -> u64 {
    let product = u128::from(bytes) * u128::from(part) / u128::from(whole.max(1));
    u64::try_from(product).unwrap_or(bytes)
}

#[cfg(test)]
mod tests;
