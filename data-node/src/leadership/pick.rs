//! Which regions to flush now, and of which only the log has to be told: a pure function of their
//! sizes and ages.

use std::time::Duration;

use tidewater_common::ids::RegionId;

/// When regions are flushed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FlushPolicy {
    /// A memtable of so many bytes is flushed. Larger: fewer, larger files and more to replay.
    pub region_bytes: u64,
    /// Rows are flushed when they are this old, so that logs can be purged.
    pub age: Duration,
    /// Memtables below this many bytes are not worth a file when it is not about age.
    pub worth: u64,
    /// Flushes at the same time, per group.
    pub concurrency: usize,
}

impl FlushPolicy {
    /// For a node with this memory limit: a sixteenth of it per region, between 4 and 64 MiB.
    pub fn for_memory(limit: u64) -> Self {
        let region_bytes = (limit / 16).clamp(4 * 1024 * 1024, 64 * 1024 * 1024);
        Self {
            region_bytes,
            age: Duration::from_secs(600),
            worth: region_bytes / 16,
            concurrency: 2,
        }
    }
}

/// A region that could be flushed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// Which.
    pub region: RegionId,
    /// Bytes of unflushed rows.
    pub bytes: u64,
    /// Age of the oldest unflushed row in memory.
    pub age: Duration,
    /// A flush of it is under way, or failed lately, or it belongs to somebody else now.
    pub held_back: bool,
    /// A flush of it is running or queued: its bytes are about to go.
    pub under_way: bool,
    /// Its last flush failed, so that nobody can tell when its bytes go: they must not keep others
    /// from being flushed, or one bad region uses up the memory of all.
    pub failing: bool,
    /// The log has decided something that its manifest does not record yet.
    pub owes: bool,
    /// Its manifest is further than the log knows. Until the log is told, followers keep rows that lie
    /// in files.
    pub untold: bool,
}

/// What makes flushing urgent beyond sizes and ages.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Pressure {
    /// Bytes of unflushed rows to get rid of: those above the limit of this process, or of that of a
    /// follower, which holds the same rows.
    pub excess: u64,
    /// Somebody asked for large memtables to be flushed.
    pub asked: bool,
}

/// What is to be done for a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Write its rows to files, and tell the log.
    Flush,
    /// Record in its manifest what the log has decided; a flush does so first.
    Settle,
    /// Tell the log how far its manifest is. Its rows stay in memory: a file of a few rows would be in
    /// every read's way, and get an index, of which the log would have to be told again.
    Tell,
}

