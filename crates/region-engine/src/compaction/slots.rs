//! Slots and memory of the compactions that a process runs on its own regions.
//!
//! A compaction waits for a slot before its files are chosen, since other compactions change the choice
//! while it waits. Once it is planned, its size is known and [`LocalSlot::admit`] decides.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::admission::{AdmissionError, JobCapacity, JobDemand, JobsInUse, admit};
use super::job::CompactionJob;
use super::options::{CompactionLimits, CompactionOptions};
use super::progress::CompactionProgress;
use crate::storage::StoreDisk;

/// Resources for compactions in this process, shared by all its regions.
#[derive(Debug)]
pub struct LocalSlots {
    capacity: JobCapacity,
    /// Limits of each job.
    allowed: CompactionLimits,
    disk: StoreDisk,
    free: Arc<Semaphore>,
    running: Mutex<RunningJobs>,
    /// Notified when a job has ended.
    ended: Notify,
}

#[derive(Debug, Default)]
struct RunningJobs {
    last: u64,
    jobs: BTreeMap<u64, AdmittedJob>,
}

#[derive(Debug)]
struct AdmittedJob {
    limits: CompactionLimits,
    bytes_read: u64,
    progress: Arc<CompactionProgress>,
}

/// Slot for one compaction, until it is dropped.
#[derive(Debug)]
#[must_use]
pub struct LocalSlot {
    slots: Arc<LocalSlots>,
    number: u64,
    _permit: Option<OwnedSemaphorePermit>,
}

impl LocalSlots {
    /// Creates the slots of a process whose object store is on `disk`.
    pub fn new(options: &CompactionOptions, disk: StoreDisk) -> Arc<Self> {
        let capacity = JobCapacity {
            slots: options.jobs.max(1),
            sub_jobs: options.jobs.max(1).saturating_mul(options.parallelism.max(1)),
            memory_bytes: options.memory_bytes,
        };
        Arc::new(Self {
            capacity,
            allowed: options.into(),
            disk,
            free: Arc::new(Semaphore::new(capacity.slots)),
            running: Mutex::default(),
            ended: Notify::new(),
        })
    }

    /// Bytes of memory that all jobs share.
    pub fn memory_bytes(&self) -> u64 {
        self.capacity.memory_bytes
    }

    /// Returns the number of jobs that may start now.
    pub fn free(&self) -> usize {
        self.free.available_permits()
    }

    /// Waits for a slot. Callers are served in order.
    pub async fn acquire(self: &Arc<Self>) -> LocalSlot {
        // Never closed.
        let permit = self.free.clone().acquire_owned().await.ok();
        let mut running = self.running.lock();
        running.last += 1;
        LocalSlot { slots: self.clone(), number: running.last, _permit: permit }
    }

    fn try_admit(
        &self,
        number: u64,
        demand: JobDemand,
        room: Option<u64>,
        progress: &Arc<CompactionProgress>,
    ) -> Result<CompactionLimits, AdmissionError> {
        let mut running = self.running.lock();
        running.jobs.remove(&number);
        let limits = admit(self.capacity, running.in_use(), room, demand)?;
        let bytes_read = demand.bytes_read;
        running.jobs.insert(number, AdmittedJob { limits, bytes_read, progress: progress.clone() });
        Ok(limits)
    }
}

impl LocalSlot {
    /// Bytes of memory that all jobs of the process share: a larger job is never admitted.
    pub fn memory_bytes(&self) -> u64 {
        self.slots.capacity.memory_bytes
    }

    /// Admits a job and returns its limits. Waits while other jobs use the memory. Replaces the slot's
    /// previous job. `progress`: counters of the job.
    ///
    /// # Errors
    /// [`AdmissionError::TooLarge`] and [`AdmissionError::Disk`].
    pub async fn admit(
        &self,
        job: &CompactionJob,
        progress: &Arc<CompactionProgress>,
    ) -> Result<CompactionLimits, AdmissionError> {
        let demand = JobDemand::of(job, self.slots.allowed);
        loop {
            let ended = self.slots.ended.notified();
            let room = self.slots.disk.room().await;
            match self.slots.try_admit(self.number, demand, room, progress) {
                Err(AdmissionError::Memory { .. } | AdmissionError::Slots { .. }) => ended.await,
                admitted => return admitted,
            }
        }
    }
}

impl RunningJobs {
    fn in_use(&self) -> JobsInUse {
        let jobs = self.jobs.values();
        let unwritten = |job: &AdmittedJob| {
            job.bytes_read.saturating_sub(job.progress.snapshot().bytes_written)
        };
        JobsInUse {
            jobs: self.jobs.len(),
            memory_bytes: jobs.clone().map(|job| job.limits.memory_bytes).sum(),
            sub_jobs: jobs.clone().map(|job| job.limits.parallelism).sum(),
            unwritten_bytes: jobs.map(unwritten).fold(0, u64::saturating_add),
            draining: false,
        }
    }
}

impl Drop for LocalSlot {
    fn drop(&mut self) {
        self.slots.running.lock().jobs.remove(&self.number);
        self.slots.ended.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use futures::poll;

    use super::*;

    const PER_JOB: u64 = 100;

    fn slots(jobs: usize, memory_bytes: u64) -> Arc<LocalSlots> {
        let options = CompactionOptions { jobs, memory_bytes, ..CompactionOptions::default() };
        LocalSlots::new(&options, StoreDisk::new("memory:///", 0))
    }

    fn try_admit(slot: &LocalSlot, room: Option<u64>) -> Result<CompactionLimits, AdmissionError> {
        let demand = JobDemand {
            sub_job_bytes: PER_JOB,
            sub_jobs: 1,
            memory_bytes: u64::MAX,
            bytes_read: 1_000,
        };
        slot.slots.try_admit(slot.number, demand, room, &Arc::default())
    }

    #[tokio::test]
    async fn slot_is_free_again_when_dropped() {
        let slots = slots(1, PER_JOB);
        let slot = slots.acquire().await;
        assert_eq!(slots.free(), 0);
        let mut next = Box::pin(slots.acquire());
        assert!(poll!(&mut next).is_pending());
        drop(slot);
        drop(next.await);
        assert_eq!(slots.free(), 1);
    }

    #[tokio::test]
    async fn memory_of_running_jobs_is_shared() {
        let slots = slots(3, 2 * PER_JOB);
        let held = [slots.acquire().await, slots.acquire().await, slots.acquire().await];
        for _ in 0..3 {
            assert!(try_admit(&held[0], None).is_ok(), "a slot has one job");
        }
        assert!(try_admit(&held[1], None).is_ok());
        let refused = try_admit(&held[2], None);
        assert_eq!(refused, Err(AdmissionError::Memory { needed: PER_JOB, free: 0 }));
        let [first, second, third] = held;
        drop(first);
        assert!(try_admit(&third, None).is_ok());
        let refused = try_admit(&second, Some(1_999));
        assert_eq!(refused, Err(AdmissionError::Disk { needed: 1_000, free: 999 }));
        assert!(try_admit(&second, Some(2_000)).is_ok());
        drop((second, third));
        assert_eq!(slots.running.lock().in_use(), JobsInUse::default());
    }

    #[tokio::test]
    async fn job_above_all_memory_does_not_wait() {
        let slots = slots(1, PER_JOB - 1);
        let slot = slots.acquire().await;
        let refused = try_admit(&slot, None);
        assert_eq!(refused, Err(AdmissionError::TooLarge { needed: PER_JOB, all: PER_JOB - 1 }));
    }
}
