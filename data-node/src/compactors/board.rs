//! The compactions of the regions that this node owns, as operators see and cancel them.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tidewater_common::ids::{GroupId, JobId, NodeId, RegionId};
use tidewater_proto::v1::CompactionInfo;
use tidewater_region_engine::compaction::{Attempt, CompactionJob};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// See the module's head. Holds what runs, waits or is quarantined, and nothing else.
#[derive(Debug, Default)]
pub struct Board {
    jobs: Arc<Mutex<BTreeMap<JobId, Entry>>>,
}

/// What a job is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Running,
    Waiting,
    Quarantined,
}

#[derive(Debug)]
struct Entry {
    group: GroupId,
    region: RegionId,
    state: State,
    /// The compactor; `None`: the data node itself, or nobody.
    node: Option<NodeId>,
    attempts: u32,
    files_in: usize,
    bytes_in: u64,
    why: &'static str,
    last_error: String,
    since: Instant,
    attempt: Attempt,
}

/// A job on the board, until it is dropped.
#[derive(Debug)]
pub struct Posted {
    jobs: Arc<Mutex<BTreeMap<JobId, Entry>>>,
    job: JobId,
}

impl Board {
    /// Puts a job up. `attempt`: its progress, and the way to cancel it.
    pub fn post(&self, group: GroupId, job: &CompactionJob, attempt: &Attempt) -> Posted {
        let entry = Entry {
            group,
            region: job.dir.region_id,
            state: State::Waiting,
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
        Posted { jobs: self.jobs.clone(), job: job.job_id }
    }

    /// Every job, in order of id, so the oldest first.
    pub fn list(&self, owner: NodeId) -> Vec<CompactionInfo> {
        self.jobs.lock().iter().map(|(job, entry)| entry.info(*job, owner)).collect()
    }

    /// Whether a job of this region has files.
    pub fn has(&self, region: RegionId) -> bool {
        self.jobs.lock().values().any(|entry| entry.region == region)
    }

    /// Jobs of this region that are quarantined.
    pub fn quarantined(&self, region: RegionId) -> usize {
        let jobs = self.jobs.lock();
        let held = |entry: &&Entry| entry.region == region && entry.state == State::Quarantined;
        jobs.values().filter(held).count()
    }

    /// Jobs that are quarantined.
    pub fn all_quarantined(&self) -> usize {
        let jobs = self.jobs.lock();
        jobs.values().filter(|entry| entry.state == State::Quarantined).count()
    }

    /// Ends a job; one that is quarantined is forgotten. Whether there was one.
    pub fn cancel(&self, job: JobId) -> bool {
        let jobs = self.jobs.lock();
        jobs.get(&job).inspect(|entry| entry.attempt.cancel.cancel()).is_some()
    }

    /// Forgets what is quarantined of a region, so that its files may be chosen again.
    pub fn release(&self, region: RegionId) {
        for entry in self.jobs.lock().values_mut() {
            if entry.region == region && entry.state == State::Quarantined {
                entry.state = State::Waiting;
                entry.attempt.cancel.cancel();
            }
        }
    }
}

impl Entry {
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

impl State {
    fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Quarantined => "quarantined",
        }
    }
}

impl Posted {
    /// An attempt begins, on a compactor or here; the attempts so far, this one included.
    pub fn runs(&self, node: Option<NodeId>) -> u32 {
        let mut attempts = 0;
        self.change(|entry| {
            entry.attempt.progress.set(&Default::default());
            (entry.state, entry.node) = (State::Running, node);
            entry.attempts = entry.attempts.saturating_add(1);
            attempts = entry.attempts;
        });
        attempts
    }

    /// It waits, after this went wrong.
    pub fn waits(&self, problem: &str) {
        self.change(|entry| {
            (entry.state, entry.node) = (State::Waiting, None);
            problem.clone_into(&mut entry.last_error);
        });
    }

    /// It is not tried any more. Whoever had asked for it may go away now: the token that is returned
    /// lets its files go.
    pub fn is_quarantined(&self) -> CancellationToken {
        let cancel = CancellationToken::new();
        self.change(|entry| {
            (entry.state, entry.node) = (State::Quarantined, None);
            entry.attempt.cancel = cancel.clone();
        });
        cancel
    }

    /// It goes on under another id.
    pub fn renamed(&mut self, job: JobId) {
        let mut jobs = self.jobs.lock();
        if let Some(entry) = jobs.remove(&self.job) {
            jobs.insert(job, entry);
            self.job = job;
        }
    }

    fn change(&self, change: impl FnOnce(&mut Entry)) {
        self.jobs.lock().get_mut(&self.job).map(change).unwrap_or_default();
    }
}

impl Drop for Posted {
    fn drop(&mut self) {
        self.jobs.lock().remove(&self.job);
    }
}
