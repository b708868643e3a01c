//! Jobs that run on this compactor, and the resources they use.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use tidewater_common::ids::{FileId, JobId, NodeId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::Reason;
use tidewater_region_engine::compaction::admission::{
    AdmissionError, JobCapacity, JobDemand, JobsInUse, admit,
};
use tidewater_region_engine::compaction::{Attempt, CompactionJob, CompactionLimits};
use tidewater_region_engine::file_meta::{FileMeta, FileRef};
use tidewater_region_engine::layout::RegionDir;
use tokio::sync::watch;
use tokio::time::Instant;

/// Running jobs and their shared capacity.
#[derive(Debug)]
pub(crate) struct JobTable {
    capacity: JobCapacity,
    inner: Mutex<RunningJobs>,
    /// Number of running jobs.
    running: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct RunningJobs {
    draining: bool,
    running: BTreeMap<JobId, Arc<RunningJob>>,
}

/// A running job.
#[derive(Debug)]
pub(crate) struct RunningJob {
    pub(crate) id: JobId,
    pub(crate) dir: RegionDir,
    pub(crate) inputs: BTreeSet<FileRef>,
    pub(crate) bytes_in: u64,
    /// Bytes of the inputs that are read.
    pub(crate) bytes_read: u64,
    /// Ordinal of the attempt, counted by the owner.
    pub(crate) number: u32,
    /// Data node that requested the job.
    pub(crate) source: NodeId,
    pub(crate) limits: CompactionLimits,
    pub(crate) began: Instant,
    pub(crate) attempt: Attempt,
    ended_by: OnceLock<EndCause>,
}

/// Cause of an early end of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndCause {
    /// A user cancelled the job.
    Cancel,
    /// This node is shutting down.
    Drain,
    /// The disk of the object store is filling up.
    Disk,
}

/// Slot of a running job. Dropping it releases the job's resources.
#[derive(Debug)]
#[must_use]
pub(crate) struct JobSlot {
    jobs: Arc<JobTable>,
    pub(crate) job: Arc<RunningJob>,
}

/// Error of starting or cancelling a job.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum JobError {
    #[error("job {0} is already running on this compactor")]
    Exists(JobId),
    #[error("job {job}, which is running on this compactor, already has file {file}")]
    FileBusy { job: JobId, file: FileId },
    #[error("job {0} is not running on this compactor")]
    NotFound(JobId),
    #[error(transparent)]
    NotAdmitted(#[from] AdmissionError),
}

impl From<JobError> for Refusal {
    fn from(error: JobError) -> Self {
        let refusal = |reason| Self::new(reason, error.to_string());
        match error {
            JobError::Exists(_) | JobError::FileBusy { .. } => refusal(Reason::JobExists),
            JobError::NotFound(_) => refusal(Reason::JobNotFound),
            JobError::NotAdmitted(why) => why.into(),
        }
    }
}

impl RunningJob {
    /// Ends the job soon. The first cause is recorded.
    pub(crate) fn end(&self, by: EndCause) {
        let _ = self.ended_by.set(by);
        self.attempt.cancel.cancel();
    }

    /// Cause of an early end, if any.
    pub(crate) fn ended_by(&self) -> Option<EndCause> {
        self.ended_by.get().copied()
    }
}

impl JobTable {
    /// Creates a table without jobs.
    pub(crate) fn new(capacity: JobCapacity) -> Arc<Self> {
        let running = watch::Sender::new(0);
        Arc::new(Self { capacity, inner: Mutex::default(), running })
    }

    /// Resources shared by all jobs.
    pub(crate) fn capacity(&self) -> JobCapacity {
        self.capacity
    }

    /// Resources of the running jobs.
    pub(crate) fn in_use(&self) -> JobsInUse {
        self.inner.lock().in_use()
    }

    /// Number of running jobs by requesting data node.
    pub(crate) fn by_source(&self) -> HashMap<u64, u32> {
        let mut count = HashMap::new();
        for job in self.inner.lock().running.values() {
            *count.entry(job.source.get()).or_default() += 1;
        }
        count
    }

    /// Returns the running jobs, by id.
    pub(crate) fn list(&self) -> Vec<Arc<RunningJob>> {
        self.inner.lock().running.values().cloned().collect()
    }

