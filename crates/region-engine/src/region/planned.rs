//! A compaction on its way: planned by the owner of a region, carried out here or elsewhere.

use std::sync::Arc;

use tidewater_common::ids::{JobId, ManifestVersion};

use super::Region;
use super::compact::CompactionReport;
use crate::EngineError;
use crate::compaction::compactor::CompactionTarget;
use crate::compaction::{Attempt, CommittedCompaction, CompactionJob, CompactionPlan, Compactor};
use crate::hooks::ManifestKind;
use crate::manifest::Author;
use crate::manifest::history::{History, history};

/// Deltas that are read at once when the author of one is looked for.
const DELTAS: u64 = 64;

/// A compaction that was planned, and is carried out here or elsewhere. Until it is dropped, this
/// replica holds its files against others.
#[derive(Debug)]
pub struct PlannedCompaction {
    pub(super) region: Arc<Region>,
    pub(super) plan: CompactionPlan,
    pub(super) job: CompactionJob,
    /// Earlier ids, under which attempts may still go on.
    pub(super) before: Vec<JobId>,
    /// The state that it was made of.
    pub(super) version: ManifestVersion,
}

/// What has become of a compaction, by the manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// All of its files are live: it was not committed, and still may be.
    Open,
    /// Its outputs are in the manifest.
    Committed {
        /// Since this version.
        version: ManifestVersion,
        /// How many there are.
        files_out: usize,
    },
    /// Its files were merged by others, truncated or dropped: it can never be committed.
    Gone,
}

impl Drop for PlannedCompaction {
    fn drop(&mut self) {
        let mut contents = self.region.contents.lock();
        for file in &self.plan.inputs {
            contents.compacting.remove(file);
        }
    }
}

impl PlannedCompaction {
    /// What was planned.
    pub fn plan(&self) -> &CompactionPlan {
        &self.plan
    }

    /// What it comes to.
    pub fn job(&self) -> &CompactionJob {
        &self.job
    }

    /// The same files under a new job id. [`settle`](Self::settle) knows attempts under the old one.
    #[must_use]
    pub fn renamed(mut self) -> Self {
        let env = &self.region.env;
        self.before.push(self.plan.job_id);
        self.plan.job_id = env.ids.job_id(env.clock.now_ms());
        self.job.job_id = self.plan.job_id;
        self
    }

    /// Carries it out here: merges, commits, swaps. Whoever calls holds one
    /// of the [permits](crate::env::RegionEnv::compactions).
    ///
    /// # Errors
    /// As [`Region::compact`].
    pub async fn run(&self, attempt: &Attempt) -> Result<CompactionReport, EngineError> {
        let (region, job) = (&self.region, &self.job);
        tracing::debug!(region = %region.id(), job = %job.job_id, why = ?job.why, "compaction begins");
        let target = CompactionTarget {
            manifest: &region.manifest,
            hooks: &region.hooks,
            spec: &region.spec,
        };
        let compactor = Compactor::new(region.env.clone());
        let committed = compactor.compact(target, job, attempt).await;
        let committed = region.note_fence(committed)?;
        region.swap();
        let report = report(job, &committed, attempt);
        tracing::info!(
            region = %region.id(),
            job = %job.job_id,
            why = ?report.why,
            manifest_version = %report.manifest_version,
            files_in = report.files_in,
            files_out = report.files_out,
            rows_in = report.done.rows_read,
            rows_out = report.done.rows_written,
            bytes_out = report.done.bytes_written,
            "compacted"
        );
        Ok(report)
    }

    /// Reads the manifest to its tail, swaps, and says what has become of attempts that were made
    /// elsewhere.
    ///
    /// # Errors
    /// Those of reading the manifest. A region that was dropped is no error.
    pub async fn settle(&self) -> Result<Settled, EngineError> {
        match self.region.load().await {
            Ok(_) | Err(EngineError::Removed { .. }) => {}
            Err(error) => return Err(error),
        }
        let state = self.region.manifest.state();
        if !state.is_removed() && self.plan.inputs.iter().all(|file| state.live.contains_key(file))
        {
            return Ok(Settled::Open);
        }
        let mut after = self.version;
        // What was cleaned meanwhile does not tell any more: then it is gone for all that is known.
        while let History::Deltas(past) =
            history(&self.region.env, self.region.dir, after, DELTAS).await?
        {
            for one in past {
                after = one.delta.version;
                let by = |job: &JobId| one.delta.author == Author::Job(*job);
                let ours = by(&self.plan.job_id) || self.before.iter().any(by);
                if ours && one.manifest == ManifestKind::Live {
                    let files_out = one.delta.files_added().count();
                    return Ok(Settled::Committed { version: after, files_out });
                }
            }
        }
        Ok(Settled::Gone)
    }
}

fn report(
    job: &CompactionJob,
    committed: &CommittedCompaction,
    attempt: &Attempt,
) -> CompactionReport {
    CompactionReport {
        job_id: job.job_id,
        why: job.why,
        manifest_version: committed.manifest_version,
        files_in: job.inputs.len(),
        bytes_in: job.bytes(),
        files_out: committed.outputs.len(),
        done: attempt.progress.snapshot(),
    }
}
