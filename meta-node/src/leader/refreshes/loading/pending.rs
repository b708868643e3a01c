//! Files of complete splits (pure): those that are not staged yet, and the number of all in each region.
//!
//! Until they are staged, no manifest names them, and garbage collection removes them after its grace. They are therefore
//! staged from time to time, and when they are many. A region stages a limited number of them: a load with more fails before
//! it has read the rest of the source.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use tidewater_common::agreed_limits::AREA_FILES;
use tidewater_common::ids::RegionId;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{Reason, RegionFiles};
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
    /// Numbers of all files of the load, by region.
    totals: BTreeMap<RegionId, usize>,
}

impl PendingFiles {
    pub(super) fn new(now: Instant) -> Self {
        Self { files: BTreeMap::new(), count: 0, since: now, totals: BTreeMap::new() }
    }

    /// Adds the files of complete splits.
    ///
    /// # Errors
    /// [`Reason::InvalidArgument`]: a region has more files than it stages.
    pub(super) fn add(&mut self, files: Vec<RegionFiles>) -> Result<(), Refusal> {
        for RegionFiles { region_id, file_ids } in files {
            let region = RegionId(region_id);
            let total = self.totals.entry(region).or_default();
            *total += file_ids.len();
            if *total > AREA_FILES {
                return Err(too_many_files(region));
            }
            self.count += file_ids.len();
            self.files.entry(region).or_default().extend(file_ids);
        }
        Ok(())
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

fn too_many_files(region: RegionId) -> Refusal {
    let text = format!(
        "the source has more than {AREA_FILES} files of rows for region {region}: split the region with \
         `tidewater route split`, or reduce the rows of the source"
    );
    Refusal::new(Reason::InvalidArgument, text)
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
        pending.add(files(1, 2)).unwrap();
        pending.add(files(2, MANY - 3)).unwrap();
        assert_eq!(counts(&pending.take_due(begun)), []);
        pending.add(files(1, 1)).unwrap();
        assert_eq!(counts(&pending.take_due(begun)), [(1, 3), (2, MANY - 3)]);
        pending.add(files(1, 1)).unwrap();
        let later = begun + STAGED_WITHIN;
        assert_eq!(counts(&pending.take_due(later - Duration::from_secs(1))), []);
        assert_eq!(counts(&pending.take_due(later)), [(1, 1)]);
        pending.add(files(3, 1)).unwrap();
        assert_eq!(counts(&pending.take_due(later)), []);
        assert_eq!(counts(&pending.take()), [(3, 1)]);
        assert_eq!(counts(&pending.take()), []);
    }

    #[test]
    fn region_with_too_many_files_fails_the_load() {
        let now = Instant::now();
        let mut pending = PendingFiles::new(now);
        pending.add(files(1, AREA_FILES - 1)).unwrap();
        // Files that are staged count, those of other regions do not.
        assert_eq!(counts(&pending.take()), [(1, AREA_FILES - 1)]);
        pending.add(files(2, 10)).unwrap();
        pending.add(files(1, 1)).unwrap();
        let refused = pending.add(files(1, 1)).unwrap_err();
        assert_eq!(refused.reason, Reason::InvalidArgument);
        assert!(refused.message.contains("region 1: split the region"), "{refused}");
    }
}