    /// Checks early, before a manifest is read, what [`start`](Self::start) checks.
    ///
    /// # Errors
    /// Those of [`start`](Self::start).
    pub(crate) fn check(
        &self,
        id: JobId,
        dir: RegionDir,
        inputs: &[FileRef],
    ) -> Result<(), JobError> {
        let inner = self.inner.lock();
        inner.check(id, dir, inputs)?;
        let nothing = JobDemand { sub_job_bytes: 0, sub_jobs: 1, memory_bytes: 0, bytes_read: 0 };
        admit(self.capacity, inner.in_use(), None, nothing)?;
        Ok(())
    }

    /// Assigns a slot and memory to a job. `requested` are the limits that the owner allows; `room`
    /// is the number of bytes that may be written to the store's disk.
    ///
    /// # Errors
    /// [`JobError::Exists`], [`JobError::FileBusy`], [`JobError::NotAdmitted`].
    pub(crate) fn start(
        self: &Arc<Self>,
        job: &CompactionJob,
        requested: CompactionLimits,
        room: Option<u64>,
        (number, source): (u32, NodeId),
        now: Instant,
    ) -> Result<JobSlot, JobError> {
        let inputs: Vec<FileRef> = job.inputs.iter().map(FileMeta::reference).collect();
        let mut inner = self.inner.lock();
        inner.check(job.job_id, job.dir, &inputs)?;
        let demand = JobDemand::of(job, requested);
        let limits = admit(self.capacity, inner.in_use(), room, demand)?;
        let running = Arc::new(RunningJob {
            id: job.job_id,
            dir: job.dir,
            inputs: inputs.into_iter().collect(),
            bytes_in: job.bytes(),
            bytes_read: demand.bytes_read,
            number,
            source,
            limits,
            began: now,
            attempt: Attempt::default(),
            ended_by: OnceLock::new(),
        });
        inner.running.insert(job.job_id, running.clone());
        self.running.send_replace(inner.running.len());
        Ok(JobSlot { jobs: self.clone(), job: running })
    }

    /// Ends a job soon, unless it is already committing.
    ///
    /// # Errors
    /// [`JobError::NotFound`].
    pub(crate) fn cancel(&self, id: JobId) -> Result<(), JobError> {
        let job = self.inner.lock().running.get(&id).cloned().ok_or(JobError::NotFound(id))?;
        job.end(EndCause::Cancel);
        Ok(())
    }

    /// Stops accepting jobs.
    pub(crate) fn drain(&self) {
        self.inner.lock().draining = true;
    }

    /// Aborts all jobs, which their owners then retry, and returns their number.
    pub(crate) fn abort_all(&self) -> usize {
        let running = self.list();
        for job in &running {
            job.end(EndCause::Drain);
        }
        running.len()
    }

    /// Resolves when no job is running.
    pub(crate) async fn wait_idle(&self) {
        let mut running = self.running.subscribe();
        // The sender lives as long as `self`.
        let _ = running.wait_for(|running| *running == 0).await;
    }
}

impl RunningJobs {
    fn in_use(&self) -> JobsInUse {
        let jobs = self.running.values();
        let unwritten = |job: &Arc<RunningJob>| {
            job.bytes_read.saturating_sub(job.attempt.progress.snapshot().bytes_written)
        };
        JobsInUse {
            jobs: self.running.len(),
            memory_bytes: jobs.clone().map(|job| job.limits.memory_bytes).sum(),
            sub_jobs: jobs.clone().map(|job| job.limits.parallelism).sum(),
            unwritten_bytes: jobs.map(unwritten).fold(0, u64::saturating_add),
            draining: self.draining,
        }
    }

    fn check(&self, id: JobId, dir: RegionDir, inputs: &[FileRef]) -> Result<(), JobError> {
        if self.running.contains_key(&id) {
            return Err(JobError::Exists(id));
        }
        for other in self.running.values().filter(|other| other.dir == dir) {
            if let Some(busy) = inputs.iter().find(|file| other.inputs.contains(*file)) {
                return Err(JobError::FileBusy { job: other.id, file: busy.file_id });
            }
        }
        Ok(())
    }
}

impl Drop for JobSlot {
    fn drop(&mut self) {
        let mut inner = self.jobs.inner.lock();
        inner.running.remove(&self.job.id);
        self.jobs.running.send_replace(inner.running.len());
    }
}

#[cfg(test)]
mod tests;
