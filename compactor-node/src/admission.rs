//! Whether a job is taken now, and what it gets: pure.

use std::time::Duration;

use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::Reason;
use tidewater_region_engine::compaction::CompactionLimits;

/// Until a job may have ended.
const RETRY: Duration = Duration::from_secs(1);

/// What jobs have together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Capacity {
    /// Jobs at once; at least 1.
    pub(crate) slots: usize,
    /// Bytes of memory.
    pub(crate) memory_bytes: u64,
}

/// What running jobs have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct InUse {
    pub(crate) jobs: usize,
    pub(crate) memory_bytes: u64,
    /// Sub-jobs that run at once.
    pub(crate) sub_jobs: usize,
    /// Bytes that they may still write.
    pub(crate) unwritten_bytes: u64,
    pub(crate) draining: bool,
}

/// What a job needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Demand {
    /// Bytes of memory of one sub-job.
    pub(crate) sub_job_bytes: u64,
    /// Sub-jobs that are allowed and worth it.
    pub(crate) sub_jobs: usize,
    /// Bytes of memory that its owner allows; it has one sub-job at any rate.
    pub(crate) memory_bytes: u64,
    /// Bytes of its inputs that are read: no more is written.
    pub(crate) bytes_read: u64,
}

/// Why a job is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotTaken {
    #[error("this compactor is stopping: ask another one")]
    Draining,
    #[error("a job needs {needed} bytes of memory, this compactor has {all} for merges")]
    TooLarge { needed: u64, all: u64 },
    #[error("all {slots} slots of this compactor are taken")]
    Slots { slots: usize },
    #[error("a job needs {needed} bytes of memory, {free} are free here now")]
    Memory { needed: u64, free: u64 },
    #[error(
        "a job may write {needed} bytes, {free} may be written to the disk of the object store"
    )]
    Disk { needed: u64, free: u64 },
}

impl From<NotTaken> for Refusal {
    fn from(why: NotTaken) -> Self {
        let refusal = |reason| Self::new(reason, why.to_string());
        match why {
            NotTaken::Draining => refusal(Reason::ShuttingDown),
            NotTaken::TooLarge { .. } => refusal(Reason::JobTooLarge),
            NotTaken::Slots { .. } | NotTaken::Memory { .. } => {
                refusal(Reason::Overloaded).retry_after(RETRY)
            }
            NotTaken::Disk { .. } => refusal(Reason::DiskFull),
        }
    }
}

/// What a job gets. `room`: bytes that may be written to the store's disk; `None`: no limit.
///
/// A second sub-job has to fit into the slot's share of the memory: else the first jobs would take
/// the memory of the slots beside them, and those could not be used. And all jobs together have no
/// more sub-jobs than there are slots, but for the one that each job has: more would wait for each
/// other, on a thread each.
pub(crate) fn admit(
    capacity: Capacity,
    in_use: InUse,
    room: Option<u64>,
    demand: Demand,
) -> Result<CompactionLimits, NotTaken> {
    let needed = demand.sub_job_bytes;
    if in_use.draining {
        return Err(NotTaken::Draining);
    }
    if needed > capacity.memory_bytes {
        return Err(NotTaken::TooLarge { needed, all: capacity.memory_bytes });
    }
    if in_use.jobs >= capacity.slots {
        return Err(NotTaken::Slots { slots: capacity.slots });
    }
    let free = capacity.memory_bytes.saturating_sub(in_use.memory_bytes);
    if needed > free {
        return Err(NotTaken::Memory { needed, free });
    }
    if let Some(room) = room {
        let free = room.saturating_sub(in_use.unwritten_bytes);
        if demand.bytes_read > free {
            return Err(NotTaken::Disk { needed: demand.bytes_read, free });
        }
    }
    let share = capacity.memory_bytes / capacity.slots.max(1) as u64;
    let bound = share.min(free).min(demand.memory_bytes);
    let fit = usize::try_from(bound / needed.max(1)).unwrap_or(usize::MAX);
    let spare = capacity.slots.saturating_sub(in_use.sub_jobs);
    let parallelism = fit.min(demand.sub_jobs).min(spare).max(1);
    Ok(CompactionLimits { parallelism, memory_bytes: needed.saturating_mul(parallelism as u64) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Capacity = Capacity { slots: 2, memory_bytes: 400 };
    const MANY: Capacity = Capacity { slots: 4, memory_bytes: 800 };
    const SMALL: Demand =
        Demand { sub_job_bytes: 50, sub_jobs: 3, memory_bytes: u64::MAX, bytes_read: 1_000 };

    fn busy(jobs: usize, memory_bytes: u64) -> InUse {
        InUse { jobs, memory_bytes, ..InUse::default() }
    }

    #[test]
    fn a_job_gets_as_many_sub_jobs_as_its_share_holds() {
        let granted = |in_use, demand| {
            let limits = admit(MANY, in_use, None, demand).unwrap();
            (limits.parallelism, limits.memory_bytes)
        };
        let of = |sub_job_bytes| Demand { sub_job_bytes, ..SMALL };
        assert_eq!(granted(busy(0, 0), SMALL), (3, 150));
        assert_eq!(granted(busy(0, 0), of(100)), (2, 200));
        assert_eq!(granted(busy(0, 0), of(150)), (1, 150), "the other slot keeps its share");
        assert_eq!(granted(busy(0, 0), of(800)), (1, 800), "alone it may have all");
        assert_eq!(granted(busy(1, 690), SMALL), (2, 100), "memory is short");
        assert_eq!(granted(busy(1, 750), SMALL), (1, 50));
        let running = |sub_jobs| InUse { sub_jobs, ..busy(1, 0) };
        assert_eq!(granted(running(1), SMALL), (3, 150));
        assert_eq!(granted(running(2), SMALL), (2, 100), "as many as there are slots");
        assert_eq!(granted(running(5), SMALL), (1, 50));
        assert_eq!(granted(busy(0, 0), Demand { memory_bytes: 120, ..SMALL }), (2, 100));
        assert_eq!(granted(busy(0, 0), Demand { memory_bytes: 1, ..SMALL }), (1, 50));
        assert_eq!(granted(busy(0, 0), Demand { sub_jobs: 0, ..SMALL }), (1, 50));
    }

    #[test]
    fn what_is_refused_says_why_and_whether_to_ask_again() {
        let draining = InUse { draining: true, ..busy(2, 400) };
        let large = Demand { sub_job_bytes: 401, ..SMALL };
        let writing = InUse { unwritten_bytes: 501, ..busy(1, 100) };
        let cases = [
            (draining, None, large, Reason::ShuttingDown, false),
            (busy(2, 400), None, large, Reason::JobTooLarge, false),
            (busy(2, 100), None, SMALL, Reason::Overloaded, true),
            (busy(1, 351), None, SMALL, Reason::Overloaded, true),
            (busy(0, 0), Some(999), SMALL, Reason::DiskFull, false),
            (writing, Some(1_500), SMALL, Reason::DiskFull, false),
        ];
        for (in_use, room, demand, reason, again) in cases {
            let why = admit(ALL, in_use, room, demand).unwrap_err();
            let refusal = Refusal::from(why);
            assert_eq!((refusal.reason, refusal.retry_after.is_some()), (reason, again), "{why}");
        }
        let writing = InUse { unwritten_bytes: 500, ..busy(1, 100) };
        assert!(admit(ALL, writing, Some(1_500), SMALL).is_ok());
        assert!(admit(ALL, busy(0, 0), Some(1_000), SMALL).is_ok());
    }
}
