//! Admission of compaction jobs, on compactors and on data nodes: whether a job is accepted, and with
//! which limits (pure).

use std::time::Duration;

use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::Reason;

use super::job::CompactionJob;
use super::options::CompactionLimits;

/// Suggested retry delay: by then a running job may have ended.
const RETRY: Duration = Duration::from_secs(1);

/// Resources that all jobs of a node share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobCapacity {
    /// Concurrent jobs; at least 1.
    pub slots: usize,
    /// Concurrent sub-jobs of all jobs together; at least 1.
    pub sub_jobs: usize,
    /// Bytes of memory.
    pub memory_bytes: u64,
}

/// Resources that running jobs use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct JobsInUse {
    /// Running jobs.
    pub jobs: usize,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Concurrent sub-jobs.
    pub sub_jobs: usize,
    /// Bytes that the jobs may still write.
    pub unwritten_bytes: u64,
    /// The node accepts no more jobs.
    pub draining: bool,
}

/// Resources that a job needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobDemand {
    /// Bytes of memory of one sub-job.
    pub sub_job_bytes: u64,
    /// Sub-jobs that are both allowed and useful.
    pub sub_jobs: usize,
    /// Bytes of memory that its owner allows; one sub-job is admitted in any case.
    pub memory_bytes: u64,
    /// Bytes of the inputs that are read: an upper bound of the bytes written.
    pub bytes_read: u64,
}

impl JobDemand {
    /// Demand of a job within the limits that its owner allows.
    pub fn of(job: &CompactionJob, allowed: CompactionLimits) -> Self {
        Self {
            sub_job_bytes: job.sub_job_bytes(),
            sub_jobs: job.sub_jobs(CompactionLimits { memory_bytes: u64::MAX, ..allowed }),
            memory_bytes: allowed.memory_bytes,
            bytes_read: job.bytes_read(),
        }
    }
}

/// Reason for which a job is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AdmissionError {
    /// The node is shutting down.
    #[error("this compactor is shutting down: use another one")]
    Draining,
    /// The job would never fit.
    #[error(
        "the job needs {needed} bytes of memory, but this node has only {all} for compactions: \
         raise its --memory-limit, or run a compactor with more memory"
    )]
    TooLarge {
        /// Bytes that one sub-job needs.
        needed: u64,
        /// Bytes for all jobs of the node.
        all: u64,
    },
    /// As many jobs are running as the node allows.
    #[error("all {slots} compaction slots of this node are in use: retry later")]
    Slots {
        /// Number of slots.
        slots: usize,
    },
    /// Running jobs use the memory.
    #[error(
        "the job needs {needed} bytes of memory, but only {free} of this node are free: retry later"
    )]
    Memory {
        /// Bytes that one sub-job needs.
        needed: u64,
        /// Bytes that no job uses.
        free: u64,
    },
    /// The disk of the object store has too little room.
    #[error(
        "the job may write {needed} bytes, but only {free} may be written to the disk of the \
         object store"
    )]
    Disk {
        /// Bytes that the job may write.
        needed: u64,
        /// Bytes that may be written.
        free: u64,
    },
}

impl From<AdmissionError> for Refusal {
    fn from(why: AdmissionError) -> Self {
        let refusal = |reason| Self::new(reason, why.to_string());
        match why {
            AdmissionError::Draining => refusal(Reason::ShuttingDown),
            AdmissionError::TooLarge { .. } => refusal(Reason::JobTooLarge),
            AdmissionError::Slots { .. } | AdmissionError::Memory { .. } => {
                refusal(Reason::Overloaded).retry_after(RETRY)
            }
            AdmissionError::Disk { .. } => refusal(Reason::DiskFull),
        }
    }
}

