//! The jobs that run here, and what they have.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use tidewater_common::ids::{FileId, JobId, NodeId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::Reason;
use tidewater_region_engine::compaction::{Attempt, CompactionJob, CompactionLimits};
use tidewater_region_engine::file_meta::{FileMeta, FileRef};
use tidewater_region_engine::layout::RegionDir;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::admission::{Capacity, Demand, InUse, NotTaken, admit};

/// See the module's head.
#[derive(Debug)]
pub(crate) struct Jobs {
    capacity: Capacity,
    inner: Mutex<Inner>,
    /// How many run.
    running: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct Inner {
    draining: bool,
    running: BTreeMap<JobId, Arc<RunningJob>>,
}

/// A job that runs.
#[derive(Debug)]
pub(crate) struct RunningJob {
    pub(crate) id: JobId,
    pub(crate) dir: RegionDir,
    pub(crate) inputs: BTreeSet<FileRef>,
    pub(crate) bytes_in: u64,
    /// Those of them that are read.
    pub(crate) bytes_read: u64,
    /// The owner's count of attempts.
    pub(crate) number: u32,
    /// Who asked.
    pub(crate) source: NodeId,
    pub(crate) limits: CompactionLimits,
    pub(crate) began: Instant,
    pub(crate) attempt: Attempt,
    ended_by: OnceLock<EndedBy>,
}

/// What ends a job before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndedBy {
    /// Somebody asked for it.
    Cancel,
    /// This node stops.
    Drain,
    /// The store's disk is filling up.
    Disk,
}

/// A job's place among those that run. Dropping it frees what the job had.
#[derive(Debug)]
#[must_use]
pub(crate) struct Slot {
    jobs: Arc<Jobs>,
    pub(crate) job: Arc<RunningJob>,
}

/// Why a job does not begin, or cannot be cancelled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum JobError {
    #[error("job {0} is running here already")]
    Exists(JobId),
    #[error("job {job} has file {file}: it is running here already")]
    FileBusy { job: JobId, file: FileId },
    #[error("job {0} is not running here")]
    NotFound(JobId),
    #[error(transparent)]
    NotTaken(#[from] NotTaken),
}

impl From<JobError> for Refusal {
    fn from(error: JobError) -> Self {
        let refusal = |reason| Self::new(reason, error.to_string());
        match error {
            JobError::Exists(_) | JobError::FileBusy { .. } => refusal(Reason::JobExists),
            JobError::NotFound(_) => refusal(Reason::JobNotFound),
            JobError::NotTaken(why) => why.into(),
        }
    }
}

impl RunningJob {
    /// Ends it soon. What comes first says why.
    pub(crate) fn end(&self, by: EndedBy) {
        let _ = self.ended_by.set(by);
        self.attempt.cancel.cancel();
    }

    /// What ended it before its time.
    pub(crate) fn ended_by(&self) -> Option<EndedBy> {
        self.ended_by.get().copied()
    }
}

impl Jobs {
    /// None yet.
    pub(crate) fn new(capacity: Capacity) -> Arc<Self> {
        let running = watch::Sender::new(0);
        Arc::new(Self { capacity, inner: Mutex::default(), running })
    }

    /// What jobs have together.
    pub(crate) fn capacity(&self) -> Capacity {
        self.capacity
    }

    /// What running jobs have.
    pub(crate) fn in_use(&self) -> InUse {
        self.inner.lock().in_use()
    }

    /// How many each data node has here.
    pub(crate) fn by_source(&self) -> HashMap<u64, u32> {
        let mut count = HashMap::new();
        for job in self.inner.lock().running.values() {
            *count.entry(job.source.get()).or_default() += 1;
        }
        count
    }

    /// All that run, in order of id.
    pub(crate) fn list(&self) -> Vec<Arc<RunningJob>> {
        self.inner.lock().running.values().cloned().collect()
    }

    /// Refuses early what [`begin`](Self::begin) would refuse: before a manifest is read for it.
    ///
    /// # Errors
    /// As [`begin`](Self::begin).
    pub(crate) fn check(
        &self,
        id: JobId,
        dir: RegionDir,
        inputs: &[FileRef],
    ) -> Result<(), JobError> {
        let inner = self.inner.lock();
        inner.check(id, dir, inputs)?;
        let nothing = Demand { sub_job_bytes: 0, sub_jobs: 1, memory_bytes: 0, bytes_read: 0 };
        admit(self.capacity, inner.in_use(), None, nothing)?;
        Ok(())
    }

    /// Gives a job its slot and its memory. `wanted`: what it may use at most; `room`: bytes that
    /// may be written to the store's disk.
    ///
    /// # Errors
    /// [`JobError::Exists`], [`JobError::FileBusy`], [`JobError::NotTaken`].
    pub(crate) fn begin(
        self: &Arc<Self>,
        job: &CompactionJob,
        wanted: CompactionLimits,
        room: Option<u64>,
        (number, source): (u32, NodeId),
        now: Instant,
    ) -> Result<Slot, JobError> {
        let inputs: Vec<FileRef> = job.inputs.iter().map(FileMeta::reference).collect();
        let mut inner = self.inner.lock();
        inner.check(job.job_id, job.dir, &inputs)?;
        let demand = Demand {
            sub_job_bytes: job.sub_job_bytes(),
            sub_jobs: job.sub_jobs(CompactionLimits { memory_bytes: u64::MAX, ..wanted }),
            memory_bytes: wanted.memory_bytes,
            bytes_read: job.bytes_read(),
        };
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
        Ok(Slot { jobs: self.clone(), job: running })
    }

    /// Ends a job soon, unless it is committing already.
    ///
    /// # Errors
    /// [`JobError::NotFound`].
    pub(crate) fn cancel(&self, id: JobId) -> Result<(), JobError> {
        let job = self.inner.lock().running.get(&id).cloned().ok_or(JobError::NotFound(id))?;
        job.end(EndedBy::Cancel);
        Ok(())
    }

    /// Takes no job any more.
    pub(crate) fn drain(&self) {
        self.inner.lock().draining = true;
    }

    /// Ends all jobs soon, and says how many.
    pub(crate) fn hand_back(&self) -> usize {
        let running = self.list();
        for job in &running {
            job.end(EndedBy::Drain);
        }
        running.len()
    }

    /// Resolves when no job runs.
    pub(crate) async fn idle(&self) {
        let mut running = self.running.subscribe();
        // The sender lives as long as `self`.
        let _ = running.wait_for(|running| *running == 0).await;
    }
}

impl Inner {
    fn in_use(&self) -> InUse {
        let jobs = self.running.values();
        let unwritten = |job: &Arc<RunningJob>| {
            job.bytes_read.saturating_sub(job.attempt.progress.snapshot().bytes_written)
        };
        InUse {
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

impl Drop for Slot {
    fn drop(&mut self) {
        let mut inner = self.jobs.inner.lock();
        inner.running.remove(&self.job.id);
        self.jobs.running.send_replace(inner.running.len());
    }
}

#[cfg(test)]
mod tests;