/// Regions that want something done, the most useful first. None that is held back or not due.
pub fn pick(
    policy: &FlushPolicy,
    candidates: &[Candidate],
    pressure: Pressure,
) -> Vec<(RegionId, Work)> {
    let mut free: Vec<&Candidate> = candidates
        .iter()
        .filter(|one| (one.bytes > 0 || one.owes || one.untold) && !one.held_back)
        .collect();
    // Largest first; ids break ties, so that the choice is the same wherever it is made.
    free.sort_by_key(|one| (std::cmp::Reverse(one.bytes), one.region));
    let under_way: u64 =
        candidates.iter().filter(|one| one.under_way && !one.failing).map(|one| one.bytes).sum();
    let mut wanted = pressure.excess.saturating_sub(under_way);
    let mut picked = Vec::new();
    for one in free {
        let for_memory = wanted > 0 && one.bytes > 0;
        let due = one.bytes > 0
            && (one.bytes >= policy.region_bytes
                || one.age >= policy.age
                || (pressure.asked && one.bytes >= policy.worth));
        if for_memory || due {
            if !one.failing {
                wanted = wanted.saturating_sub(one.bytes);
            }
            picked.push((one.region, Work::Flush));
        } else if one.owes {
            picked.push((one.region, Work::Settle));
        } else if one.untold {
            picked.push((one.region, Work::Tell));
        }
    }
    picked
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    fn policy() -> FlushPolicy {
        FlushPolicy {
            region_bytes: 64 * MIB,
            age: Duration::from_secs(600),
            worth: 4 * MIB,
            concurrency: 2,
        }
    }

    fn of_size(id: u64, mib: u64) -> Candidate {
        Candidate {
            region: RegionId(id),
            bytes: mib * MIB,
            age: Duration::ZERO,
            held_back: false,
            under_way: false,
            failing: false,
            owes: false,
            untold: false,
        }
    }

    // (id, MiB, age in seconds, under way)
    fn picked(regions: &[(u64, u64, u64, bool)], excess_mib: u64, asked: bool) -> Vec<u64> {
        let candidates: Vec<Candidate> = regions
            .iter()
            .map(|(id, mib, age, under_way)| Candidate {
                age: Duration::from_secs(*age),
                held_back: *under_way,
                under_way: *under_way,
                ..of_size(*id, *mib)
            })
            .collect();
        let pressure = Pressure { excess: excess_mib * MIB, asked };
        flushed(&pick(&policy(), &candidates, pressure))
    }

    fn flushed(picked: &[(RegionId, Work)]) -> Vec<u64> {
        picked.iter().filter(|one| one.1 == Work::Flush).map(|one| one.0.get()).collect()
    }

    #[test]
    fn size_and_age_make_a_region_due() {
        assert_eq!(picked(&[(1, 63, 599, false)], 0, false), [0; 0]);
        assert_eq!(picked(&[(1, 64, 0, false)], 0, false), [1]);
        assert_eq!(picked(&[(1, 1, 600, false)], 0, false), [1]);
        assert_eq!(picked(&[(1, 0, 600, false)], 0, false), [0; 0], "nothing to flush");
        assert_eq!(picked(&[(1, 64, 600, true)], 0, false), [0; 0], "held back");
    }

    #[test]
    fn short_memory_takes_the_largest_and_no_more_than_needed() {
        let regions = [(1, 10, 0, false), (2, 30, 0, false), (3, 30, 0, false), (4, 1, 0, false)];
        assert_eq!(picked(&regions, 1, false), [2]);
        assert_eq!(picked(&regions, 31, false), [2, 3]);
        assert_eq!(picked(&regions, 1_000, false), [2, 3, 1, 4]);
    }

    #[test]
    fn what_is_under_way_counts_against_the_excess() {
        let regions = [(1, 50, 0, true), (2, 30, 0, false)];
        assert_eq!(picked(&regions, 50, false), [0; 0]);
        assert_eq!(picked(&regions, 51, false), [2]);
    }

    // Its store is gone, or a later owner has it: its bytes stay, and those of others must go.
    #[test]
    fn what_cannot_be_flushed_keeps_no_other_region_from_being_flushed() {
        let healthy = of_size(2, 30);
        let bad = Candidate { failing: true, ..of_size(1, 50) };
        let backing_off = Candidate { held_back: true, ..bad };
        let again = Candidate { held_back: true, under_way: true, ..bad };
        let fenced = Candidate { failing: false, ..backing_off };
        let pressure = Pressure { excess: MIB, asked: false };
        for bad in [backing_off, again, fenced] {
            assert_eq!(flushed(&pick(&policy(), &[bad, healthy], pressure)), [2], "{bad:?}");
        }
        // It is tried again, and the other one with it.
        assert_eq!(flushed(&pick(&policy(), &[bad, healthy], pressure)), [1, 2]);
    }

    // A build of indexes or a compaction has come further than the log knows: no reason to write a file.
    #[test]
    fn the_log_is_told_of_a_region_whose_rows_are_not_due() {
        let idle = Candidate { untold: true, ..of_size(1, 0) };
        let told = of_size(2, 0);
        let failed = Candidate { held_back: true, untold: true, ..of_size(3, 0) };
        let small = Candidate { untold: true, ..of_size(4, 1) };
        let due = Candidate { untold: true, ..of_size(5, 64) };
        let regions = [idle, told, failed, small, due];
        let (flush, tell) = (Work::Flush, Work::Tell);
        let picked = pick(&policy(), &regions, Pressure::default());
        assert_eq!(picked, [(RegionId(5), flush), (RegionId(4), tell), (RegionId(1), tell)]);
        // What does not flush frees no memory.
        let short = Pressure { excess: 65 * MIB, asked: false };
        let picked = pick(&policy(), &regions, short);
        assert_eq!(picked, [(RegionId(5), flush), (RegionId(4), flush), (RegionId(1), tell)]);
    }

    #[test]
    fn what_the_log_has_decided_is_recorded_by_a_flush_or_by_itself() {
        let owes = |id, mib| Candidate { owes: true, untold: true, ..of_size(id, mib) };
        let held = Candidate { held_back: true, ..owes(3, 0) };
        let picked = pick(&policy(), &[owes(1, 0), owes(2, 64), held], Pressure::default());
        assert_eq!(picked, [(RegionId(2), Work::Flush), (RegionId(1), Work::Settle)]);
    }

    #[test]
    fn a_request_spares_what_is_not_worth_a_file() {
        assert_eq!(picked(&[(1, 3, 0, false), (2, 4, 0, false)], 0, true), [2]);
    }

    #[test]
    fn sizes_follow_the_memory_limit() {
        assert_eq!(FlushPolicy::for_memory(MIB).region_bytes, 4 * MIB);
        assert_eq!(FlushPolicy::for_memory(512 * MIB).region_bytes, 32 * MIB);
        assert_eq!(FlushPolicy::for_memory(64 * 1024 * MIB).region_bytes, 64 * MIB);
    }
}
