//! Which regions to compact now: a pure function of what their pickers find.

use std::time::Duration;

use tidewater_common::ids::RegionId;

/// When regions are compacted by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompactionPolicy {
    /// How often pickers are asked.
    pub every: Duration,
    /// Files that are due in one region from which on it does not wait for flushes any more:
    /// otherwise a load that never ends would let reads open more and more of them.
    pub urgent_files: usize,
    /// First and longest wait after a failure.
    pub backoff: (Duration, Duration),
}

impl Default for CompactionPolicy {
    fn default() -> Self {
        Self {
            every: Duration::from_secs(5),
            urgent_files: 16,
            backoff: (Duration::from_secs(5), Duration::from_secs(300)),
        }
    }
}

impl CompactionPolicy {
    /// How long a region waits after so many failures in a row.
    pub fn wait(&self, failures: u32) -> Duration {
        let doubled = 1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
        self.backoff.0.saturating_mul(doubled).min(self.backoff.1)
    }
}

/// A region that could be compacted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Which.
    pub region: RegionId,
    /// Files that its picker would merge; 0: none.
    pub files: usize,
    /// Bytes of them.
    pub bytes: u64,
    /// A compaction of it is under way, or failed lately, or it belongs to somebody else now.
    pub held_back: bool,
}

/// What else the node has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Load {
    /// Compactions that may begin at once.
    pub free: usize,
    /// Unflushed rows take more than they may: processors and store are for flushes.
    pub short_of_memory: bool,
}

/// Regions to compact, the most useful first: whose merge takes away the most files for its bytes.
pub fn choose(policy: &CompactionPolicy, candidates: &[Candidate], load: Load) -> Vec<RegionId> {
    let mut due: Vec<&Candidate> = candidates
        .iter()
        .filter(|one| one.files > 0 && !one.held_back)
        .filter(|one| !load.short_of_memory || one.files >= policy.urgent_files)
        .collect();
    due.sort_by_key(|one| (one.bytes / one.files.max(1) as u64, one.region));
    due.into_iter().take(load.free).map(|one| one.region).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    // (id, files due, bytes, held back)
    fn chosen(regions: &[(u64, usize, u64, bool)], load: Load) -> Vec<u64> {
        let candidates: Vec<Candidate> = regions
            .iter()
            .map(|(id, files, bytes, held_back)| Candidate {
                region: RegionId(*id),
                files: *files,
                bytes: *bytes,
                held_back: *held_back,
            })
            .collect();
        choose(&CompactionPolicy::default(), &candidates, load)
            .into_iter()
            .map(RegionId::get)
            .collect()
    }

    #[test]
    fn the_cheapest_files_go_first_as_far_as_there_is_room() {
        let free = |free| Load { free, short_of_memory: false };
        let regions = [(1, 4, 400, false), (2, 4, 40, false), (3, 0, 0, false), (4, 8, 8, true)];
        assert_eq!(chosen(&regions, free(5)), [2, 1]);
        assert_eq!(chosen(&regions, free(1)), [2]);
        assert_eq!(chosen(&regions, free(0)), [0; 0]);
        assert_eq!(chosen(&[(2, 4, 40, false), (1, 4, 40, false)], free(5)), [1, 2]);
    }

    #[test]
    fn flushes_come_first_until_too_many_files_have_piled_up() {
        let short = Load { free: 5, short_of_memory: true };
        assert_eq!(chosen(&[(1, 15, 10, false), (2, 16, 900, false)], short), [2]);
    }

    #[test]
    fn failures_are_waited_for_longer_and_longer() {
        let policy = CompactionPolicy::default();
        let waits: Vec<u64> = [1, 2, 3, 9, 99].map(|n| policy.wait(n).as_secs()).into();
        assert_eq!(waits, [5, 10, 20, 300, 300]);
    }
}
