//! Which regions to compact now, and where: a pure function of what their pickers find and of who has
//! room.

use std::time::Duration;

use tidewater_common::ids::RegionId;
use tidewater_proto::v1::CompactionPlace;

use super::life::{JobPolicy, Wanted};

/// When regions are compacted by themselves, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompactionPolicy {
    /// Where, if at all.
    pub where_to: WhereTo,
    /// How often pickers are asked.
    pub every: Duration,
    /// Files that are due in one region from which on it does not wait any more, neither for flushes nor
    /// for a compactor: otherwise a load that never ends would let reads open more and more of them.
    pub urgent_files: usize,
    /// First and longest wait after a failure.
    pub backoff: (Duration, Duration),
    /// A region that has waited for a compactor for so long does not wait any more.
    pub overdue_after: Duration,
    /// How jobs are carried out.
    pub jobs: JobPolicy,
}

/// Where regions are compacted by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhereTo {
    /// On compactors, when there are any.
    Compactors,
    /// On the data node.
    Here,
    /// Nowhere: only when somebody asks.
    Nowhere,
}

impl Default for CompactionPolicy {
    fn default() -> Self {
        Self {
            where_to: WhereTo::Compactors,
            every: Duration::from_secs(5),
            urgent_files: 16,
            backoff: (Duration::from_secs(5), Duration::from_secs(300)),
            overdue_after: Duration::from_secs(600),
            jobs: JobPolicy::default(),
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
    /// Files that its picker would merge first; 0: none.
    pub files: usize,
    /// Bytes of them.
    pub bytes: u64,
    /// Files that it would merge at all.
    pub all_files: usize,
    /// It has waited for a compactor for too long.
    pub overdue: bool,
    /// A compaction of it is under way, or failed lately, or it belongs to somebody else now.
    pub held_back: bool,
}

/// What else there is to do, and who could do it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Load {
    /// Compactions that may begin on this node at once.
    pub here: usize,
    /// Jobs that compactors may still take; `None`: no compactor is up.
    pub compactors: Option<usize>,
    /// Unflushed rows take more than they may: processors and store are for flushes.
    pub short_of_memory: bool,
}

/// A region to compact now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// Which.
    pub region: RegionId,
    /// Where, and how soon.
    pub wanted: Wanted,
}

