//! Progress of a load (pure).

use std::collections::BTreeMap;

use tidewater_proto::v1::{LoadProgress, SourceSplit};

/// Rows and splits of a load.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Of complete calls.
    complete: LoadProgress,
    /// Rows of the calls in progress, by number.
    reading: BTreeMap<usize, u64>,
}

impl Progress {
    /// Begins with the splits of a listing.
    pub(super) fn begin(&mut self, splits: &[SourceSplit]) {
        self.complete.splits = count(splits.len());
        self.complete.bytes = bytes(splits);
    }

    /// Records the rows of a call in progress. Another attempt begins again.
    pub(super) fn read(&mut self, number: usize, rows: u64) {
        self.reading.insert(number, rows);
    }

    /// Records that a call has read all its splits.
    pub(super) fn complete(&mut self, number: usize, splits: &[SourceSplit], rows: u64) {
        self.reading.remove(&number);
        self.complete.rows += rows;
        self.complete.splits_done += count(splits.len());
        self.complete.bytes_done = self.complete.bytes_done.saturating_add(bytes(splits));
    }

    /// Returns the progress with that of the calls in progress.
    pub(super) fn total(&self) -> LoadProgress {
        let reading: u64 = self.reading.values().sum();
        LoadProgress { rows: self.complete.rows + reading, ..self.complete }
    }
}

fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

fn bytes(splits: &[SourceSplit]) -> u64 {
    splits.iter().fold(0, |bytes, split| bytes.saturating_add(split.bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_calls_in_progress_are_counted_once() {
        let split = |bytes| SourceSplit { bytes, ..SourceSplit::default() };
        let splits = [split(100), split(50), split(0)];
        let mut progress = Progress::default();
        progress.begin(&splits);
        let seen = |progress: &Progress| {
            let total = progress.total();
            (total.splits, total.splits_done, total.rows, total.bytes, total.bytes_done)
        };
        assert_eq!(seen(&progress), (3, 0, 0, 150, 0));
        progress.read(0, 500);
        progress.read(1, 20);
        // Another attempt.
        progress.read(0, 10);
        assert_eq!(seen(&progress), (3, 0, 30, 150, 0));
        progress.complete(0, &splits[..2], 800);
        assert_eq!(seen(&progress), (3, 2, 820, 150, 150));
        progress.complete(1, &splits[2..], 25);
        assert_eq!(seen(&progress), (3, 3, 825, 150, 150));
    }
}
