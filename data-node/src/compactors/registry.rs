//! Registry of the compaction jobs of the regions that this node owns. Operators list and cancel them.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tidewater_common::ids::{GroupId, JobId, NodeId, RegionId};
use tidewater_proto::v1::CompactionInfo;
use tidewater_region_engine::compaction::{Attempt, CompactionJob};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Jobs that run, wait or are quarantined.
#[derive(Debug, Default)]
pub struct JobRegistry {
    jobs: Arc<Mutex<BTreeMap<JobId, JobEntry>>>,
}

/// State of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum JobState {
    Running,
    Waiting,
    Quarantined,
}

#[derive(Debug)]
struct JobEntry {
    group: GroupId,
    region: RegionId,
    state: JobState,
    /// The compactor; `None`: the data node itself, or no node.
    node: Option<NodeId>,
    attempts: u32,
    files_in: usize,
    bytes_in: u64,
    why: &'static str,
    last_error: String,
    since: Instant,
    attempt: Attempt,
}

/// Handle of a registered job; dropping it removes the job from the registry.
#[derive(Debug)]
pub struct RegisteredJob {
    jobs: Arc<Mutex<BTreeMap<JobId, JobEntry>>>,
    job: JobId,
}

impl JobRegistry {
    /// Registers a job. `attempt`: its progress, and the token that cancels it.
    pub fn register(
        &self,
        group: GroupId,
        job: &CompactionJob,
        attempt: &Attempt,
    ) -> RegisteredJob {
        let entry = JobEntry {
            group,
            region: job.dir.region_id,
            state: JobState::Waiting,
            node: None,
            attempts: 0,
            files_in: job.inputs.len(),
            bytes_in: job.bytes(),
            why: job.why.as_str(),
            last_error: String::new(),
            since: Instant::now(),
            attempt: attempt.clone(),
        };
        self.jobs.lock().insert(job.job_id, entry);
        RegisteredJob { jobs: self.jobs.clone(), job: job.job_id }
    }

    /// Returns every job in order of id: the oldest first.
    pub fn list(&self, owner: NodeId) -> Vec<CompactionInfo> {
        self.jobs.lock().iter().map(|(job, entry)| entry.info(*job, owner)).collect()
    }

    /// Returns whether a job of this region holds files.
    pub fn has_jobs(&self, region: RegionId) -> bool {
        self.jobs.lock().values().any(|entry| entry.region == region)
    }

    /// Returns the number of quarantined jobs of this region.
    pub fn count_quarantined(&self, region: RegionId) -> usize {
        let jobs = self.jobs.lock();
        let of_region = jobs.values().filter(|entry| entry.region == region);
        of_region.filter(|entry| entry.state == JobState::Quarantined).count()
    }

    /// Cancels a job, which releases it if it is quarantined. Returns whether the job exists.
    pub fn cancel(&self, job: JobId) -> bool {
        let jobs = self.jobs.lock();
        jobs.get(&job).inspect(|entry| entry.attempt.cancel.cancel()).is_some()
    }

    /// Releases the quarantined jobs of a region, so that their files may be picked again.
    pub fn release_quarantined(&self, region: RegionId) {
        for entry in self.jobs.lock().values_mut() {
            if entry.region == region && entry.state == JobState::Quarantined {
                entry.state = JobState::Waiting;
                entry.attempt.cancel.cancel();
            }
        }
    }
}

impl JobEntry {
    fn info(&self, job: JobId, owner: NodeId) -> CompactionInfo {
        CompactionInfo {
            job_id: job.to_string(),
            region_id: self.region.get(),
            group_id: self.group.get(),
            node_id: self.node.map_or(0, NodeId::get),
            owner_node: owner.get(),
            state: self.state.as_str().to_owned(),
            attempts: self.attempts,
            done: Some(self.attempt.progress.snapshot().into()),
            files_in: u32::try_from(self.files_in).unwrap_or(u32::MAX),
            bytes_in: self.bytes_in,
            why: self.why.to_owned(),
            last_error: self.last_error.clone(),
            age_ms: u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX),
        }
    }
}

impl JobState {
    fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Quarantined => "quarantined",
        }
    }
}

impl RegisteredJob {
    /// Marks the start of an attempt on a compactor, or `None` for this node. Returns the number of
    /// attempts with this one.
    pub fn mark_running(&self, node: Option<NodeId>) -> u32 {
        let mut attempts = 0;
        self.change(|entry| {
            entry.attempt.progress.set(&Default::default());
            entry.state = JobState::Running;
            entry.node = node;
            entry.attempts = entry.attempts.saturating_add(1);
            attempts = entry.attempts;
        });
        attempts
    }

    /// Marks the job as waiting after a problem.
    pub fn mark_waiting(&self, problem: &str) {
        self.change(|entry| {
            entry.state = JobState::Waiting;
            entry.node = None;
            problem.clone_into(&mut entry.last_error);
        });
    }

    /// Marks the job as quarantined and returns the token that releases its files. The caller that
    /// requested the job may disconnect without cancelling it from now on.
    pub fn mark_quarantined(&self) -> CancellationToken {
        let cancel = CancellationToken::new();
        self.change(|entry| {
            entry.state = JobState::Quarantined;
            entry.node = None;
            entry.attempt.cancel = cancel.clone();
        });
        cancel
    }

    /// Changes the id of the job.
    pub fn rename(&mut self, job: JobId) {
        let mut jobs = self.jobs.lock();
        if let Some(entry) = jobs.remove(&self.job) {
            jobs.insert(job, entry);
            self.job = job;
        }
    }

    fn change(&self, change: impl FnOnce(&mut JobEntry)) {
        self.jobs.lock().get_mut(&self.job).map(change).unwrap_or_default();
    }
}

impl Drop for RegisteredJob {
    fn drop(&mut self) {
        self.jobs.lock().remove(&self.job);
    }
}