/// Returns the limits of a job. `room` is the number of bytes that may be written to the store's
/// disk; `None`: no limit.
///
/// Further sub-jobs must fit into the slot's share of the memory: otherwise the first jobs would
/// take the memory of other slots, which could then not be used. In addition to one sub-job per
/// job, all jobs together have at most the capacity's sub-jobs: more would wait for each other, each
/// on its own thread.
///
/// # Errors
/// [`AdmissionError`]. After [`Slots`](AdmissionError::Slots) and [`Memory`](AdmissionError::Memory)
/// the job may fit later.
pub fn admit(
    capacity: JobCapacity,
    in_use: JobsInUse,
    room: Option<u64>,
    demand: JobDemand,
) -> Result<CompactionLimits, AdmissionError> {
    let needed = demand.sub_job_bytes;
    if in_use.draining {
        return Err(AdmissionError::Draining);
    }
    if needed > capacity.memory_bytes {
        return Err(AdmissionError::TooLarge { needed, all: capacity.memory_bytes });
    }
    if in_use.jobs >= capacity.slots {
        return Err(AdmissionError::Slots { slots: capacity.slots });
    }
    let free = capacity.memory_bytes.saturating_sub(in_use.memory_bytes);
    if needed > free {
        return Err(AdmissionError::Memory { needed, free });
    }
    if let Some(room) = room {
        let free = room.saturating_sub(in_use.unwritten_bytes);
        if demand.bytes_read > free {
            return Err(AdmissionError::Disk { needed: demand.bytes_read, free });
        }
    }
    let share = capacity.memory_bytes / capacity.slots.max(1) as u64;
    let bound = share.min(free).min(demand.memory_bytes);
    let fit = usize::try_from(bound / needed.max(1)).unwrap_or(usize::MAX);
    let spare = capacity.sub_jobs.saturating_sub(in_use.sub_jobs);
    let parallelism = fit.min(demand.sub_jobs).min(spare).max(1);
    Ok(CompactionLimits { parallelism, memory_bytes: needed.saturating_mul(parallelism as u64) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: JobCapacity = JobCapacity { slots: 2, sub_jobs: 2, memory_bytes: 400 };
    const MANY: JobCapacity = JobCapacity { slots: 4, sub_jobs: 4, memory_bytes: 800 };
    const SMALL: JobDemand =
        JobDemand { sub_job_bytes: 50, sub_jobs: 3, memory_bytes: u64::MAX, bytes_read: 1_000 };

    fn busy(jobs: usize, memory_bytes: u64) -> JobsInUse {
        JobsInUse { jobs, memory_bytes, ..JobsInUse::default() }
    }

    #[test]
    fn job_gets_sub_jobs_up_to_its_memory_share() {
        let granted = |in_use, demand| {
            let limits = admit(MANY, in_use, None, demand).unwrap();
            (limits.parallelism, limits.memory_bytes)
        };
        let sized = |sub_job_bytes| JobDemand { sub_job_bytes, ..SMALL };
        assert_eq!(granted(busy(0, 0), SMALL), (3, 150));
        assert_eq!(granted(busy(0, 0), sized(100)), (2, 200));
        assert_eq!(granted(busy(0, 0), sized(150)), (1, 150), "the other slot keeps its share");
        assert_eq!(granted(busy(0, 0), sized(800)), (1, 800), "a single job may use all memory");
        assert_eq!(granted(busy(1, 690), SMALL), (2, 100), "memory is short");
        assert_eq!(granted(busy(1, 750), SMALL), (1, 50));
        let running = |sub_jobs| JobsInUse { sub_jobs, ..busy(1, 0) };
        assert_eq!(granted(running(1), SMALL), (3, 150));
        assert_eq!(granted(running(2), SMALL), (2, 100), "as many sub-jobs as slots");
        assert_eq!(granted(running(5), SMALL), (1, 50));
        assert_eq!(granted(busy(0, 0), JobDemand { memory_bytes: 120, ..SMALL }), (2, 100));
        assert_eq!(granted(busy(0, 0), JobDemand { memory_bytes: 1, ..SMALL }), (1, 50));
        assert_eq!(granted(busy(0, 0), JobDemand { sub_jobs: 0, ..SMALL }), (1, 50));
        let one_slot = JobCapacity { slots: 1, sub_jobs: 2, memory_bytes: 800 };
        let limits = admit(one_slot, busy(0, 0), None, SMALL).unwrap();
        assert_eq!((limits.parallelism, limits.memory_bytes), (2, 100), "two sub-jobs in one slot");
    }

    #[test]
    fn admission_refusals_have_a_reason_and_retry_delay() {
        let draining = JobsInUse { draining: true, ..busy(2, 400) };
        let large = JobDemand { sub_job_bytes: 401, ..SMALL };
        let writing = JobsInUse { unwritten_bytes: 501, ..busy(1, 100) };
        let cases = [
            (draining, None, large, Reason::ShuttingDown, false),
            (busy(2, 400), None, large, Reason::JobTooLarge, false),
            (busy(2, 100), None, SMALL, Reason::Overloaded, true),
            (busy(1, 351), None, SMALL, Reason::Overloaded, true),
            (busy(0, 0), Some(999), SMALL, Reason::DiskFull, false),
            (writing, Some(1_500), SMALL, Reason::DiskFull, false),
        ];
        for (in_use, room, demand, reason, retryable) in cases {
            let why = admit(ALL, in_use, room, demand).unwrap_err();
            let refusal = Refusal::from(why);
            assert_eq!(
                (refusal.reason, refusal.retry_after.is_some()),
                (reason, retryable),
                "{why}"
            );
        }
        let writing = JobsInUse { unwritten_bytes: 500, ..busy(1, 100) };
        assert!(admit(ALL, writing, Some(1_500), SMALL).is_ok());
        assert!(admit(ALL, busy(0, 0), Some(1_000), SMALL).is_ok());
    }
}
