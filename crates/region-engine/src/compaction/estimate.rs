//! Memory of a sub-job, estimated high from the metadata of its inputs (pure).

use super::runs::{Ranged, sorted_runs};
use crate::file_meta::FileMeta;
use crate::read::BATCH_BYTES;
use crate::sst::decode::Pace;
use crate::sst::format::ROW_GROUP_BYTES;

/// Bytes that a sub-job uses in addition to its inputs when the store is slow: the row group being
/// written (32 MiB, encoded or not) and the batch that is appended to it (8); output of the encoder
/// (three pieces of 4) and of the upload (four parts of 8 in transfer, one being filled).
pub(crate) const OVERHEAD: u64 = 96 << 20;
/// Decoded units of an open file: the one being merged, the previous one while its rows wait to be
/// written, and the next one, which is decoded ahead.
pub(super) const UNITS: u64 = 3;
/// Assumed ratio of the size of rows in memory to their size in a file, up to the limit of a row
/// group.
pub(super) const INFLATION: u64 = 8;
/// Maximum bytes of memory of an open file.
const MAX_OPEN: u64 = 2 * ROW_GROUP_BYTES as u64 + UNITS * BATCH_BYTES as u64;

/// Bytes of memory that admit every job of two runs. A node with less would leave tables with wide rows
/// uncompacted.
pub const TWO_RUNS_BYTES: u64 = OVERHEAD + 2 * MAX_OPEN;

/// Returns the maximum bytes of memory of a sub-job that merges some files: one file of each sorted
/// run is open. `open`: bytes of memory of an open file. 0 without files.
pub(super) fn sub_job_bytes<F: Ranged>(
    files: &[F],
    members: &[usize],
    open: impl Fn(usize) -> u64,
) -> u64 {
    if members.is_empty() {
        return 0;
    }
    let largest = |run: Vec<usize>| run.into_iter().map(&open).max();
    let runs = sorted_runs(files, members).into_iter();
    runs.filter_map(largest).fold(OVERHEAD, u64::saturating_add)
}

/// Returns the maximum bytes of memory of an open file: two stretches in stored form, since the
/// next one is read while the last unit of the previous one is decoded; and units of decoded rows.
/// See [`Pace`](crate::sst::decode::Pace): for narrow rows these are small parts of a row group,
/// for wide rows a stretch is a whole row group.
pub(super) fn open_bytes(file: &FileMeta) -> u64 {
    let groups = u64::from(file.row_groups.max(1));
    let stored = file.size / groups;
    let rows = (file.rows / groups).max(1);
    let decoded = stored.saturating_mul(INFLATION).min(ROW_GROUP_BYTES as u64);
    let part = |bytes: u64, part: usize| bytes.saturating_mul(rows.min(part as u64)) / rows;
    let stretch = part(stored, Pace::MERGED.stretch_rows);
    let unit = part(decoded, Pace::MERGED.unit_rows).min(BATCH_BYTES as u64);
    2 * stretch + UNITS * unit
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::samples::file;

    #[test]
    fn narrow_rows_open_part_of_a_row_group() {
        let mib = 1 << 20;
        let rows = |stretches: usize, size| FileMeta {
            rows: (stretches * Pace::MERGED.stretch_rows) as u64,
            row_groups: 1,
            size,
            ..file(1)
        };
        // 32 MiB decoded, whatever the compression ratio.
        assert_eq!(open_bytes(&rows(8, 16 * mib)), 2 * 2 * mib + UNITS * 4 * mib);
        // Rows that are small in a file are small in memory.
        assert_eq!(open_bytes(&rows(8, mib)), 2 * mib / 8 + UNITS * mib);
        assert_eq!(open_bytes(&rows(0, 10)), 20 + UNITS * 80);
    }

    #[test]
    fn two_runs_of_widest_rows_fit_the_least_memory() {
        let widest = FileMeta { rows: 3, row_groups: 1, size: ROW_GROUP_BYTES as u64, ..file(1) };
        assert_eq!(OVERHEAD + 2 * open_bytes(&widest), TWO_RUNS_BYTES);
    }
}