/// Regions to compact, the most useful first: whose merge takes away the most files for its bytes; and
/// where. What finds no place on a compactor waits for one, unless it is urgent.
pub fn choose(policy: &CompactionPolicy, candidates: &[Candidate], load: Load) -> Vec<Choice> {
    let urgent = |one: &Candidate| one.overdue || one.all_files >= policy.urgent_files;
    let compactors = load.compactors.filter(|_| policy.where_to == WhereTo::Compactors);
    let may_be_here = policy.where_to == WhereTo::Here || policy.jobs.fallback_to_local;
    let (mut there, mut here) = match policy.where_to {
        WhereTo::Nowhere => (0, 0),
        WhereTo::Compactors | WhereTo::Here => {
            (compactors.unwrap_or(0), if may_be_here { load.here } else { 0 })
        }
    };
    let mut due: Vec<&Candidate> =
        candidates.iter().filter(|one| one.files > 0 && !one.held_back).collect();
    due.sort_by_key(|one| (one.bytes / one.files.max(1) as u64, one.region));
    let mut chosen = Vec::new();
    for one in due {
        // A merge elsewhere is in no flush's way.
        let place = if there > 0 {
            there -= 1;
            CompactionPlace::Any
        } else if here > 0 && (urgent(one) || compactors.is_none() && !load.short_of_memory) {
            here -= 1;
            CompactionPlace::Local
        } else {
            continue;
        };
        let wanted = Wanted { place, may_wait: !urgent(one) };
        chosen.push(Choice { region: one.region, wanted });
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    // (id, files due, bytes, held back)
    type Region = (u64, usize, u64, bool);

    fn places(policy: &CompactionPolicy, regions: &[Region], load: Load) -> Vec<(u64, bool)> {
        let candidates: Vec<Candidate> = regions
            .iter()
            .map(|(id, files, bytes, held_back)| Candidate {
                region: RegionId(*id),
                files: *files,
                bytes: *bytes,
                all_files: *files,
                overdue: false,
                held_back: *held_back,
            })
            .collect();
        let chosen = choose(policy, &candidates, load).into_iter();
        let of = |one: Choice| {
            let files = candidates.iter().find(|known| known.region == one.region).unwrap().files;
            assert_eq!(one.wanted.may_wait, files < policy.urgent_files);
            (one.region.get(), one.wanted.place == CompactionPlace::Any)
        };
        chosen.map(of).collect()
    }

    fn chosen(regions: &[Region], load: Load) -> Vec<u64> {
        let places = places(&CompactionPolicy::default(), regions, load);
        assert!(places.iter().all(|(_, remote)| !remote));
        places.into_iter().map(|(id, _)| id).collect()
    }

    #[test]
    fn the_cheapest_files_go_first_as_far_as_there_is_room() {
        let free = |here| Load { here, ..Load::default() };
        let regions = [(1, 4, 400, false), (2, 4, 40, false), (3, 0, 0, false), (4, 8, 8, true)];
        assert_eq!(chosen(&regions, free(5)), [2, 1]);
        assert_eq!(chosen(&regions, free(1)), [2]);
        assert_eq!(chosen(&regions, free(0)), [0; 0]);
        assert_eq!(chosen(&[(2, 4, 40, false), (1, 4, 40, false)], free(5)), [1, 2]);
    }

    #[test]
    fn flushes_come_first_until_too_many_files_have_piled_up() {
        let short = Load { here: 5, short_of_memory: true, ..Load::default() };
        assert_eq!(chosen(&[(1, 15, 10, false), (2, 16, 900, false)], short), [2]);
    }

    #[test]
    fn compactors_come_first_and_are_waited_for_until_too_many_files_have_piled_up() {
        let policy = CompactionPolicy::default();
        let no_fallback = JobPolicy { fallback_to_local: false, ..JobPolicy::default() };
        let no_fallback = CompactionPolicy { jobs: no_fallback, ..policy };
        let with = |where_to| CompactionPolicy { where_to, ..policy };
        let load = |here, compactors| Load { here, compactors, short_of_memory: false };
        let regions = [(1, 4, 4, false), (2, 4, 40, false), (3, 16, 1_600, false)];
        let (there, here) = (true, false);

        assert_eq!(
            places(&policy, &regions, load(1, Some(2))),
            [(1, there), (2, there), (3, here)]
        );
        assert_eq!(places(&policy, &regions, load(2, Some(0))), [(3, here)]);
        assert_eq!(places(&policy, &regions, load(1, None)), [(1, here)]);
        let short = Load { short_of_memory: true, ..load(0, Some(9)) };
        assert_eq!(places(&policy, &regions, short).len(), 3, "in no flush's way");

        assert_eq!(places(&no_fallback, &regions, load(9, Some(1))), [(1, there)]);
        assert_eq!(places(&no_fallback, &regions, load(9, None)), []);
        assert_eq!(places(&with(WhereTo::Here), &regions, load(1, Some(9))), [(1, here)]);
        assert_eq!(places(&with(WhereTo::Nowhere), &regions, load(9, Some(9))), []);
    }

    #[test]
    fn what_has_waited_too_long_or_has_much_to_merge_waits_no_more() {
        let policy = CompactionPolicy::default();
        let busy = Load { here: 9, compactors: Some(0), short_of_memory: true };
        let one = |number| Candidate {
            region: RegionId(number),
            files: 1,
            bytes: 1,
            all_files: 15,
            overdue: false,
            held_back: false,
        };
        let due =
            [one(1), Candidate { all_files: 16, ..one(2) }, Candidate { overdue: true, ..one(3) }];
        let chosen: Vec<_> = choose(&policy, &due, busy)
            .into_iter()
            .map(|one| (one.region.get(), one.wanted))
            .collect();
        let wanted = Wanted { place: CompactionPlace::Local, may_wait: false };
        assert_eq!(chosen, [(2, wanted), (3, wanted)]);
    }

    #[test]
    fn failures_are_waited_for_longer_and_longer() {
        let policy = CompactionPolicy::default();
        let waits: Vec<u64> = [1, 2, 3, 9, 99].map(|n| policy.wait(n).as_secs()).into();
        assert_eq!(waits, [5, 10, 20, 300, 300]);
    }
}
