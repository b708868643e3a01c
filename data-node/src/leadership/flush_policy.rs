//! Regions to flush now, and regions for which only the log has to advance: a pure function of their
//! sizes and ages.

use std::time::Duration;

use tidewater_common::ids::RegionId;

/// When regions are flushed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FlushPolicy {
    /// Memtable bytes at which a region is flushed. Larger: fewer, larger files and more log to replay.
    pub region_bytes: u64,
    /// Age at which rows are flushed, so that logs can be purged.
    pub max_age: Duration,
    /// Memtable bytes below which a region is not worth a file, unless its rows are too old.
    pub min_bytes: u64,
    /// Concurrent flushes of a group.
    pub concurrency: usize,
}

impl FlushPolicy {
    /// Returns the policy of a node with this memory limit: a sixteenth of it per region, between 4 and
    /// 64 MiB.
    pub fn for_memory(limit: u64) -> Self {
        let region_bytes = (limit / 16).clamp(4 * 1024 * 1024, 64 * 1024 * 1024);
        Self {
            region_bytes,
            max_age: Duration::from_secs(600),
            min_bytes: region_bytes / 16,
            concurrency: 2,
        }
    }
}

/// Region that may need a flush.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FlushCandidate {
    /// Id of the region.
    pub region: RegionId,
    /// Bytes of unflushed rows.
    pub bytes: u64,
    /// Age of the oldest unflushed row in memory.
    pub age: Duration,
    /// Not to be picked: work on it is queued or in progress, it backs off after a failure, it is sealed for
    /// a split or a merge, or a later owner has it.
    pub held_back: bool,
    /// A flush of it is running or queued: its bytes will be freed soon.
    pub flush_in_progress: bool,
    /// Its last flush failed, so it is unknown when its bytes will be freed. They must not keep other
    /// regions from being flushed, or one bad region uses up the memory of all. It is flushed again even
    /// when it is small: otherwise the problem would be reported after its cause has gone.
    pub failing: bool,
    /// The log has decided something that its manifest does not record yet.
    pub has_obligations: bool,
    /// Its manifest version is higher than the version in the log. Until the log advances, followers
    /// keep rows that files hold.
    pub advance_pending: bool,
}

/// Reasons to flush beyond sizes and ages.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct FlushPressure {
    /// Bytes of unflushed rows above the limit of this process, or of a follower, which holds the same
    /// rows.
    pub excess_bytes: u64,
    /// A flush of large memtables was requested.
    pub large_requested: bool,
}

/// Work on a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegionWork {
    /// Write its rows to files, and propose the manifest advance to the log.
    Flush,
    /// Record in its manifest what the log has decided. A flush does so first.
    Settle,
    /// Propose its manifest version to the log. Its rows stay in memory: a file of a few rows would
    /// slow down every read and get an index, which would need another advance.
    ProposeAdvance,
}

