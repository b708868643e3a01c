//! Files of complete splits that are not staged yet (pure).
//!
//! Until they are staged, no manifest names them, and garbage collection removes them after its grace. They are therefore
//! staged from time to time, and when they are many.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use tidewater_common::ids::RegionId;
use tidewater_proto::v1::RegionFiles;
use tokio::time::Instant;

/// Files that are staged at once. Each staging is a change of a region's manifest.
const MANY: usize = 1_000;
/// Longest time until complete splits are staged, far below the shortest grace of garbage collection.
const STAGED_WITHIN: Duration = Duration::from_secs(5 * 60);

/// Files that wait, by region.
#[derive(Debug)]
pub(super) struct PendingFiles {
    files: BTreeMap<RegionId, Vec<Bytes>>,
    count: usize,
    since: Instant,
}

impl PendingFiles {
    pub(super) fn new(now: Instant) -> Self {
        Self { files: BTreeMap::new(), count: 0, since: now }
    }

    /// Adds the files of complete splits.
    pub(super) fn add(&mut self, files: Vec<RegionFiles>) {
        for RegionFiles { region_id, file_ids } in files {
            self.count += file_ids.len();
            self.files.entry(RegionId(region_id)).or_default().extend(file_ids);
        }
    }

    /// Takes all files if they are many or old, otherwise none.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<(RegionId, Vec<Bytes>)> {
        if self.count < MANY && now.saturating_duration_since(self.since) < STAGED_WITHIN {
            return Vec::new();
        }
        self.since = now;
        self.take()
    }

    /// Takes all files.
    pub(super) fn take(&mut self) -> Vec<(RegionId, Vec<Bytes>)> {
        self.count = 0;
        std::mem::take(&mut self.files).into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(region_id: u64, count: usize) -> Vec<RegionFiles> {
        vec![RegionFiles { region_id, file_ids: vec![Bytes::from_static(b"f"); count] }]
    }

    fn counts(taken: &[(RegionId, Vec<Bytes>)]) -> Vec<(u64, usize)> {
        taken.iter().map(|(region, files)| (region.get(), files.len())).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn files_are_staged_when_they_are_many_or_old() {
        let begun = Instant::now();
        let mut pending = PendingFiles::new(begun);
        pending.add(files(1, 2));
        pending.add(files(2, MANY - 3));
        assert_eq!(counts(&pending.take_due(begun)), []);
        pending.add(files(1, 1));
        assert_eq!(counts(&pending.take_due(begun)), [(1, 3), (2, MANY - 3)]);
        pending.add(files(1, 1));
        let later = begun + STAGED_WITHIN;
        assert_eq!(counts(&pending.take_due(later - Duration::from_secs(1))), []);
        assert_eq!(counts(&pending.take_due(later)), [(1, 1)]);
        pending.add(files(3, 1));
        assert_eq!(counts(&pending.take_due(later)), []);
        assert_eq!(counts(&pending.take()), [(3, 1)]);
        assert_eq!(counts(&pending.take()), []);
    }
}
