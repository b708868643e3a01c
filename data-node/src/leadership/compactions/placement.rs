//! Regions to compact now, and where: a pure function of the files that are due and of the free capacity.

use std::time::Duration;

use tidewater_common::backoff::Backoff;
use tidewater_common::ids::RegionId;
use tidewater_proto::v1::CompactionPlace;

use super::retry_policy::JobPolicy;

/// When and where regions are compacted in the background.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompactionPolicy {
    /// Where background jobs run, if at all.
    pub background: BackgroundCompaction,
    /// Interval between checks for due files.
    pub interval: Duration,
    /// Due files of one region at which its job is no longer delayed, neither for flushes nor for a
    /// compactor. Otherwise an endless load would make reads open more and more files.
    pub urgent_files: usize,
    /// Backoff of a region after failures.
    pub backoff: Backoff,
    /// Time with due files after which a region does not wait for a compactor any longer.
    pub overdue_after: Duration,
    /// How jobs run.
    pub jobs: JobPolicy,
}

/// Place of background compactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackgroundCompaction {
    /// On compactors, if any are up.
    Remote,
    /// On the data node.
    Local,
    /// Only requested compactions run.
    Off,
}

impl Default for CompactionPolicy {
    fn default() -> Self {
        Self {
            background: BackgroundCompaction::Remote,
            interval: Duration::from_secs(5),
            urgent_files: 16,
            backoff: Backoff { first: Duration::from_secs(5), longest: Duration::from_secs(300) },
            overdue_after: Duration::from_secs(600),
            jobs: JobPolicy::default(),
        }
    }
}

/// Region that may need a compaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompactionCandidate {
    /// Id of the region.
    pub region: RegionId,
    /// Files that its next job would compact; 0: none are due.
    pub files: usize,
    /// Bytes of these files.
    pub bytes: u64,
    /// Due files of all jobs that its picker finds.
    pub all_files: usize,
    /// It has waited for a compactor for too long.
    pub overdue: bool,
    /// Not to be placed: a job is in progress, it backs off after a failure, or a later owner has it.
    pub held_back: bool,
}

/// Free capacity for compactions, and competing work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CompactionCapacity {
    /// Jobs that may start on this node now.
    pub local_slots: usize,
    /// Jobs that compactors may still accept; `None`: no compactor is up.
    pub compactor_slots: Option<usize>,
    /// Unflushed rows exceed their memory limit: processors and store are reserved for flushes.
    pub short_of_memory: bool,
}

/// Place and urgency of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// Local, on a compactor, or either.
    pub place: CompactionPlace,
    /// No caller waits for the job, and its region does not need it soon.
    pub deferrable: bool,
}

/// Region to compact now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlacedCompaction {
    /// Id of the region.
    pub region: RegionId,
    /// Place and urgency of its job.
    pub placement: Placement,
}

/// Returns the regions to compact now, and where. Regions whose job removes the most files for its
/// bytes come first. A region for which no compactor has a free slot waits for one, unless it is
/// urgent.
pub fn place_compactions(
    policy: &CompactionPolicy,
    candidates: &[CompactionCandidate],
    capacity: CompactionCapacity,
) -> Vec<PlacedCompaction> {
    let is_urgent =
        |region: &CompactionCandidate| region.overdue || region.all_files >= policy.urgent_files;
    let is_remote = policy.background == BackgroundCompaction::Remote;
    let slots = capacity.compactor_slots.filter(|_| is_remote);
    let (mut remote, mut local) = match policy.background {
        BackgroundCompaction::Off => (0, 0),
        BackgroundCompaction::Local => (0, capacity.local_slots),
        BackgroundCompaction::Remote if policy.jobs.fallback_to_local => {
            (slots.unwrap_or(0), capacity.local_slots)
        }
        BackgroundCompaction::Remote => (slots.unwrap_or(0), 0),
    };
    let mut due: Vec<&CompactionCandidate> =
        candidates.iter().filter(|region| region.files > 0 && !region.held_back).collect();
    due.sort_by_key(|region| (region.bytes / region.files.max(1) as u64, region.region));
    let mut placed = Vec::new();
    for candidate in due {
        let urgent = is_urgent(candidate);
        // A job on a compactor does not slow down flushes.
        let place = if remote > 0 {
            remote -= 1;
            CompactionPlace::Any
        } else if local > 0 && (urgent || slots.is_none() && !capacity.short_of_memory) {
            local -= 1;
            CompactionPlace::Local
        } else {
            continue;
        };
        let placement = Placement { place, deferrable: !urgent };
        placed.push(PlacedCompaction { region: candidate.region, placement });
    }
    placed
}

#[cfg(test)]
mod tests {
    use super::*;