/// Returns the work that is due, most useful first, without regions that are held back.
pub fn pick_region_work(
    policy: &FlushPolicy,
    candidates: &[FlushCandidate],
    pressure: FlushPressure,
) -> Vec<(RegionId, RegionWork)> {
    let mut free: Vec<&FlushCandidate> = candidates
        .iter()
        .filter(|region| region.bytes > 0 || region.has_obligations || region.advance_pending)
        .filter(|region| !region.held_back)
        .collect();
    // Largest first; ids break ties, so that the choice is deterministic.
    free.sort_by_key(|region| (std::cmp::Reverse(region.bytes), region.region));
    let in_progress: u64 = candidates
        .iter()
        .filter(|region| region.flush_in_progress && !region.failing)
        .map(|region| region.bytes)
        .sum();
    let mut bytes_to_free = pressure.excess_bytes.saturating_sub(in_progress);
    let mut picked = Vec::new();
    for candidate in free {
        let for_memory = bytes_to_free > 0 && candidate.bytes > 0;
        let due = candidate.bytes > 0
            && (candidate.failing
                || candidate.bytes >= policy.region_bytes
                || candidate.age >= policy.max_age
                || (pressure.large_requested && candidate.bytes >= policy.min_bytes));
        if for_memory || due {
            if !candidate.failing {
                bytes_to_free = bytes_to_free.saturating_sub(candidate.bytes);
            }
            picked.push((candidate.region, RegionWork::Flush));
        } else if candidate.has_obligations {
            picked.push((candidate.region, RegionWork::Settle));
        } else if candidate.advance_pending {
            picked.push((candidate.region, RegionWork::ProposeAdvance));
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
            max_age: Duration::from_secs(600),
            min_bytes: 4 * MIB,
            concurrency: 2,
        }
    }

    fn candidate(id: u64, mib: u64) -> FlushCandidate {
        FlushCandidate {
            region: RegionId(id),
            bytes: mib * MIB,
            age: Duration::ZERO,
            held_back: false,
            flush_in_progress: false,
            failing: false,
            has_obligations: false,
            advance_pending: false,
        }
    }

    // (id, MiB, age in seconds, flush in progress)
    fn flushed(
        regions: &[(u64, u64, u64, bool)],
        excess_mib: u64,
        large_requested: bool,
    ) -> Vec<u64> {
        let candidates: Vec<FlushCandidate> = regions
            .iter()
            .map(|(id, mib, age, flush_in_progress)| FlushCandidate {
                age: Duration::from_secs(*age),
                held_back: *flush_in_progress,
                flush_in_progress: *flush_in_progress,
                ..candidate(*id, *mib)
            })
            .collect();
        let pressure = FlushPressure { excess_bytes: excess_mib * MIB, large_requested };
        flushes(&pick_region_work(&policy(), &candidates, pressure))
    }

    fn flushes(picked: &[(RegionId, RegionWork)]) -> Vec<u64> {
        let flushes = picked.iter().filter(|(_, work)| *work == RegionWork::Flush);
        flushes.map(|(region, _)| region.get()).collect()
    }

    #[test]
    fn size_and_age_make_a_region_due() {
        assert_eq!(flushed(&[(1, 63, 599, false)], 0, false), [0; 0]);
        assert_eq!(flushed(&[(1, 64, 0, false)], 0, false), [1]);
        assert_eq!(flushed(&[(1, 1, 600, false)], 0, false), [1]);
        assert_eq!(flushed(&[(1, 0, 600, false)], 0, false), [0; 0], "nothing to flush");
        assert_eq!(flushed(&[(1, 64, 600, true)], 0, false), [0; 0], "held back");
    }

    #[test]
    fn memory_pressure_flushes_only_the_largest_regions_needed() {
        let regions = [(1, 10, 0, false), (2, 30, 0, false), (3, 30, 0, false), (4, 1, 0, false)];
        assert_eq!(flushed(&regions, 1, false), [2]);
        assert_eq!(flushed(&regions, 31, false), [2, 3]);
        assert_eq!(flushed(&regions, 1_000, false), [2, 3, 1, 4]);
    }

    #[test]
    fn flushes_in_progress_count_against_the_excess() {
        let regions = [(1, 50, 0, true), (2, 30, 0, false)];
        assert_eq!(flushed(&regions, 50, false), [0; 0]);
        assert_eq!(flushed(&regions, 51, false), [2]);
    }

    // Its store is unavailable, or a later owner has it: its bytes stay, and those of others must be freed.
    #[test]
    fn failing_region_keeps_no_other_region_from_flushing() {
        let healthy = candidate(2, 30);
        let bad = FlushCandidate { failing: true, ..candidate(1, 50) };
        let backing_off = FlushCandidate { held_back: true, ..bad };
        let again = FlushCandidate { held_back: true, flush_in_progress: true, ..bad };
        let fenced = FlushCandidate { failing: false, ..backing_off };
        let pressure = FlushPressure { excess_bytes: MIB, large_requested: false };
        for bad in [backing_off, again, fenced] {
            let picked = pick_region_work(&policy(), &[bad, healthy], pressure);
            assert_eq!(flushes(&picked), [2], "{bad:?}");
        }
        // After its backoff it is retried, and the other one is flushed with it.
        assert_eq!(flushes(&pick_region_work(&policy(), &[bad, healthy], pressure)), [1, 2]);
    }

    #[test]
    fn failed_flush_is_retried_for_a_small_region() {
        let small = candidate(1, 1);
        let failing = FlushCandidate { failing: true, ..small };
        let held = FlushCandidate { held_back: true, ..failing };
        let empty = FlushCandidate { failing: true, ..candidate(2, 0) };
        for (region, picked) in [(small, false), (failing, true), (held, false), (empty, false)] {
            let flushes =
                flushes(&pick_region_work(&policy(), &[region], FlushPressure::default()));
            assert_eq!(!flushes.is_empty(), picked, "{region:?}");
        }
    }

    // A build of indexes or a compaction has advanced the manifest beyond the log: no reason to write a
    // file.
    #[test]
    fn log_advances_for_regions_without_due_rows() {
        let idle = FlushCandidate { advance_pending: true, ..candidate(1, 0) };
        let advanced = candidate(2, 0);
        let failed = FlushCandidate { held_back: true, advance_pending: true, ..candidate(3, 0) };
        let small = FlushCandidate { advance_pending: true, ..candidate(4, 1) };
        let due = FlushCandidate { advance_pending: true, ..candidate(5, 64) };
        let regions = [idle, advanced, failed, small, due];
        let flush = RegionWork::Flush;
        let advance = RegionWork::ProposeAdvance;
        let picked = pick_region_work(&policy(), &regions, FlushPressure::default());
        assert_eq!(picked, [(RegionId(5), flush), (RegionId(4), advance), (RegionId(1), advance)]);
        // An advance frees no memory.
        let short = FlushPressure { excess_bytes: 65 * MIB, large_requested: false };
        let picked = pick_region_work(&policy(), &regions, short);
        assert_eq!(picked, [(RegionId(5), flush), (RegionId(4), flush), (RegionId(1), advance)]);
    }

    #[test]
    fn obligations_are_settled_alone_or_by_a_flush() {
        let obliged = |id, mib| FlushCandidate {
            has_obligations: true,
            advance_pending: true,
            ..candidate(id, mib)
        };
        let held = FlushCandidate { held_back: true, ..obliged(3, 0) };
        let regions = [obliged(1, 0), obliged(2, 64), held];
        let picked = pick_region_work(&policy(), &regions, FlushPressure::default());
        assert_eq!(picked, [(RegionId(2), RegionWork::Flush), (RegionId(1), RegionWork::Settle)]);
    }

    #[test]
    fn request_for_large_memtables_spares_small_ones() {
        assert_eq!(flushed(&[(1, 3, 0, false), (2, 4, 0, false)], 0, true), [2]);
    }

    #[test]
    fn flush_sizes_follow_the_memory_limit() {
        assert_eq!(FlushPolicy::for_memory(MIB).region_bytes, 4 * MIB);
        assert_eq!(FlushPolicy::for_memory(512 * MIB).region_bytes, 32 * MIB);
        assert_eq!(FlushPolicy::for_memory(64 * 1024 * MIB).region_bytes, 64 * MIB);
    }
}