    // (id, files due, bytes, held back)
    type Region = (u64, usize, u64, bool);

    fn places(
        policy: &CompactionPolicy,
        regions: &[Region],
        capacity: CompactionCapacity,
    ) -> Vec<(u64, bool)> {
        let candidates: Vec<CompactionCandidate> = regions
            .iter()
            .map(|(id, files, bytes, held_back)| CompactionCandidate {
                region: RegionId(*id),
                files: *files,
                bytes: *bytes,
                all_files: *files,
                overdue: false,
                held_back: *held_back,
            })
            .collect();
        let place = |placed: PlacedCompaction| {
            let known = candidates.iter().find(|known| known.region == placed.region).unwrap();
            assert_eq!(placed.placement.deferrable, known.files < policy.urgent_files);
            (placed.region.get(), placed.placement.place == CompactionPlace::Any)
        };
        place_compactions(policy, &candidates, capacity).into_iter().map(place).collect()
    }

    fn local(regions: &[Region], capacity: CompactionCapacity) -> Vec<u64> {
        let places = places(&CompactionPolicy::default(), regions, capacity);
        assert!(places.iter().all(|(_, remote)| !remote));
        places.into_iter().map(|(id, _)| id).collect()
    }

    #[test]
    fn cheapest_files_are_compacted_first_within_the_capacity() {
        let free = |local_slots| CompactionCapacity { local_slots, ..Default::default() };
        let regions = [(1, 4, 400, false), (2, 4, 40, false), (3, 0, 0, false), (4, 8, 8, true)];
        assert_eq!(local(&regions, free(5)), [2, 1]);
        assert_eq!(local(&regions, free(1)), [2]);
        assert_eq!(local(&regions, free(0)), [0; 0]);
        assert_eq!(local(&[(2, 4, 40, false), (1, 4, 40, false)], free(5)), [1, 2]);
    }

    #[test]
    fn local_compaction_waits_for_flushes_unless_urgent() {
        let short =
            CompactionCapacity { local_slots: 5, short_of_memory: true, ..Default::default() };
        assert_eq!(local(&[(1, 15, 10, false), (2, 16, 900, false)], short), [2]);
    }

    #[test]
    fn compactors_are_preferred_and_awaited_unless_urgent() {
        let policy = CompactionPolicy::default();
        let no_fallback = JobPolicy { fallback_to_local: false, ..JobPolicy::default() };
        let no_fallback = CompactionPolicy { jobs: no_fallback, ..policy };
        let with = |background| CompactionPolicy { background, ..policy };
        let capacity = |local_slots, compactor_slots| CompactionCapacity {
            local_slots,
            compactor_slots,
            short_of_memory: false,
        };
        let regions = [(1, 4, 4, false), (2, 4, 40, false), (3, 16, 1_600, false)];
        let remote = true;
        let local = false;

        assert_eq!(
            places(&policy, &regions, capacity(1, Some(2))),
            [(1, remote), (2, remote), (3, local)]
        );
        assert_eq!(places(&policy, &regions, capacity(2, Some(0))), [(3, local)]);
        assert_eq!(places(&policy, &regions, capacity(1, None)), [(1, local)]);
        let short = CompactionCapacity { short_of_memory: true, ..capacity(0, Some(9)) };
        assert_eq!(places(&policy, &regions, short).len(), 3, "compactors spare the flushes");

        assert_eq!(places(&no_fallback, &regions, capacity(9, Some(1))), [(1, remote)]);
        assert_eq!(places(&no_fallback, &regions, capacity(9, None)), []);
        let only_local = with(BackgroundCompaction::Local);
        assert_eq!(places(&only_local, &regions, capacity(1, Some(9))), [(1, local)]);
        let off = with(BackgroundCompaction::Off);
        assert_eq!(places(&off, &regions, capacity(9, Some(9))), []);
    }

    #[test]
    fn overdue_and_urgent_regions_do_not_wait() {
        let policy = CompactionPolicy::default();
        let busy =
            CompactionCapacity { local_slots: 9, compactor_slots: Some(0), short_of_memory: true };
        let region = |number| CompactionCandidate {
            region: RegionId(number),
            files: 1,
            bytes: 1,
            all_files: 15,
            overdue: false,
            held_back: false,
        };
        let due = [
            region(1),
            CompactionCandidate { all_files: 16, ..region(2) },
            CompactionCandidate { overdue: true, ..region(3) },
        ];
        let placed: Vec<_> = place_compactions(&policy, &due, busy)
            .into_iter()
            .map(|placed| (placed.region.get(), placed.placement))
            .collect();
        let local = Placement { place: CompactionPlace::Local, deferrable: false };
        assert_eq!(placed, [(2, local), (3, local)]);
    }
}
